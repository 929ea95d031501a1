#include "textflag.h"

// The kernels of rows_simd.go in SSE2, which every amd64 machine has. A block
// is 16 bytes of result; all loads and stores may be unaligned.
//
// PACKUSWB joins eight words and eight words to sixteen bytes; the words hold
// 255 at most, so that it only drops their high bytes.

// EVENS sets X7 to 00FF in every word: the bytes at even places.
#define EVENS \
	PCMPEQL X7, X7 \
	PSRLW   $8, X7

// func everySecondBlocks(to, line *byte, blocks int)
TEXT ·everySecondBlocks(SB), NOSPLIT, $0-24
	MOVQ to+0(FP), DI
	MOVQ line+8(FP), SI
	MOVQ blocks+16(FP), CX
	EVENS

loop:
	MOVOU    0(SI), X0
	MOVOU    16(SI), X1
	PAND     X7, X0
	PAND     X7, X1
	PACKUSWB X1, X0
	MOVOU    X0, 0(DI)
	ADDQ     $32, SI
	ADDQ     $16, DI
	DECQ     CX
	JNZ      loop
	RET

// PAIR loads 16 packed pixels of two lines, X0 X1 above and X2 X3 below, and
// their means into X4 X5.
#define PAIR \
	MOVOU 0(SI), X0   \
	MOVOU 16(SI), X1  \
	MOVOU 0(BX), X2   \
	MOVOU 16(BX), X3  \
	MOVO  X0, X4      \
	MOVO  X1, X5      \
	PAVGB X2, X4      \
	PAVGB X3, X5

// STORE packs luma of both lines and the mean chroma, and goes on by a block.
#define STORE \
	PACKUSWB X1, X0      \
	PACKUSWB X3, X2      \
	PACKUSWB X5, X4      \
	MOVOU    X0, 0(DI)   \
	MOVOU    X2, 0(R8)   \
	MOVOU    X4, 0(R9)   \
	ADDQ     $32, SI     \
	ADDQ     $32, BX     \
	ADDQ     $16, DI     \
	ADDQ     $16, R8     \
	ADDQ     $16, R9

// func unpackYUYVBlocks(ya, yb, uv, a, b *byte, blocks int)
TEXT ·unpackYUYVBlocks(SB), NOSPLIT, $0-48
	MOVQ ya+0(FP), DI
	MOVQ yb+8(FP), R8
	MOVQ uv+16(FP), R9
	MOVQ a+24(FP), SI
	MOVQ b+32(FP), BX
	MOVQ blocks+40(FP), CX
	EVENS

loop:
	PAIR
	PAND  X7, X0
	PAND  X7, X1
	PAND  X7, X2
	PAND  X7, X3
	PSRLW $8, X4
	PSRLW $8, X5
	STORE
	DECQ  CX
	JNZ   loop
	RET

// func unpackUYVYBlocks(ya, yb, uv, a, b *byte, blocks int)
TEXT ·unpackUYVYBlocks(SB), NOSPLIT, $0-48
	MOVQ ya+0(FP), DI
	MOVQ yb+8(FP), R8
	MOVQ uv+16(FP), R9
	MOVQ a+24(FP), SI
	MOVQ b+32(FP), BX
	MOVQ blocks+40(FP), CX
	EVENS

loop:
	PAIR
	PSRLW $8, X0
	PSRLW $8, X1
	PSRLW $8, X2
	PSRLW $8, X3
	PAND  X7, X4
	PAND  X7, X5
	STORE
	DECQ  CX
	JNZ   loop
	RET

// func averageBlocks(to, a, b *byte, blocks int)
TEXT ·averageBlocks(SB), NOSPLIT, $0-32
	MOVQ to+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ b+16(FP), BX
	MOVQ blocks+24(FP), CX

loop:
	MOVOU 0(SI), X0
	MOVOU 0(BX), X1
	PAVGB X1, X0
	MOVOU X0, 0(DI)
	ADDQ  $16, SI
	ADDQ  $16, BX
	ADDQ  $16, DI
	DECQ  CX
	JNZ   loop
	RET

// func compressBlocks(line *byte, blocks, gain, offset int)
TEXT ·compressBlocks(SB), NOSPLIT, $0-32
	MOVQ    line+0(FP), DI
	MOVQ    blocks+8(FP), CX
	MOVQ    gain+16(FP), AX
	MOVQ    AX, X5
	PSHUFLW $0, X5, X5
	PSHUFD  $0, X5, X5            // the gain in every word
	MOVQ    offset+24(FP), AX
	MOVQ    AX, X6
	PSHUFLW $0, X6, X6
	PSHUFD  $0, X6, X6            // the offset in every word
	PXOR    X7, X7

loop:
	MOVOU     0(DI), X0
	MOVO      X0, X1
	PUNPCKLBW X7, X0
	PUNPCKHBW X7, X1
	PMULLW    X5, X0
	PMULLW    X5, X1
	PADDW     X6, X0
	PADDW     X6, X1
	PSRLW     $8, X0
	PSRLW     $8, X1
	PACKUSWB  X1, X0
	MOVOU     X0, 0(DI)
	ADDQ      $16, DI
	DECQ      CX
	JNZ       loop
	RET
