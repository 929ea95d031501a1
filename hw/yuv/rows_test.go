package yuv

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A kernel pairs the fast form of a function with the plain one. Both take three
// results of n bytes and two sources of twice as many.
type kernel struct {
	name        string
	fast, plain func(to [3][]byte, a, b []byte)
}

var kernels = []kernel{
	{
		"every second byte",
		func(to [3][]byte, a, _ []byte) { everySecond(to[0], a) },
		func(to [3][]byte, a, _ []byte) { everySecondPortable(to[0], a) },
	},
	{
		"every second byte, the last one missing",
		func(to [3][]byte, a, _ []byte) { everySecond(to[0], a[min(1, len(a)):]) },
		func(to [3][]byte, a, _ []byte) { everySecondPortable(to[0], a[min(1, len(a)):]) },
	},
	{
		"every second byte in place",
		func(to [3][]byte, a, _ []byte) { copy(to[0], inPlace(everySecond, a)) },
		func(to [3][]byte, a, _ []byte) { copy(to[0], inPlace(everySecondPortable, a)) },
	},
	{
		"YUYV",
		func(to [3][]byte, a, b []byte) { unpackPair(to[0], to[1], to[2], a, b, 0) },
		func(to [3][]byte, a, b []byte) { unpackPairPortable(to[0], to[1], to[2], a, b, 0) },
	},
	{
		"UYVY",
		func(to [3][]byte, a, b []byte) { unpackPair(to[0], to[1], to[2], a, b, 1) },
		func(to [3][]byte, a, b []byte) { unpackPairPortable(to[0], to[1], to[2], a, b, 1) },
	},
	{
		"average",
		func(to [3][]byte, a, b []byte) { average(to[0], a, b) },
		func(to [3][]byte, a, b []byte) { averagePortable(to[0], a, b) },
	},
	{
		"luma to limited range",
		func(to [3][]byte, a, _ []byte) { copy(to[0], a); rangeOf(true, false, true).compress(to[0]) },
		func(to [3][]byte, a, _ []byte) { copy(to[0], a); rangeOf(true, false, true).compressPortable(to[0]) },
	},
	{
		"chroma to limited range",
		func(to [3][]byte, a, _ []byte) { copy(to[0], a); rangeOf(true, false, false).compress(to[0]) },
		func(to [3][]byte, a, _ []byte) { copy(to[0], a); rangeOf(true, false, false).compressPortable(to[0]) },
	},
}

func inPlace(everySecond func(to, line []byte), a []byte) []byte {
	a = bytes.Clone(a)
	everySecond(a[:len(a)/2], a)
	return a[:len(a)/2]
}

// check runs both forms on the same bytes, that begin off bytes behind an
// aligned address, and looks that no byte around the results changes.
func (k kernel) check(t *testing.T, src []byte, n, off int) {
	t.Helper()
	const guard, apart = 0xA5, 32
	a, b := bytes.Clone(src)[off:][:2*n:2*n], bytes.Clone(src)[off+1:][:2*n:2*n]
	run := func(f func([3][]byte, []byte, []byte)) (all [3][]byte) {
		var to [3][]byte
		for i := range all {
			all[i] = bytes.Repeat([]byte{guard}, n+apart+off)
			to[i] = all[i][off:][:n:n]
		}
		f(to, a, b)
		for i := range all {
			if bytes.Count(all[i][:off], []byte{guard}) != off || bytes.Count(all[i][off+n:], []byte{guard}) != apart {
				t.Fatalf("%s, %d bytes, offset %d: result %d is written beside its place", k.name, n, off, i)
			}
		}
		return all
	}
	fast, plain := run(k.fast), run(k.plain)
	for i := range fast {
		if !bytes.Equal(fast[i], plain[i]) {
			t.Fatalf("%s, %d bytes, offset %d: result %d differs:\n% x\n% x", k.name, n, off, i, fast[i], plain[i])
		}
	}
}

// TestRowsAreTheSameByteForByte tries every width up to some blocks at every
// offset of an aligned word.
func TestRowsAreTheSameByteForByte(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	src := make([]byte, 1024)
	for _, k := range kernels {
		t.Run(k.name, func(t *testing.T) {
			for n := range 6*16 + 1 {
				for off := range 16 {
					_, _ = random.Read(src) // never fails
					k.check(t, src, n, off)
				}
			}
		})
	}
}

// TestRowsOfExtremesAreTheSame has every pair of a few values meet.
func TestRowsOfExtremesAreTheSame(t *testing.T) {
	values := []byte{0, 1, 127, 128, 254, 255}
	for _, k := range kernels {
		for _, x := range values {
			for _, y := range values {
				src := bytes.Repeat([]byte{x, y, y}, 64)
				k.check(t, src, 48, 3)
			}
		}
	}
}

func FuzzRows(f *testing.F) {
	f.Add([]byte("an even and an odd count of bytes, more than two blocks of them, for every kernel there is"), uint8(3))
	f.Add([]byte("000"), uint8(3)) // fewer bytes than are skipped
	f.Fuzz(func(t *testing.T, src []byte, off uint8) {
		skip := int(off % 16)
		if len(src) < skip+1 {
			return
		}
		n := (len(src) - skip - 1) / 2
		for _, k := range kernels {
			k.check(t, src, n, skip)
		}
	})
}

// TestRowsOnARM runs the tests above as arm64 and armv7 programs.
func TestRowsOnARM(t *testing.T) {
	for _, tt := range []struct{ name, arch, qemu string }{
		{"64 bit", "arm64", "qemu-aarch64-static"},
		{"armv7", "arm", "qemu-arm-static"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			qemu, err := exec.LookPath(tt.qemu)
			if err != nil {
				t.Fatalf("%v: install qemu-user-static, make test does", err)
			}
			program := filepath.Join(t.TempDir(), "yuv.test")
			build := exec.Command("go", "test", "-c", "-o", program, ".")
			build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+tt.arch, "GOARM=7", "GOFLAGS=-mod=readonly")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out, err := exec.Command(qemu, program, "-test.run", "^(TestRowsAreTheSameByteForByte|TestRowsOfExtremesAreTheSame|FuzzRows)$", "-test.v").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

func BenchmarkRows(b *testing.B) {
	const n = 1920
	src, other := make([]byte, 2*n), make([]byte, 2*n)
	to := [3][]byte{make([]byte, n), make([]byte, n), make([]byte, n)}
	for _, k := range kernels {
		for _, form := range []struct {
			name string
			run  func([3][]byte, []byte, []byte)
		}{{"", k.fast}, {" in plain Go", k.plain}} {
			b.Run(k.name+form.name, func(b *testing.B) {
				b.SetBytes(2 * n)
				for b.Loop() {
					form.run(to, src, other)
				}
			})
		}
	}
}
