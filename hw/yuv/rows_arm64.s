#include "textflag.h"

// The kernels of rows_simd.go in Advanced SIMD, which every arm64 machine has.
// A block is 16 bytes of result. VLD2 parts the bytes at even and odd places,
// which is all that packed pixels need.

// What the assembler has no name for.
#define URHADD(m, n, d) WORD $(0x6E201400 | m<<16 | n<<5 | d) // Vd.16B = (Vn + Vm + 1) / 2
#define UMLAL(m, n, d)  WORD $(0x2E208000 | m<<16 | n<<5 | d) // Vd.8H += Vn.8B × Vm.8B
#define UMLAL2(m, n, d) WORD $(0x6E208000 | m<<16 | n<<5 | d) // the same of the upper halves

// func everySecondBlocks(to, line *byte, blocks int)
TEXT ·everySecondBlocks(SB), NOSPLIT, $0-24
	MOVD to+0(FP), R0
	MOVD line+8(FP), R1
	MOVD blocks+16(FP), R2

loop:
	VLD2.P 32(R1), [V0.B16, V1.B16]
	VST1.P [V0.B16], 16(R0)
	SUBS   $1, R2
	BNE    loop
	RET

// func unpackYUYVBlocks(ya, yb, uv, a, b *byte, blocks int)
TEXT ·unpackYUYVBlocks(SB), NOSPLIT, $0-48
	MOVD ya+0(FP), R0
	MOVD yb+8(FP), R1
	MOVD uv+16(FP), R2
	MOVD a+24(FP), R3
	MOVD b+32(FP), R4
	MOVD blocks+40(FP), R5

loop:
	VLD2.P 32(R3), [V0.B16, V1.B16] // luma, chroma
	VLD2.P 32(R4), [V2.B16, V3.B16]
	VST1.P [V0.B16], 16(R0)
	URHADD(3, 1, 1)
	VST1.P [V2.B16], 16(R1)
	VST1.P [V1.B16], 16(R2)
	SUBS   $1, R5
	BNE    loop
	RET

// func unpackUYVYBlocks(ya, yb, uv, a, b *byte, blocks int)
TEXT ·unpackUYVYBlocks(SB), NOSPLIT, $0-48
	MOVD ya+0(FP), R0
	MOVD yb+8(FP), R1
	MOVD uv+16(FP), R2
	MOVD a+24(FP), R3
	MOVD b+32(FP), R4
	MOVD blocks+40(FP), R5

loop:
	VLD2.P 32(R3), [V0.B16, V1.B16] // chroma, luma
	VLD2.P 32(R4), [V2.B16, V3.B16]
	VST1.P [V1.B16], 16(R0)
	URHADD(2, 0, 0)
	VST1.P [V3.B16], 16(R1)
	VST1.P [V0.B16], 16(R2)
	SUBS   $1, R5
	BNE    loop
	RET

// func averageBlocks(to, a, b *byte, blocks int)
TEXT ·averageBlocks(SB), NOSPLIT, $0-32
	MOVD to+0(FP), R0
	MOVD a+8(FP), R1
	MOVD b+16(FP), R2
	MOVD blocks+24(FP), R3

loop:
	VLD1.P 16(R1), [V0.B16]
	VLD1.P 16(R2), [V1.B16]
	URHADD(1, 0, 0)
	VST1.P [V0.B16], 16(R0)
	SUBS   $1, R3
	BNE    loop
	RET

// func compressBlocks(line *byte, blocks, gain, offset int)
TEXT ·compressBlocks(SB), NOSPLIT, $0-32
	MOVD line+0(FP), R0
	MOVD blocks+8(FP), R1
	MOVD gain+16(FP), R2
	MOVD offset+24(FP), R3
	VDUP R2, V4.B16
	VDUP R3, V5.H8

loop:
	VLD1   (R0), [V0.B16]
	VMOV   V5.B16, V2.B16
	VMOV   V5.B16, V3.B16
	UMLAL(4, 0, 2)
	UMLAL2(4, 0, 3)
	VUZP2  V3.B16, V2.B16, V0.B16 // the high byte of each product
	VST1.P [V0.B16], 16(R0)
	SUBS   $1, R1
	BNE    loop
	RET
