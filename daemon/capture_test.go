package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/daemon/supervise"
	"encoderd.example/hw"
	"encoderd.example/hw/sim"
)

func TestTheCameraComesBackByItself(t *testing.T) {
	tests := []struct {
		name, fault string
		away, soon  time.Duration // how long it is away, and within what it is back
	}{
		{"cable pulled for a moment", "camera-unplugged", time.Second, time.Second},
		{"cable pulled for long", "camera-unplugged", 20 * time.Second, time.Second},
		{"no signal for long", "camera-no-signal", 40 * time.Second, 2 * time.Second},
		{"frozen", "camera-frozen", 10 * time.Second, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBox(t, small, nil, func(r *rig) {
				time.Sleep(3 * time.Second)
				r.fault(tt.fault, true)
				time.Sleep(tt.away)
				if b := r.until("slate", func(b status.Box) bool { return !b.Input.Signal }); !b.Has(status.NoPicture) {
					t.Errorf("no fault in %+v", b.Faults)
				}
				r.fault(tt.fault, false)
				began := time.Now()
				r.until("picture", onDuty)
				if d := time.Since(began); d > tt.soon+reportEvery {
					t.Errorf("the picture took %v to come back", d)
				}
				if all := r.video.all(); len(all) != 1 {
					t.Errorf("it cost %d encoders", len(all))
				}
			})
		})
	}
}

func TestABusyCameraIsTriedWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, small, func(b *hw.Board) {
			if err := b.Faults("camera-busy", true); err != nil {
				t.Fatal(err)
			}
		})
		defer r.stop()
		b := r.until("fault", func(b status.Box) bool {
			return b.Has(status.NoPicture) && serviceIs(b, "camera", supervise.Backoff)
		})
		for _, f := range b.Faults {
			if f.Code == status.NoPicture && !strings.Contains(f.Text, "camera sim-camera: ") {
				t.Errorf("fault %q", f.Text)
			}
		}
		r.fault("camera-busy", false)
		r.until("picture", onDuty)
	})
}

func TestABoxThatHearsOfNoDeviceStillLooks(t *testing.T) {
	watches := atomic.Int32{}
	change := func(b *hw.Board) {
		b.Watch = func(context.Context, func()) error {
			watches.Add(1)
			return errors.New("no buffer space available")
		}
	}
	inBox(t, small, change, func(r *rig) {
		time.Sleep(16 * time.Second)
		if all := r.video.all(); len(all) != 1 || watches.Load() < 3 {
			t.Errorf("%d encoders, %d tries to listen", len(all), watches.Load())
		}
		if b, _ := r.Status(); !onDuty(b) || b.Input.Frames < 150 {
			t.Errorf("the camera was taken down: %+v", b.Input)
		}
	})
}

// A jpegCamera gives the same pictures again and again and counts those that
// did not come back.
type jpegCamera struct {
	pictures [][]byte
	damaged  atomic.Bool // all of them are
	opened   atomic.Int32
	lent     atomic.Int32
	seq      uint32
	now      func() time.Duration
}

func (c *jpegCamera) ID() string                { return "jpeg" }
func (c *jpegCamera) Name() string              { return "JPEG camera" }
func (c *jpegCamera) Modes() ([]hw.Mode, error) { return []hw.Mode{c.Mode()}, nil }
func (c *jpegCamera) Mode() hw.Mode {
	return hw.Mode{Pixel: hw.MJPEG, Width: 64, Height: 48, FPS: hw.Rate{Num: 10, Den: 1}}
}
func (c *jpegCamera) Stats() hw.CameraStats { return hw.CameraStats{} }
func (c *jpegCamera) Close() error          { return nil }
func (c *jpegCamera) Open(context.Context, hw.Mode) (hw.CameraStream, error) {
	c.opened.Add(1)
	return c, nil
}

func (c *jpegCamera) Read(ctx context.Context) (*hw.Frame, error) {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	f := hw.NewFrame(func(*hw.Frame) { c.lent.Add(-1) })
	f.Mode, f.Seq, f.Stamp = c.Mode(), c.seq, c.now()
	picture := c.pictures[int(c.seq)%len(c.pictures)]
	if c.damaged.Load() {
		picture = picture[:len(picture)/2]
	}
	f.Planes = []hw.Plane{{Data: picture, FD: -1}}
	c.seq++
	c.lent.Add(1)
	return f.Lend(), nil
}

func coded(t *testing.T, ratio image.YCbCrSubsampleRatio) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewYCbCr(image.Rect(0, 0, 64, 48), ratio), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDamagedPicturesAreCountedAndPassedOver(t *testing.T) {
	good := coded(t, image.YCbCrSubsampleRatio420)
	c := &jpegCamera{pictures: [][]byte{good, good[:100], {}, good}}
	inBox(t, small, func(b *hw.Board) {
		c.now = bubbleClock()
		b.Cameras = func() ([]hw.Camera, error) { return []hw.Camera{c}, nil }
	}, func(r *rig) {
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if b, _ := r.Status(); b.Input.Damaged < 38 || b.Input.Damaged > 42 || b.Input.Format != "MJPG" || b.Renditions[0].Frames < 38 {
			t.Errorf("%+v, %d frames coded", b.Input, b.Renditions[0].Frames)
		}
		const picture = 64 * 48 * 3 / 2
		if b, _ := r.Status(); b.Input.DecodedBytes < 38*picture || b.Input.DecodedBytes > 2*42*picture || b.Input.DecodedBytes%picture != 0 {
			t.Errorf("%d bytes are said to have been decoded", b.Input.DecodedBytes)
		}
		if n := c.lent.Load(); n > 0 {
			t.Errorf("%d frames did not go back to the camera", n)
		}
		time.Sleep(30 * time.Second)
		if n := c.opened.Load(); n != 1 {
			t.Errorf("a camera half of whose pictures are good was opened %d times", n)
		}
	})
}

// Some cameras send nothing but damage until they are opened anew.
func TestACameraWhosePicturesNeverDecodeIsOpenedAnew(t *testing.T) {
	c := &jpegCamera{pictures: [][]byte{coded(t, image.YCbCrSubsampleRatio420)}}
	inBox(t, small, func(b *hw.Board) {
		c.now = bubbleClock()
		b.Cameras = func() ([]hw.Camera, error) { return []hw.Camera{c}, nil }
	}, func(r *rig) {
		c.damaged.Store(true)
		time.Sleep(4 * time.Second)
		if n := c.opened.Load(); n != 1 {
			t.Errorf("the camera was opened %d times within its patience", n)
		}
		time.Sleep(57 * time.Second)
		if n := c.opened.Load(); n < 11 || n > 13 {
			t.Errorf("the camera was opened %d times in a minute", n)
		}
		c.damaged.Store(false)
		r.until("picture", onDuty)
		before := c.opened.Load()
		time.Sleep(30 * time.Second)
		if n := c.opened.Load() - before; n != 0 {
			t.Errorf("a camera that works was opened %d times", n)
		}
	})
}

// A countedCamera is the software board's camera with its frames counted.
type countedCamera struct {
	hw.Camera
	lent *atomic.Int32
}

func (c countedCamera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	s, err := c.Camera.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	return &countedStream{CameraStream: s, lent: c.lent}, nil
}

type countedStream struct {
	hw.CameraStream
	lent *atomic.Int32
	last atomic.Bool
}

// Read gives one more frame when it is told to end, as a driver may.
func (s *countedStream) Read(ctx context.Context) (*hw.Frame, error) {
	f, err := s.CameraStream.Read(ctx)
	if ctx.Err() != nil && s.last.CompareAndSwap(false, true) { // it was in the cable
		var late *hw.Frame
		if late, err = hw.NewMemoryFrame(s.Mode(), nil); err == nil {
			f = late.Lend()
		}
	}
	if err != nil {
		return nil, err
	}
	s.lent.Add(1)
	mine := hw.NewFrame(func(*hw.Frame) { s.lent.Add(-1); f.Release() })
	mine.Mode, mine.Planes, mine.Stamp, mine.Seq = f.Mode, f.Planes, f.Stamp, f.Seq
	return mine.Lend(), nil
}

func TestEveryFrameGoesBackToTheCamera(t *testing.T) {
	var lent atomic.Int32
	counted := func(b *hw.Board) {
		cameras := b.Cameras
		b.Cameras = func() ([]hw.Camera, error) {
			list, err := cameras()
			for i, c := range list {
				list[i] = countedCamera{c, &lent}
			}
			return list, err
		}
	}
	for range 3 {
		inBox(t, small, counted, func(r *rig) {
			for _, fault := range []string{"camera-unplugged", "camera-no-signal", "camera-unplugged"} {
				r.fault(fault, true)
				time.Sleep(250 * time.Millisecond)
				r.fault(fault, false)
				r.until("picture", onDuty)
			}
			f, err := r.hub.shot(r.t.Context())
			if err != nil {
				t.Fatal(err)
			}
			f.Release()
			r.apply(strings.Replace(small, "fps = 10", "fps = 30", 1))
			time.Sleep(333 * time.Millisecond)
		})
		if n := lent.Load(); n != 0 {
			t.Fatalf("%d frames did not come back", n)
		}
	}
}

func TestKeysOrderAndLampsAnswer(t *testing.T) {
	inBox(t, small+outputs, nil, func(r *rig) {
		press := func(key string) {
			if err := r.board.Panel.Press(key); err != nil {
				t.Fatal(err)
			}
		}
		press(sim.KeyMute)
		r.until("silence", func(b status.Box) bool { return b.Sound.Muted })
		press(sim.KeyMute)
		r.until("sound", func(b status.Box) bool { return !b.Sound.Muted })

		press(sim.KeyStream)
		r.until("try", func(b status.Box) bool { return b.Lamps["STREAM"].Pattern == "amber blink 4" })
		for _, on := range []bool{true, false, true} {
			if err := r.board.Panel.WaitLit(r.t.Context(), sim.LampStream, on); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.board.Panel.Hold(r.t.Context(), sim.KeyStream, 4*time.Second); err != nil {
			t.Fatal(err)
		}
		r.until("rest", func(b status.Box) bool {
			return b.State == status.Off && b.Lamps["STREAM"].Pattern == "off"
		})
		time.Sleep(time.Second)
		if r.board.Panel.Lit(sim.LampStream) {
			t.Error("the lamp stayed on")
		}
	})
}

// A signalCamera says when its input has a signal again.
type signalCamera struct {
	hw.Camera
	back   chan struct{}
	opened *atomic.Int32
}

func (c signalCamera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	c.opened.Add(1)
	return c.Camera.Open(ctx, want)
}

func (c signalCamera) AwaitSignal(ctx context.Context) error {
	select {
	case <-c.back:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func TestAnInputThatTellsOfItsSignalIsNotAskedAgainAndAgain(t *testing.T) {
	var opened atomic.Int32
	c := signalCamera{opened: &opened}
	inBox(t, small, func(b *hw.Board) {
		c.back = make(chan struct{})
		cameras := b.Cameras
		b.Cameras = func() ([]hw.Camera, error) {
			list, err := cameras()
			for i := range list {
				c.Camera = list[i]
				list[i] = c
			}
			return list, err
		}
	}, func(r *rig) {
		time.Sleep(3 * time.Second)
		r.fault("camera-no-signal", true)
		r.until("slate", func(b status.Box) bool { return !b.Input.Signal })
		before := opened.Load()
		time.Sleep(30 * time.Second)
		if n := opened.Load() - before; n > 0 {
			t.Errorf("the input was opened %d times while it had no signal", n)
		}
		r.fault("camera-no-signal", false)
		close(c.back)
		began := time.Now()
		r.until("picture", onDuty)
		if d := time.Since(began); d > time.Second+reportEvery {
			t.Errorf("the picture took %v to come back", d)
		}
		r.fault("camera-no-signal", true) // it claims a signal now, and has none
		before = opened.Load()
		time.Sleep(10 * time.Second)
		if b, _ := r.Status(); !strings.Contains(faultText(b, status.NoPicture), "camera sim-camera: no signal") {
			t.Errorf("faults %+v", b.Faults)
		}
		if n := opened.Load() - before; n < 10 || n > 60 {
			t.Errorf("an input that lies was opened %d times in ten seconds", n)
		}
	})
}

// An hdmiActor is an actor behind an input that tells of its signal.
type hdmiActor struct {
	*actor
	news chan struct{}
}

func (a hdmiActor) AwaitSignal(ctx context.Context) error {
	select {
	case <-a.news:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func TestASignalThatTheBoxCannotTakeIsWaitedForAndNamed(t *testing.T) {
	tests := []struct {
		name string
		says error
		want string
	}{
		{"half pictures", fmt.Errorf("1080i50 is interlaced, set the player to progressive: %w", hw.ErrUnsupported), "camera actor: 1080i50 is interlaced, set the player to progressive"},
		{"too fast", fmt.Errorf("outside of what the receiver takes: %w", hw.ErrUnsupported), "camera actor: outside of what"},
		{"nothing", fmt.Errorf("%w: nothing comes in", hw.ErrNoSignal), "camera actor: no signal: nothing comes in"},
		{"not locked", fmt.Errorf("%w: it is not locked", hw.ErrNoSignal), "camera actor: no signal: it is not locked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var news chan struct{}
			hdmi := func(a *actor) hw.Camera { return hdmiActor{a, news} }
			inTheatre(t, small, newActor(fps(10, 1)), hdmi, func(*theatre) { news = make(chan struct{}) }, func(th *theatre) {
				time.Sleep(3 * time.Second)
				before := th.actor.opened.Load()
				th.actor.opens <- tt.says
				th.actor.fails <- fmt.Errorf("%w: the source has changed", hw.ErrNoSignal)
				news <- struct{}{} // something comes in
				b := th.until("words", func(b status.Box) bool { return strings.Contains(faultText(b, status.NoPicture), tt.want) })
				if !serviceIs(b, "camera", supervise.Live) {
					t.Errorf("services %+v", b.Services)
				}
				time.Sleep(time.Minute)
				b, _ = th.Status()
				if got := faultText(b, status.NoPicture); !strings.Contains(got, tt.want) || th.actor.opened.Load() != before+1 {
					t.Errorf("after a minute: %q, opened %d times", got, th.actor.opened.Load()-before)
				}
				began := time.Now()
				news <- struct{}{} // the player was set to another format
				th.until("picture", onDuty)
				if d := time.Since(began); d > time.Second {
					t.Errorf("the picture came back after %v", d)
				}
			})
		})
	}
}
