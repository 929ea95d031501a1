package m2m_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/fakevb2"
)

// On a chip whose caches do not follow its devices, a picture that a camera has
// written is copied as the camera wrote it, and coded as it was copied. What is
// read in place needs no care at all.
func TestCopiesOfSharedMemoryAreNeverStale(t *testing.T) {
	for _, tt := range []struct {
		name          string
		width, height int    // of the source
		noImport      bool   // the driver reads its own memory only
		accesses      int    // of the CPU to dma-bufs, for each picture
		way           string // copied or not
	}{
		{"in place", 64, 48, false, 0, "in place"},
		{"scaled into the driver's memory", 128, 96, false, 2, "copied"},
		{"copied into a queue's own memory", 64, 48, true, 1, "copied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := codec("vh264enc")
				var coded []byte // the first byte of each plane that the device read
				n.Encoder.Code = func(p fakevb2.Picture) []byte {
					luma, chroma := p.Planes[0][:64*48], p.Planes[0][64*48:]
					if len(bytes.Trim(luma, string(luma[:1]))) > 0 || len(bytes.Trim(chroma[:64*24], "\x80")) > 0 {
						t.Errorf("picture %d is half another", p.Number)
					}
					coded = append(coded, luma[0])
					return fakevb2.Grey(p)
				}
				r := newRig(t, n)
				r.Incoherent = true
				source, l := reelOf(t, r.driver, hw.Layout{Pixel: hw.NV12, Width: tt.width, Height: tt.height})
				if tt.noImport {
					r.Do(func() { n.NoImport = true })
				}
				cfg := small()
				cfg.Input = hw.Layout{}
				if !tt.noImport && tt.accesses == 0 {
					cfg.Input = l
				}
				e, err := r.driver.Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				s := newShow(t, e, source)
				for i := range byte(10) {
					s.shoot(r, l, 50+i)
				}
				if begun, open := r.Syncs(); begun != 10*tt.accesses || open != 0 {
					t.Errorf("%d accesses to dma-bufs, %d of them without an end; want %d", begun, open, 10*tt.accesses)
				}
				if want := []byte{50, 51, 52, 53, 54, 55, 56, 57, 58, 59}; !bytes.Equal(coded, want) {
					t.Errorf("coded %d, want %d", coded, want)
				}
				if copied := e.Stats().CopiedBytes > 0; copied != (tt.way == "copied") {
					t.Errorf("%d bytes copied", e.Stats().CopiedBytes)
				}
				if err := s.close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// shoot has a camera write a picture of one level into memory of layout l, and
// submits it.
func (s *show) shoot(r *rig, l hw.Layout, level byte) {
	s.t.Helper()
	f := (<-s.reel.frames).Lend()
	mem := r.Look(f.Planes[0].FD)
	r.Do(func() {
		fakevb2.Paint(mem[:l.Planes[1].Offset], level)
		fakevb2.Paint(mem[l.Planes[1].Offset:l.Sizes[0]], 0x80)
	})
	s.reel.count++
	f.Stamp = time.Duration(s.reel.count) * 66_666_667
	if err := s.e.Submit(f); err != nil {
		s.t.Error(err)
	}
	f.Release()
	s.settle()
}
