package m2m_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

// attempt does all that is ever done with an encoder and returns the first
// error; it stops there.
func attempt(t *testing.T, r *rig) error {
	t.Helper()
	if err := r.find(); err != nil {
		return err
	}
	l, err := r.driver.Importer.Layout(hw.Layout{Pixel: hw.NV12, Width: 256, Height: 128})
	if err != nil {
		return err
	}
	pool, err := r.driver.Importer.Allocate(l, 6)
	if err != nil {
		return err
	}
	pictures, err := newReel(hw.Mode{Pixel: l.Pixel, Width: l.Width, Height: l.Height}, pool)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(256, 128)
	cfg.Input = l
	e, err := r.driver.Open(cfg)
	if err != nil {
		return errors.Join(err, pool.Close())
	}
	s := newShow(t, e, pictures)
	for range 5 {
		f := s.reel.next()
		err = errors.Join(err, e.Submit(f))
		f.Release()
		s.settle()
	}
	e.ForceKey()
	odd := heap(t, hw.Mode{Pixel: hw.YUYV, Width: 64, Height: 48}).next() // must be converted
	odd.Stamp = stamp(6)
	if err == nil {
		err = e.Submit(odd)
	}
	s.settle()
	return errors.Join(err, s.close(), pool.Close())
}

// calls lists what attempt asks of the kernel when all goes well.
func calls(t *testing.T, driver string) (names []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{Kernel: fakevb2.New(codec(driver))}
		if err := attempt(t, r); err != nil {
			t.Fatal(err)
		}
		names = r.Calls()
		r.cleanUp(t)
	})
	return names
}

func TestUnpluggedAtAnyCallNothingIsLeft(t *testing.T) {
	for _, driver := range []string{"bcm2835-codec", "wave5"} {
		for i := range calls(t, driver) {
			synctest.Test(t, func(t *testing.T) {
				r := &rig{Kernel: fakevb2.New(codec(driver))}
				r.UnplugAt = i + 1
				err := attempt(t, r)
				if err != nil && !errors.Is(err, hw.ErrGone) && !errors.Is(err, fs.ErrClosed) {
					t.Errorf("%s, call %d (%s): %v", driver, i+1, r.Calls()[i], err)
				}
				r.cleanUp(t)
			})
		}
	}
}

// TestAnyCallMayFail: whatever fails, it is an error that says so, or the show
// goes on; and all is given back.
func TestAnyCallMayFail(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.EINVAL, unix.EBUSY} {
		for i, name := range calls(t, "vh264enc") {
			if name == "notify" {
				continue // an eventfd can only be full
			}
			synctest.Test(t, func(t *testing.T) {
				r := &rig{Kernel: fakevb2.New(codec("vh264enc"))}
				r.FailAt, r.FailWith = i+1, errno
				err := attempt(t, r)
				if err != nil && !errors.Is(err, errno) && !errors.Is(err, fs.ErrClosed) && !errors.Is(err, hw.ErrGone) {
					t.Errorf("call %d (%s) fails with %v: %v", i+1, name, errno, err)
				}
				r.cleanUp(t)
			})
		}
	}
}

func TestAnEncoderThatBreaksSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := codec("vh264enc")
		n.Encoder.Script = []fakevb2.CodingFault{{}, {Fatal: true}}
		s := newRig(t, n).play(t, small())
		s.pass(2)
		err := <-s.ended
		if !errors.Is(err, unix.EIO) {
			t.Errorf("Next says %v", err)
		}
		s.ended <- err
		f := s.reel.next()
		if err := s.e.Submit(f); !errors.Is(err, unix.EIO) {
			t.Errorf("Submit says %v", err)
		}
		f.Release()
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTooManyEncodersAreBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := codec("vh264enc")
		n.Encoder.Instances = 1
		r := newRig(t, n)
		s := r.play(t, small())
		if _, err := r.driver.Open(small()); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("a second one: %v", err)
		}
		s.pass(2)
		if err := s.close(); err != nil {
			t.Error(err)
		}
		again, err := r.driver.Open(small())
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestADriverThatDoesNotStopIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, codec("vh264enc"))
		s := r.play(t, small())
		s.pass(2)
		r.Do(func() { r.node.Idle, r.node.HangStreamOff = true, true })
		f := s.reel.next()
		if err := s.e.Submit(f); err != nil {
			t.Fatal(err)
		}
		f.Release()
		s.settle()
		begun := time.Now()
		if err := s.e.Close(); !errors.Is(err, m2m.ErrStuck) {
			t.Errorf("Close says %v", err)
		}
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("Close took %s", took)
		}
		if len(s.reel.frames) != cap(s.reel.frames)-1 {
			t.Errorf("%d frames are back, want all but the one that the device reads", len(s.reel.frames))
		}
		r.Do(func() { r.node.HangStreamOff = false })
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestACodecThatHangsIsLeftWithoutOneMorePicture: what must come out before the
// stop is given to the driver again only when that has nothing left. Memory that
// it may still read is not its to have twice.
func TestACodecThatHangsIsLeftWithoutOneMorePicture(t *testing.T) {
	for _, kind := range []string{"copied", "in place"} {
		for _, inside := range []int{1, 2, 3, 4} {
			t.Run(fmt.Sprint(inside, " ", kind), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { hangs(t, inside, kind == "in place") })
			})
		}
	}
}

// hangs closes an encoder that has so many pictures and gives none back.
func hangs(t *testing.T, inside int, inPlace bool) {
	t.Helper()
	r := newRig(t, codec("bcm2835-codec"))
	r.Do(func() { r.node.Idle = true })
	cfg := small()
	pictures := heap(t, hw.Mode{Pixel: hw.NV12, Width: cfg.Width, Height: cfg.Height})
	if inPlace {
		pictures, cfg.Input = reelOf(t, r.driver, hw.Layout{Pixel: hw.NV12, Width: cfg.Width, Height: cfg.Height})
	}
	e, err := r.driver.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range inside {
		f := pictures.next()
		if err := e.Submit(f); err != nil {
			t.Fatal(err)
		}
		f.Release()
	}
	synctest.Wait()
	if copied := e.Stats().CopiedBytes; (copied == 0) != inPlace {
		t.Fatalf("%d bytes were copied", copied)
	}
	before := queued(r)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if more := queued(r) - before; more != 0 {
		t.Errorf("Close queued %d buffers", more)
	}
	if len(pictures.frames) != cap(pictures.frames) {
		t.Errorf("%d frames are back, want all", len(pictures.frames))
	}
}

// queued counts the buffers that were queued so far.
func queued(r *rig) (n int) {
	for _, name := range r.Calls() {
		if name == "qbuf" {
			n++
		}
	}
	return n
}

// TestTheLastPictureComesOutBeforeTheStop: bcm2835's firmware hangs until the
// box is switched off if it does not.
func TestTheLastPictureComesOutBeforeTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := codec("bcm2835-codec")
		n.Encoder.Script = []fakevb2.CodingFault{{}, {}, {Dropped: true}, {Dropped: true}, {Dropped: true}}
		coded := 0
		n.Encoder.Code = func(p fakevb2.Picture) []byte { coded++; return fakevb2.Grey(p) }
		r := newRig(t, n)
		s := r.play(t, small())
		if units := s.pass(3); len(units) != 2 {
			t.Errorf("%d units", len(units))
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
		// The picture that was dropped, twice more in vain, and then it came.
		if coded != 6 {
			t.Errorf("%d pictures went in, want 6", coded)
		}
		r.Do(func() {
			var rates []int64
			for _, set := range r.node.Settings() {
				if set.ID == uapi.CIDBitrate {
					rates = append(rates, set.Value)
				}
			}
			if len(rates) != 4 || rates[3] != 8*rates[0] {
				t.Errorf("bit rates %d, want three doublings", rates)
			}
		})
	})
}

func TestADriverThatDoesNotCropIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := codec("unheard-of")
		for i := range n.Encoder.Raw {
			n.Encoder.Raw[i].AlignLines = 32
		}
		n.Refuse = map[string]unix.Errno{"s_selection": unix.EINVAL}
		s := newRig(t, n).play(t, small())
		s.pass(1)
		err := <-s.ended
		if !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("Next says %v", err)
		}
		s.ended <- err
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestKeyPicturesAreInsistedOn: an order may be ignored, and a key picture
// without parameter sets is none.
func TestKeyPicturesAreInsistedOn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*fakevb2.Picture)
		want  string
		count int
	}{
		{"the order is ignored", func(p *fakevb2.Picture) { p.Key = p.Key && p.Number != 4 }, "[0 6]", 8},
		{"no parameter sets", func(p *fakevb2.Picture) { p.Headers = p.Headers && p.Number > 0 }, "[0 3]", 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := codec("vh264enc")
				n.Encoder.Code = func(p fakevb2.Picture) []byte {
					tt.spoil(&p)
					p.Headers = p.Headers && p.Key
					return fakevb2.Grey(p)
				}
				s := newRig(t, n).play(t, small())
				s.pass(4)
				s.e.ForceKey()
				s.pass(4)
				if got := fmt.Sprint(keys(s.units)); got != tt.want || len(s.units) != tt.count {
					t.Errorf("keys %s of %d units", got, len(s.units))
				}
				if err := s.close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestADriverThatCannotEmitTheLastPicture is not waited for longer than Close
// may take, and gets ever more bits until then, also where int has 32.
func TestADriverThatCannotEmitTheLastPicture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := codec("bcm2835-codec")
		n.Encoder.Script = slices.Repeat([]fakevb2.CodingFault{{Dropped: true}}, 100)
		r := newRig(t, n)
		cfg := small()
		cfg.Bitrate = 25_000_000
		s := r.play(t, cfg)
		s.pass(3)
		begun := time.Now()
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took < 500*time.Millisecond || took >= 2*time.Second {
			t.Errorf("Close took %s", took)
		}
		r.Do(func() {
			var rates []int64
			for _, set := range r.node.Settings() {
				if set.ID == uapi.CIDBitrate {
					rates = append(rates, set.Value)
				}
			}
			if len(rates) < 3 || !slices.IsSorted(rates) {
				t.Errorf("bit rates %d, want them to rise", rates)
			}
		})
	})
}
