package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/convert"
)

// A part is what is printed on a camera or a sound card.
type part struct {
	id, name, parent string
	rate             *atomic.Int64 // of its sound; negative: it does not know
}

func (p part) Parent() string { return p.parent }

// hdmi is a camera with sound.
type hdmi struct {
	hw.Camera
	part
}

func (h hdmi) ID() string   { return h.id }
func (h hdmi) Name() string { return h.name }
func (h hdmi) SoundRate() (int, error) {
	if hz := h.rate.Load(); hz >= 0 {
		return int(hz), nil
	}
	return 0, hw.ErrUnsupported
}

// card is a sound card that can be told its rate.
type card struct {
	hw.Mic
	part
	told *atomic.Int64
}

func (c card) ID() string   { return c.id }
func (c card) Name() string { return c.name }
func (c card) Open(ctx context.Context) (hw.MicStream, error) {
	s, err := c.Mic.Open(ctx)
	return ratedStream{s, c.told}, err
}

type ratedStream struct {
	hw.MicStream
	told *atomic.Int64
}

func (s ratedStream) TrueRate(hz int) { s.told.Store(int64(hz)) }

func TestTheCardBehindAnHDMIInputIsToldItsRate(t *testing.T) {
	tests := []struct {
		name         string
		camera, card part
		told         bool
	}{
		{"a bridge on the board", part{id: "cam", name: "tc358743"}, part{id: "alsa:tc358743", name: "bridge"}, true},
		{"another card of the board", part{id: "cam", name: "tc358743"}, part{id: "alsa:codec", name: "codec"}, false},
		{"a USB card beside the bridge", part{id: "cam", name: "tc358743"}, part{id: "alsa:mic", name: "HDMI mixer", parent: "/sys/devices/usb1"}, false},
		{"one USB device", part{id: "cam", name: "grabber", parent: "/sys/devices/usb1"}, part{id: "alsa:mic", name: "grabber", parent: "/sys/devices/usb1"}, true},
		{"two USB devices", part{id: "cam", name: "grabber", parent: "/sys/devices/usb2"}, part{id: "alsa:mic", name: "grabber", parent: "/sys/devices/usb1"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rate, told atomic.Int64
			rate.Store(44100)
			tt.camera.rate = &rate
			inBox(t, small, func(b *hw.Board) {
				cameras, mics := b.Cameras, b.Mics
				b.Cameras = func() ([]hw.Camera, error) {
					list, err := cameras()
					return []hw.Camera{hdmi{list[0], tt.camera}}, err
				}
				b.Mics = func() ([]hw.Mic, error) {
					list, err := mics()
					return []hw.Mic{card{list[0], tt.card, &told}}, err
				}
			}, func(r *rig) {
				r.until("sound", func(b status.Box) bool { return b.Sound.Signal })
				for _, hz := range []int64{44100, 32000, 0, -1} {
					rate.Store(hz)
					time.Sleep(2 * rateEvery)
					want := int64(0)
					if tt.told {
						want = hz
						if hz <= 0 {
							want = 32000 // what was known last
						}
					}
					if got := told.Load(); got != want {
						t.Errorf("at %d Hz the card was told %d, want %d", hz, got, want)
					}
				}
			})
		})
	}
}

func TestTheCamerasOwnMicrophoneIsPreferred(t *testing.T) {
	var told atomic.Int64
	inBox(t, small, func(b *hw.Board) {
		cameras, mics := b.Cameras, b.Mics
		b.Cameras = func() ([]hw.Camera, error) {
			list, err := cameras()
			var rate atomic.Int64
			return []hw.Camera{hdmi{list[0], part{id: "cam", parent: "/sys/devices/usb1", rate: &rate}}}, err
		}
		b.Mics = func() ([]hw.Mic, error) {
			list, err := mics()
			if len(list) == 0 {
				return nil, errors.Join(err, hw.ErrGone)
			}
			return []hw.Mic{
				card{list[0], part{id: "alsa:a", name: "another"}, &told},
				card{list[0], part{id: "alsa:b", name: "the camera's", parent: "/sys/devices/usb1"}, &told},
			}, err
		}
	}, func(r *rig) {
		if b := r.until("sound", func(b status.Box) bool { return b.Sound.Signal }); b.Sound.ID != "alsa:b" {
			t.Errorf("the sound comes from %s", b.Sound.ID)
		}
	})
}

// attachedActor is an actor that is a part of a USB device and can share memory.
type attachedActor struct {
	*actor
	part
}

func (a attachedActor) ID() string   { return a.actor.ID() }
func (a attachedActor) Name() string { return a.actor.Name() }

func (a attachedActor) OpenShared(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (hw.SharedStream, error) {
	s, err := a.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	src := hw.BufferSource{Mode: s.Mode(), Layout: bare(s.Mode())}
	return &sharedStream{CameraStream: s, plan: decide(src)}, nil
}

func TestTheMicrophoneOfTheCameraIsPreferredThroughWhateverStandsBeforeIt(t *testing.T) {
	const usb = "/sys/devices/usb1/1-1"
	none := func() ([]*convert.Device, error) { return nil, nil }
	for name, wrap := range map[string]func(attachedActor) hw.Camera{
		"the camera itself":          func(a attachedActor) hw.Camera { return a },
		"a decoder for its pictures": func(a attachedActor) hw.Camera { return convert.Decoding(a, none, slog.New(slog.DiscardHandler)) },
		"a decoder that is told more": func(a attachedActor) hw.Camera {
			return convert.Decoding(a, none, slog.New(slog.DiscardHandler)).(hw.PreferringCamera).Preferring(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var told atomic.Int64
			a := newActor(fps(10, 1))
			camera := func(a *actor) hw.Camera { return wrap(attachedActor{a, part{parent: usb}}) }
			change := func(b *hw.Board) {
				find := b.Mics
				b.Mics = func() ([]hw.Mic, error) {
					list, err := find()
					if len(list) == 0 {
						return nil, err
					}
					return []hw.Mic{
						card{Mic: list[0], part: part{id: "alsa:a", name: "mixer", parent: "/sys/devices/usb1/1-2"}, told: &told},
						card{Mic: list[0], part: part{id: "alsa:b", name: "camera", parent: usb}, told: &told},
					}, err
				}
			}
			inBox(t, small, func(b *hw.Board) {
				a.clock, a.fails, a.opens = bubbleClock(), make(chan error), make(chan error, 1)
				b.Cameras = func() ([]hw.Camera, error) { return []hw.Camera{camera(a)}, nil }
				change(b)
			}, func(r *rig) {
				if b := r.until("sound", func(b status.Box) bool { return b.Sound.ID != "" }); b.Sound.ID != "alsa:b" {
					t.Errorf("the card in use is %q", b.Sound.ID)
				}
			})
		})
	}
}
