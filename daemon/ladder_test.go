package daemon

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// hall is a box with a hardware encoder and a spare one of software.
type hall struct {
	*rig
	hard, soft *videoDriver
}

func inHall(t *testing.T, test func(hall)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := hall{hard: &videoDriver{free: make(chan struct{})}, soft: &videoDriver{}}
		h.hard.instance.Store(7)
		h.rig = newRig(t, small, func(b *hw.Board) {
			b.FindEncoders = func() ([]hw.EncoderDriver, error) {
				if h.hard.gone.Load() {
					return nil, nil
				}
				driver := h.hard.driver("hard", true)
				driver.Instance = h.hard.instance.Load()
				return []hw.EncoderDriver{driver}, nil
			}
			b.Encoders = []hw.EncoderDriver{h.soft.driver("soft", false)}
		})
		defer h.stop()
		h.until("box on duty", onDuty)
		test(h)
	})
}

// by asks for pictures of an encoder.
func by(encoder string) func(status.Box) bool {
	return func(b status.Box) bool { return onDuty(b) && b.Renditions[0].Encoder == encoder }
}

func TestAnEncoderThatStallsForAMomentIsNudged(t *testing.T) {
	inHall(t, func(h hall) {
		time.Sleep(5 * time.Second)
		enc, v := h.hard.latest(), h.view("main")
		target, keys := enc.rate.Load(), enc.keys.Load()
		h.hard.mute.Store(true)
		b := h.until("trouble", func(b status.Box) bool { return b.Renditions[0].State == status.Recovering })
		if !b.Has(status.EncoderStalled) || b.State == status.Broken {
			t.Errorf("state %s, faults %+v", b.State, b.Faults)
		}
		h.hard.mute.Store(false)
		h.until("picture", onDuty)
		if enc.highest.Load() != target*5/4 || enc.keys.Load() == keys {
			t.Errorf("bit rate of %d was raised to %d, %d key frames asked for", target, enc.highest.Load(), enc.keys.Load()-keys)
		}
		time.Sleep(forgiveAfter + time.Second)
		if enc.rate.Load() != target || len(h.hard.all()) != 1 || len(h.soft.all()) > 0 {
			t.Errorf("bit rate %d after all, %d and %d encoders", enc.rate.Load(), len(h.hard.all()), len(h.soft.all()))
		}
		v.on(t)
	})
}

// on wants that nobody has cut the viewer off.
func (v *viewer) on(t *testing.T) {
	t.Helper()
	select {
	case <-v.done:
		t.Errorf("the viewer was cut off: %v", v.ended)
	default:
	}
}

func TestAnEncoderThatHangsIsOpenedAnewAndThenReplaced(t *testing.T) {
	tests := []struct {
		name   string
		hang   func(*videoDriver)
		opened int           // hardware encoders in all
		within time.Duration // until software has the picture
		words  string
	}{
		{"gives nothing", func(d *videoDriver) { d.mute.Store(true) }, 2, 5 * time.Second, "takes pictures and gives nothing"},
		{"gives nothing and does not close", func(d *videoDriver) {
			d.latest().hung = d.free
			d.mute.Store(true)
		}, 1, 5 * time.Second, "close hard: hangs"},
		{"gives nothing and says that it does not stop", func(d *videoDriver) {
			d.latest().stuck = true
			d.mute.Store(true)
		}, 1, 5 * time.Second, "close hard: hangs"},
		{"gives nothing, and its opening hangs", func(d *videoDriver) {
			d.slow.Store(true)
			d.mute.Store(true)
		}, 1, 8 * time.Second, "open hard: hangs"},
		{"does neither close nor open", func(d *videoDriver) {
			d.latest().stuck = true
			d.slow.Store(true)
			d.mute.Store(true)
		}, 1, 8 * time.Second, "close hard: hangs"},
		{"gives nothing and cannot be opened", func(d *videoDriver) {
			d.mute.Store(true)
			d.busy.Store(true)
		}, 1, 3 * time.Second, "device is busy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inHall(t, func(h hall) {
				time.Sleep(5 * time.Second)
				v := h.view("main")
				tt.hang(h.hard)
				began := time.Now()
				for fed, look := time.Now(), 0; look < 10; look++ {
					time.Sleep(2500 * time.Millisecond)
					if h.Alive() {
						fed = time.Now()
					}
					if time.Since(fed) > 5*time.Second {
						t.Error("the watchdog is close to biting while the box helps itself")
					}
				}
				b := h.until("software", by("soft"))
				if b.Has(status.DriverHangs) != strings.Contains(tt.words, "hangs") {
					t.Errorf("faults %+v", b.Faults)
				}
				if at := h.soft.latest().opened.Sub(began); at > tt.within {
					t.Errorf("the spare encoder came after %v", at)
				}
				if n := len(h.hard.all()); n != tt.opened || len(h.soft.all()) != 1 {
					t.Errorf("%d hardware encoders, %d of software", n, len(h.soft.all()))
				}
				if r := b.Renditions[0]; !b.Has(status.EncoderFallback) || !strings.Contains(r.EncoderReason, tt.words) || r.State != status.Live {
					t.Errorf("%+v, faults %+v", r, b.Faults)
				}
				seen := v.video.Load()
				time.Sleep(time.Second)
				if v.video.Load() < seen+9 {
					t.Errorf("the viewer sees %d pictures a second", v.video.Load()-seen)
				}
				v.on(t)
				close(h.hard.free)
				h.until("the end of what hung", func(b status.Box) bool { return !b.Has(status.DriverHangs) })
			})
		})
	}
}

func TestHardwareComesBackWhenSomethingAboutItChanged(t *testing.T) {
	tests := []struct {
		name   string
		change func(hall)
	}{
		{"settings of the rendition", func(h hall) { h.apply(small + "[[rendition]]\nname = \"main\"\ngop = \"1s\"\n") }},
		{"plugged in anew", func(h hall) {
			h.hard.gone.Store(true)
			h.devices.changed()
			time.Sleep(rescan + time.Second)
			if !by("soft")(h.box(time.Now())) {
				t.Error("software let go")
			}
			h.hard.gone.Store(false)
			h.devices.changed()
		}},
		{"plugged in anew between two looks", func(h hall) {
			h.hard.instance.Store(8)
			h.devices.changed()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inHall(t, func(h hall) {
				v := h.view("main")
				h.hard.mute.Store(true)
				h.until("software", by("soft"))
				h.hard.mute.Store(false)
				time.Sleep(30 * time.Second)
				if !by("soft")(h.box(time.Now())) {
					t.Error("the box went back by itself")
				}
				tt.change(h)
				b := h.until("hardware", by("hard"))
				if b.Has(status.EncoderFallback) {
					t.Errorf("faults %+v", b.Faults)
				}
				v.on(t)
			})
		})
	}
}

func TestHardwareThatGoesAndComesBackBetweenTwoLooks(t *testing.T) {
	inHall(t, func(h hall) {
		v := h.view("main")
		for range 2 {
			h.hard.latest().depart()
			h.until("software", by("soft"))
			h.until("hardware", by("hard"))
		}
		for range 5 { // it claims to be there, and is not
			h.hard.latest().depart()
			time.Sleep(30 * time.Second)
		}
		if n := len(h.hard.all()); n < 4 || n > 8 {
			t.Errorf("it was opened %d times", n)
		}
		v.on(t)
	})
}

func TestAFailureOfHardwareIsTriedOnceAndThenReplaced(t *testing.T) {
	inHall(t, func(h hall) {
		for range 2 {
			close(h.hard.latest().broken)
			time.Sleep(time.Second)
		}
		if b := h.until("software", by("soft")); !strings.Contains(b.Renditions[0].EncoderReason, "fell over") || len(h.hard.all()) != 2 {
			t.Errorf("%d hardware encoders, %+v", len(h.hard.all()), b.Renditions[0])
		}
	})
}

func TestFailuresFarApartAreForgiven(t *testing.T) {
	inHall(t, func(h hall) {
		for range 5 {
			close(h.hard.latest().broken)
			time.Sleep(forgiveAfter + 5*time.Second)
		}
		if b := h.until("picture", onDuty); b.Renditions[0].Encoder != "hard" || len(h.hard.all()) != 6 {
			t.Errorf("%d hardware encoders, %+v", len(h.hard.all()), b.Renditions[0])
		}
	})
}

func TestWhereNothingIsLeftTheWatchdogBites(t *testing.T) {
	inBox(t, small, nil, func(r *rig) {
		time.Sleep(5 * time.Second)
		r.video.mute.Store(true)
		time.Sleep(20 * time.Second)
		r.Alive()
		for range 5 {
			time.Sleep(2500 * time.Millisecond)
			if r.Alive() {
				t.Error("the watchdog is fed though no picture is coded")
			}
		}
		if n := len(r.video.all()); n != 2 {
			t.Errorf("%d encoders, want one more try", n)
		}
		r.video.mute.Store(false)
		r.until("picture", onDuty)
		time.Sleep(time.Second)
		if !r.Alive() {
			b, _ := r.Status()
			t.Errorf("it is over, and the watchdog is not fed: %+v", b)
		}
	})
}

func TestStallCountsLooksWhileTheEncoderIsFed(t *testing.T) {
	type event struct{ units, offered uint64 }
	repeat := func(n int, units, from, each uint64) (list []event) {
		for i := range n {
			list = append(list, event{units, from + uint64(i)*each})
		}
		return list
	}
	tests := []struct {
		name     string
		hardware bool
		fps      int
		events   []event
		want     []int // looks, from 1, at which it is nudged; negative: stuck
	}{
		{"nothing comes", true, 30, repeat(12, 5, 100, 7), []int{5, -9}},
		{"nothing goes in", true, 30, repeat(40, 5, 100, 0), nil},
		{"one picture inside", true, 30, append(repeat(1, 5, 100, 0), repeat(40, 5, 101, 0)...), nil},
		{"one picture each second", true, 1, append(repeat(1, 5, 100, 0), repeat(17, 5, 102, 0)...), []int{17}},
		{"the first picture of software", false, 30, repeat(23, 0, 2, 7), []int{10, -20}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStall(tt.hardware, hw.Rate{Num: tt.fps, Den: 1})
			var got []int
			for i, e := range tt.events {
				switch s.look(e.units, e.offered) {
				case nudge:
					got = append(got, i+1)
				case stuck:
					got = append(got, -i-1)
				case wait:
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestABoardWithoutItsEncoderSaysSo(t *testing.T) {
	for _, tt := range []struct {
		doc  string
		told bool
	}{{small, true}, {small + "[[rendition]]\nname = \"main\"\nencoder = \"software\"\n", false}} {
		inBox(t, tt.doc, func(b *hw.Board) {
			b.FindEncoders = func() ([]hw.EncoderDriver, error) {
				return nil, fmt.Errorf("this board's encoder: %w: boot another kernel", hw.ErrMissing)
			}
		}, func(r *rig) {
			b := r.until("status", onDuty)
			if b.Has(status.EncoderFallback) != tt.told || b.State == status.Broken {
				t.Errorf("state %s, faults %+v", b.State, b.Faults)
			}
		})
	}
}

func TestEncodersThatCannotBeAskedAreNotGone(t *testing.T) {
	var busy, missing atomic.Bool
	video := &videoDriver{}
	inBox(t, small, func(b *hw.Board) {
		b.FindEncoders = func() ([]hw.EncoderDriver, error) {
			switch {
			case busy.Load():
				return nil, hw.ErrBusy
			case missing.Load():
				return nil, hw.ErrMissing
			}
			return []hw.EncoderDriver{video.driver("hard", true)}, nil
		}
	}, func(r *rig) {
		busy.Store(true)
		time.Sleep(3 * rescan)
		if b, _ := r.Status(); !by("hard")(b) || len(video.all()) != 1 {
			t.Errorf("%d encoders, %+v", len(video.all()), b.Renditions[0])
		}
		busy.Store(false)
		missing.Store(true)
		r.until("software", by("fake"))
	})
}
