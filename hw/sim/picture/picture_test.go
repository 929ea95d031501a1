package picture_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/hw"
	"encoderd.example/hw/hwtest"
	"encoderd.example/hw/sim/picture"
)

var keep = flag.String("pictures", "", "folder to keep the painted pictures in")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mode(pixel hw.PixelFormat, w, h int) hw.Mode {
	return hw.Mode{Pixel: pixel, Width: w, Height: h, FPS: hw.Rate{Num: 30, Den: 1}}
}

func newPattern(tb testing.TB, m hw.Mode) *picture.Pattern {
	tb.Helper()
	p, err := picture.NewPattern(m, "Main hall")
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func read(f *hw.Frame) (picture.Code, bool) {
	return picture.Read(f.Planes[0].Data, f.Planes[0].Stride, f.Width, f.Height)
}

func TestWhatIsPaintedIsRead(t *testing.T) {
	sizes := []struct {
		name string
		w, h int
	}{
		{"smallest that can be read", picture.MinWidth, picture.MinHeight},
		{"odd size", 97, 41},
		{"thumbnail", 320, 180},
		{"portrait", 1080, 1920},
		{"full HD", 1920, 1080},
		{"largest", 4096, 4096},
	}
	moments := []struct {
		seq   uint32
		stamp time.Duration
		want  picture.Code
	}{
		{0, 0, picture.Code{Flash: true}},
		{1<<24 - 1, 99 * time.Millisecond, picture.Code{Counter: 1<<24 - 1, ClockMS: 99, Flash: true}},
		{1<<24 + 5, 100 * time.Millisecond, picture.Code{Counter: 5, ClockMS: 100}},
		{0xabcdef, 20000*time.Second + 999*time.Millisecond, picture.Code{Counter: 0xabcdef, ClockMS: 20000999 % (1 << 24)}},
	}
	for _, size := range sizes {
		for _, pixel := range []hw.PixelFormat{hw.NV12, hw.I420} {
			t.Run(size.name+" "+pixel.String(), func(t *testing.T) {
				p := newPattern(t, mode(pixel, size.w, size.h))
				for _, m := range moments {
					f := p.Frame(m.seq, m.stamp, 0)
					got, ok := read(f)
					if !ok || got != m.want {
						t.Errorf("frame %d at %v: read %+v, %v; want %+v", m.seq, m.stamp, got, ok, m.want)
					}
					if f.Seq != m.seq || f.Stamp != m.stamp {
						t.Errorf("frame says %d at %v, want %d at %v", f.Seq, f.Stamp, m.seq, m.stamp)
					}
					f.Release()
				}
			})
		}
	}
}

func TestEverySizeCanBePainted(t *testing.T) {
	for w := 2; w < 140; w++ {
		for h := 2; h < 100; h += 3 {
			for _, pixel := range []hw.PixelFormat{hw.NV12, hw.I420} {
				f := newPattern(t, mode(pixel, w, h)).Frame(7, 3*time.Second, 0)
				if got, ok := read(f); ok != (w >= picture.MinWidth && h >= picture.MinHeight) || ok && got.Counter != 7 {
					t.Fatalf("%dx%d: read %+v, %v", w, h, got, ok)
				}
				s, err := picture.NewSlate(mode(pixel, w, h), "NO SIGNAL", "x")
				if err != nil {
					t.Fatal(err)
				}
				s.Frame(time.Second).Release()
			}
		}
	}
}

func TestOtherLayoutsAreRefused(t *testing.T) {
	for _, m := range []hw.Mode{mode(hw.YUYV, 640, 360), mode(hw.MJPEG, 640, 360), mode(hw.NV12, 1, 1), {}} {
		if _, err := picture.NewPattern(m, ""); err == nil {
			t.Errorf("pattern of %s was accepted", m)
		}
		if _, err := picture.NewSlate(m, "", ""); err == nil {
			t.Errorf("slate of %s was accepted", m)
		}
	}
}

// The cells were computed by hand from the documented CRC: they pin the layout
// for readers that others write.
func TestCodeRowsHaveTheDocumentedCells(t *testing.T) {
	tests := []struct {
		name  string
		value uint32
		want  string
	}{
		{"zero is not all black", 0, "00000055"},
		{"one", 1, "00000152"},
		{"all ones", 1<<24 - 1, "ffffff5a"},
	}
	p := newPattern(t, mode(hw.NV12, 320, 180))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := p.Frame(tt.value, 0, 0)
			defer f.Release()
			var bits uint32
			for i := range 32 {
				bits <<= 1
				switch v := f.Planes[0].Data[5*320+i*10+5]; v {
				case 235:
					bits |= 1
				case 16:
				default:
					t.Fatalf("cell %d has luma %d", i, v)
				}
			}
			got := hex.EncodeToString([]byte{byte(bits >> 24), byte(bits >> 16), byte(bits >> 8), byte(bits)})
			if got != tt.want {
				t.Errorf("cells %s, want %s", got, tt.want)
			}
		})
	}
}

func TestDamageIsRefused(t *testing.T) {
	const w, h = 320, 180
	tests := []struct {
		name   string
		damage func(luma []byte)
	}{
		{"a cell turned white", func(l []byte) { box(l, 0, 0, 10, 11, 235) }},
		{"a cell of the clock turned white", func(l []byte) { box(l, 0, 11, 10, 22, 235) }},
		{"a grey cell", func(l []byte) { box(l, 310, 0, 320, 11, 125) }},
		{"all grey", func(l []byte) { box(l, 0, 0, w, h, 125) }},
		{"all black", func(l []byte) { box(l, 0, 0, w, h, 16) }},
		{"all white", func(l []byte) { box(l, 0, 0, w, h, 235) }},
		{"hardly any contrast", func(l []byte) {
			for i := range l {
				l[i] = 100 + l[i]/8
			}
		}},
		{"moved by half a row", func(l []byte) { copy(l, l[w*6:]) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newPattern(t, mode(hw.NV12, w, h)).Frame(5, 33*time.Millisecond, 0)
			defer f.Release()
			tt.damage(f.Planes[0].Data)
			if got, ok := read(f); ok {
				t.Errorf("read %+v", got)
			}
		})
	}
}

func TestBlendOfTwoFramesIsRefused(t *testing.T) {
	p := newPattern(t, mode(hw.NV12, 640, 360))
	a, b := p.Frame(100, time.Second, 0), p.Frame(101, time.Second+33*time.Millisecond, 0)
	for i, v := range b.Planes[0].Data {
		a.Planes[0].Data[i] = byte((int(a.Planes[0].Data[i]) + int(v)) / 2)
	}
	if got, ok := read(a); ok {
		t.Errorf("read %+v", got)
	}
}

// box paints into a picture 320 samples wide.
func box(luma []byte, x0, y0, x1, y1 int, v byte) {
	for y := y0; y < y1; y++ {
		for x := x0; x < x1; x++ {
			luma[y*320+x] = v
		}
	}
}

func TestClockUnwraps(t *testing.T) {
	tests := []struct {
		name      string
		at, near  time.Duration
		want      time.Duration
		tolerance time.Duration
	}{
		{"same turn", 5 * time.Second, 6 * time.Second, 5 * time.Second, 0},
		{"seen after the turn", 1<<24*time.Millisecond - time.Second, 1<<24*time.Millisecond + time.Second, 1<<24*time.Millisecond - time.Second, 0},
		{"ahead of the turn", 1<<24*time.Millisecond + time.Second, 1<<24*time.Millisecond - time.Second, 1<<24*time.Millisecond + time.Second, 0},
		{"after a month", 700 * time.Hour, 700*time.Hour + 2*time.Second, 700 * time.Hour, 0},
		{"between milliseconds", 1234567 * time.Microsecond, 2 * time.Second, 1234 * time.Millisecond, 0},
	}
	p := newPattern(t, mode(hw.NV12, 320, 180))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := p.Frame(0, tt.at, 0)
			defer f.Release()
			code, ok := read(f)
			if got := code.Clock(tt.near); !ok || got != tt.want {
				t.Errorf("got %v, %v; want %v", got, ok, tt.want)
			}
		})
	}
}

func TestBuffersAreLentUntilReleased(t *testing.T) {
	p := newPattern(t, mode(hw.NV12, 64, 36))
	var lent []*hw.Frame
	for i := range picture.Buffers {
		lent = append(lent, p.Frame(uint32(i), 0, 0))
	}
	if f := p.Frame(99, 0, 0); f != nil {
		t.Fatal("a frame was lent beyond the last buffer")
	}
	for i, f := range lent {
		if code, ok := read(f); !ok || code.Counter != uint32(i) {
			t.Errorf("frame %d was painted over: %+v, %v", i, code, ok)
		}
	}
	lent[3].Release()
	if f := p.Frame(99, 0, 0); f != lent[3] {
		t.Error("the buffer given back is not lent again")
	}
}

func TestPaintingAllocatesNothing(t *testing.T) {
	p := newPattern(t, mode(hw.NV12, 640, 360))
	s, err := picture.NewSlate(mode(hw.NV12, 640, 360), "NO SIGNAL", "Main hall")
	if err != nil {
		t.Fatal(err)
	}
	p.Frame(0, 0, 0).Release()
	s.Frame(0).Release()
	if n := testing.AllocsPerRun(50, func() {
		p.Frame(1, time.Second, time.Hour).Release()
		s.Frame(time.Second).Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSlateMovesOnlyItsBar(t *testing.T) {
	s, err := picture.NewSlate(mode(hw.NV12, 640, 360), "NO SIGNAL", "Main hall")
	if err != nil {
		t.Fatal(err)
	}
	a, b := s.Frame(0), s.Frame(400*time.Millisecond)
	changed, outside := 0, 0
	for i := range a.Planes[0].Data {
		if a.Planes[0].Data[i] != b.Planes[0].Data[i] {
			changed++
			if y := i / 640; y < 240 || y > 300 {
				outside++
			}
		}
	}
	if changed < 40 || outside != 0 {
		t.Errorf("%d samples changed, %d of them outside of the bar", changed, outside)
	}
	if _, ok := read(a); ok {
		t.Error("the slate is taken for a test picture")
	}
	// A buffer that was used before shows nothing of its last use.
	fresh, err := picture.NewSlate(mode(hw.NV12, 640, 360), "NO SIGNAL", "Main hall")
	if err != nil {
		t.Fatal(err)
	}
	a.Release()
	again, first := s.Frame(time.Second), fresh.Frame(time.Second)
	if string(again.Planes[0].Data) != string(first.Planes[0].Data) {
		t.Error("the bar left a trace")
	}
}

func TestPicturesForPeople(t *testing.T) {
	dir := *keep
	if dir == "" {
		dir = t.TempDir()
	}
	p := newPattern(t, mode(hw.NV12, 1920, 1080))
	s, err := picture.NewSlate(mode(hw.I420, 1920, 1080), "NO SIGNAL", "Großer Saal, Küche 2")
	if err != nil {
		t.Fatal(err)
	}
	small, err := picture.NewPattern(mode(hw.I420, 320, 180), "Main hall")
	if err != nil {
		t.Fatal(err)
	}
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	for name, f := range map[string]*hw.Frame{
		"pattern.png": p.Frame(123456, 1234567*time.Millisecond, 13*time.Hour+time.Second),
		"flash.png":   small.Frame(99, time.Second, 0),
		"slate.png":   s.Frame(1100 * time.Millisecond),
	} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := encoder.Encode(file, toImage(f)); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// toImage converts limited range to the full range of image.YCbCr (JFIF).
func toImage(f *hw.Frame) image.Image {
	img := image.NewYCbCr(image.Rect(0, 0, f.Width, f.Height), image.YCbCrSubsampleRatio420)
	for y := range f.Height {
		for x := range f.Width {
			v := f.Planes[0].Data[y*f.Planes[0].Stride+x]
			img.Y[img.YOffset(x, y)] = byte(min(max((int(v)-16)*255/219, 0), 255))
			cb, cr := chroma(f, x/2, y/2)
			c := img.COffset(x, y)
			img.Cb[c], img.Cr[c] = cb, cr
		}
	}
	return img
}

func chroma(f *hw.Frame, x, y int) (cb, cr byte) {
	if f.Pixel == hw.NV12 {
		pair := f.Planes[1].Data[y*f.Planes[1].Stride+2*x:]
		return pair[0], pair[1]
	}
	return f.Planes[1].Data[y*f.Planes[1].Stride+x], f.Planes[2].Data[y*f.Planes[2].Stride+x]
}

func FuzzRead(f *testing.F) {
	good := newPattern(f, mode(hw.I420, 64, 36)).Frame(1, 1, 0)
	f.Add(good.Planes[0].Data, 64, 64, 36)
	f.Add([]byte{}, 0, 0, 0)
	f.Add(make([]byte, 64*36-1), 64, 64, 36)
	f.Add(make([]byte, 10), -64, 64, 36)
	f.Fuzz(func(_ *testing.T, luma []byte, stride, w, h int) {
		picture.Read(luma, stride, w, h)
	})
}

func BenchmarkPattern1080p(b *testing.B) {
	for _, pixel := range []hw.PixelFormat{hw.NV12, hw.I420} {
		b.Run(pixel.String(), func(b *testing.B) {
			p := newPattern(b, mode(pixel, 1920, 1080))
			b.ReportAllocs()
			var seq uint32
			for b.Loop() {
				p.Frame(seq, time.Duration(seq)*time.Second/30, time.Hour).Release()
				seq++
			}
		})
	}
}

func BenchmarkSlate1080p(b *testing.B) {
	s, err := picture.NewSlate(mode(hw.NV12, 1920, 1080), "NO SIGNAL", "Main hall")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var t time.Duration
	for b.Loop() {
		s.Frame(t).Release()
		t += time.Second / 30
	}
}

func BenchmarkRead1080p(b *testing.B) {
	f := newPattern(b, mode(hw.NV12, 1920, 1080)).Frame(1, 2, 3)
	for b.Loop() {
		if _, ok := read(f); !ok {
			b.Fatal("not read")
		}
	}
}

// A memory is a pool on the heap, as an encoder would map it.
type memory struct {
	layout  hw.Layout
	buffers []hw.Buffer
}

func (m memory) Layout() hw.Layout    { return m.layout }
func (m memory) Buffers() []hw.Buffer { return m.buffers }
func (m memory) Close() error         { return nil }

func TestSharedMemoryIsPaintedBetweenBeginAndEnd(t *testing.T) {
	var a hwtest.Accesses
	l := hw.Layout{
		Pixel: hw.I420, Width: 320, Height: 180, Sizes: [3]int{320 * 270},
		Planes: [3]hw.PlaneLayout{{Stride: 320}, {Stride: 160, Offset: 320 * 180}, {Stride: 160, Offset: 320 * 225}},
	}
	b := hw.Buffer{FDs: [3]int{50, -1, -1}, Mem: [3][]byte{make([]byte, l.Sizes[0])}, Shared: [3]*hw.DMABuf{hw.NewDMABuf(50, &a)}}
	slate, err := picture.NewSharedSlate(memory{layout: l, buffers: []hw.Buffer{b}}, hw.Rate{Num: 30, Den: 1}, "NO SIGNAL", "hall")
	if err != nil {
		t.Fatal(err)
	}
	slate.Frame(time.Second).Release()
	a.Check(t, hw.Writing, 2) // the background, once, and the bar
	slate.Frame(2 * time.Second).Release()
	a.Check(t, hw.Writing, 1)
}

func TestASharedSlateIsTheSameInOtherMemory(t *testing.T) {
	const width, height, stride = 320, 180, 384
	l := hw.Layout{
		Pixel: hw.NV12, Width: width, Height: height, Sizes: [3]int{stride * height * 3 / 2},
		Planes: [3]hw.PlaneLayout{{Stride: stride}, {Offset: stride * height, Stride: stride}},
	}
	m := memory{layout: l, buffers: make([]hw.Buffer, 2)}
	for i := range m.buffers {
		m.buffers[i] = hw.Buffer{FDs: [3]int{50 + i, -1, -1}, Mem: [3][]byte{make([]byte, l.Sizes[0])}}
	}
	shared, err := picture.NewSharedSlate(m, hw.Rate{Num: 30, Den: 1}, "NO SIGNAL", "hall")
	if err != nil {
		t.Fatal(err)
	}
	own, err := picture.NewSlate(hw.Mode{Pixel: hw.NV12, Width: width, Height: height, FPS: hw.Rate{Num: 30, Den: 1}}, "NO SIGNAL", "hall")
	if err != nil {
		t.Fatal(err)
	}
	a, b, second := shared.Frame(time.Second), own.Frame(time.Second), shared.Frame(time.Second)
	if a.Mode != b.Mode || a.Planes[0].FD != 50 || second.Planes[1].FD != 51 || second.Planes[1].Offset != stride*height {
		t.Errorf("modes %v and %v, planes %+v", a.Mode, b.Mode, second.Planes[1].Offset)
	}
	for p, lines := range []int{height, height / 2} {
		for y := range lines {
			if !bytes.Equal(a.Planes[p].Data[y*stride:][:width], b.Planes[p].Data[y*width:][:width]) {
				t.Fatalf("plane %d differs in line %d", p, y)
			}
		}
	}
	if shared.Frame(time.Second) != nil {
		t.Error("there are more frames than buffers")
	}
	a.Release()
	if f := shared.Frame(2 * time.Second); f != a {
		t.Error("a buffer that came back is not used")
	}
	m.buffers[1].Mem[0] = nil
	if _, err := picture.NewSharedSlate(m, hw.Rate{Num: 30, Den: 1}, "", ""); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("memory that is not mapped gives %v", err)
	}
}
