package daemon

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/hwtest"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/mjpeg"
)

// codedSPS is of 1280x720.
const codedSPS = "6764001facd9405005bb011000000300100000030320f1831960"

// annexB joins NAL units, given in hex, by start codes.
func annexB(t *testing.T, nals ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, n := range nals {
		nal, err := hex.DecodeString(n)
		if err != nil {
			t.Fatal(err)
		}
		b.Write([]byte{0, 0, 0, 1})
		b.Write(nal)
	}
	return b.Bytes()
}

// An access unit in memory that devices share is read as the device wrote it.
func TestAccessUnitsInSharedMemoryAreReadBetweenBeginAndEnd(t *testing.T) {
	var a hwtest.Accesses
	f := hw.NewFrame(nil)
	f.Mode = hw.Mode{Pixel: hw.H264, Width: 1280, Height: 720}
	f.Planes = []hw.Plane{{Data: annexB(t, codedSPS, "68ebe3cb22c0", "6588"), FD: 7}}
	p := &parcel{mode: f.Mode}
	if u, err := p.unit(a.Share(f)); err != nil || !u.Key {
		t.Fatalf("%+v, %v", u, err)
	}
	a.Check(t, hw.Reading, 1)
}

// A codingCamera codes by itself: a key picture each second.
type codingCamera struct {
	hw.Camera
	key, delta []byte
	asked      *atomic.Uint32 // pixel format that was wished
	other      bool           // it does not code
}

func (c codingCamera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	c.asked.Store(uint32(want.Pixel))
	s, err := c.Camera.Open(ctx, want)
	if err != nil || c.other {
		return s, err
	}
	return &codingStream{s, c}, nil
}

type codingStream struct {
	hw.CameraStream
	camera codingCamera
}

func (s *codingStream) Mode() hw.Mode {
	m := s.CameraStream.Mode()
	m.Pixel = hw.H264
	return m
}

func (s *codingStream) Read(ctx context.Context) (*hw.Frame, error) {
	f, err := s.CameraStream.Read(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	u := hw.NewFrame(nil)
	u.Mode, u.Stamp, u.Seq = s.Mode(), f.Stamp, f.Seq
	u.Planes = []hw.Plane{{Data: s.camera.delta, FD: -1}}
	if f.Seq%10 == 0 {
		u.Planes[0].Data = s.camera.key
	}
	return u.Lend(), nil
}

// byCamera changes a board so that its camera codes.
func byCamera(t *testing.T, asked *atomic.Uint32, other bool) func(*hw.Board) {
	t.Helper()
	key, delta := annexB(t, "09f0", codedSPS, "68ebecb22c", "658880"), annexB(t, "419a24")
	return func(b *hw.Board) {
		cameras := b.Cameras
		b.Cameras = func() ([]hw.Camera, error) {
			list, err := cameras()
			for i, c := range list {
				list[i] = codingCamera{c, key, delta, asked, other}
			}
			return list, err
		}
	}
}

const codedByCamera = small + "[[rendition]]\nname = \"main\"\nencoder = \"camera\"\n"

// A flow notes what a viewer gets.
type flow struct {
	tracks  []*stream.Track
	notKey  int // changes of track without a key unit
	back    int // stamps that do not rise
	largest time.Duration
	ended   error
	done    chan struct{}
}

func (r *rig) follow(ctx context.Context) *flow {
	f := &flow{done: make(chan struct{})}
	rd := r.Rendition("main").Reader()
	go func() {
		defer close(f.done)
		var last time.Duration
		for {
			u, err := rd.Next(ctx)
			if err != nil {
				f.ended = err
				return
			}
			if !u.Track.Codec.Video() {
				continue
			}
			if n := len(f.tracks); n == 0 || f.tracks[n-1] != u.Track {
				f.tracks = append(f.tracks, u.Track)
				if !u.Key {
					f.notKey++
				}
			}
			if last > 0 {
				f.largest = max(f.largest, u.DTS-last)
			}
			if u.DTS <= last {
				f.back++
			}
			last = u.DTS
		}
	}()
	return f
}

func TestWhatTheCameraCodesIsPassedOnAndTheSlateStandsInForIt(t *testing.T) {
	var asked atomic.Uint32
	inBox(t, codedByCamera, byCamera(t, &asked, false), func(r *rig) {
		ctx, end := context.WithCancel(r.t.Context())
		f := r.follow(ctx)
		for range 3 {
			time.Sleep(5 * time.Second)
			if !r.Alive() {
				t.Error("the watchdog would bite")
			}
			slates := r.video.latest().submitted.Load()
			time.Sleep(time.Second)
			if n := r.video.latest().submitted.Load() - slates; n > 0 {
				t.Errorf("the encoder coded %d slates beside the camera", n)
			}
			r.fault("camera-unplugged", true)
			r.until("slate", func(b status.Box) bool { return !b.Input.Signal })
			time.Sleep(3 * time.Second)
			if !r.Alive() {
				t.Error("the watchdog would bite")
			}
			r.fault("camera-unplugged", false)
			r.until("picture", onDuty)
		}
		time.Sleep(time.Second)
		b, _ := r.Status()
		if hw.PixelFormat(asked.Load()) != hw.H264 || b.Input.Format != "H264" || b.Renditions[0].Buffers == nil || b.Renditions[0].Buffers.Way != string(hw.Through) || b.Renditions[0].FPS < 9 {
			t.Errorf("the camera was asked for %v: %+v, %+v", hw.PixelFormat(asked.Load()), b.Input, b.Renditions[0])
		}
		if _, err := r.Snapshot(ctx, "main", mjpeg.Picture{}); !errors.Is(err, ErrNoPicture) || !strings.Contains(err.Error(), "codes by itself") {
			t.Errorf("a snapshot gives %v", err)
		}
		end()
		<-f.done
		if !errors.Is(f.ended, context.Canceled) || f.notKey > 0 || f.back > 0 || f.largest > time.Second {
			t.Errorf("the viewer ended with %v; %d changes without a key unit, %d stamps went back, up to %v without a picture", f.ended, f.notKey, f.back, f.largest)
		}
		if n := len(f.tracks); n < 6 || n > 8 || f.tracks[n-1].Width != 1280 || len(f.tracks[n-1].Setup) == 0 {
			t.Errorf("%d tracks", n)
		}
	})
}

func TestHowFarApartKeyPicturesAreIsKnownUnlessTheCameraDecides(t *testing.T) {
	inBox(t, small+"[[rendition]]\nname = \"main\"\ngop = \"4s\"\n", byCamera(t, &atomic.Uint32{}, false), func(r *rig) {
		main := r.Rendition("main")
		for _, c := range []struct {
			lines string
			want  time.Duration
		}{
			{`gop = "4s"`, 4 * time.Second},
			{`gop = "500ms"`, 500 * time.Millisecond},
			{`encoder = "camera"`, 0},
		} {
			r.apply(small + "[[rendition]]\nname = \"main\"\n" + c.lines + "\n")
			r.until(c.lines, func(status.Box) bool { return main.KeyInterval() == c.want })
			if main != r.Rendition("main") {
				t.Errorf("%s: another rendition", c.lines)
			}
		}
	})
}

func TestACameraThatDoesNotCodeIsRefusedInWords(t *testing.T) {
	var asked atomic.Uint32
	change := byCamera(t, &asked, true)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, codedByCamera, change)
		defer r.stop()
		r.until("reason", func(b status.Box) bool {
			return b.Renditions[0].State == status.Live && slices.ContainsFunc(b.Faults, func(f status.Fault) bool {
				return f.Code == status.NoPicture && strings.Contains(f.Text, `choose encoder = "auto"`)
			})
		})
	})
}

func TestParcelsAreUnitsWithTheirParameterSets(t *testing.T) {
	p := &parcel{mode: hw.Mode{Pixel: hw.H264, FPS: hw.Rate{Num: 30, Den: 1}}}
	frame := func(nals ...string) *hw.Frame {
		f := hw.NewFrame(nil)
		f.Stamp, f.Planes = time.Second, []hw.Plane{{Data: annexB(t, nals...)}}
		return f
	}
	if _, err := p.unit(frame("419a24")); !errors.Is(err, errNoSets) {
		t.Errorf("a picture without parameter sets gives %v", err)
	}
	key, err := p.unit(frame("09f0", codedSPS, "68ebecb22c", "0cff80", "658880"))
	if err != nil || !key.Key || key.DTS != time.Second || key.Track.FPS != 30 {
		t.Fatalf("%+v, %v", key, err)
	}
	var types []byte
	for nal := range h264.NALs(key.Data) {
		types = append(types, h264.Type(nal))
	}
	if want := []byte{h264.TypeSPS, h264.TypePPS, h264.TypeIDR}; !bytes.Equal(types, want) {
		t.Errorf("NAL units %v, want %v", types, want)
	}
	delta, err := p.unit(frame("419a24"))
	if err != nil || delta.Key || delta.Track != key.Track {
		t.Errorf("%+v, %v", delta, err)
	}
	if again, err := p.unit(frame(codedSPS, "68ebecb22c", "658880")); err != nil || again.Track != key.Track {
		t.Errorf("the same sets make another track: %v", err)
	}
	if other, err := p.unit(frame(codedSPS, "68ebecb22d", "658880")); err != nil || other.Track == key.Track {
		t.Errorf("other sets make no track: %v", err)
	}
	for name, f := range map[string]*hw.Frame{"no picture": frame(codedSPS), "nothing": hw.NewFrame(nil), "a bad set": frame("67640000", "658880")} {
		if _, err := p.unit(f); err == nil {
			t.Errorf("%s is taken for a unit", name)
		}
	}
}

// A hollowCamera is one whose units can lose their pictures; it counts how often
// it was opened.
type hollowCamera struct {
	hw.Camera
	hollow *atomic.Bool
	opened *atomic.Int32
}

func (c hollowCamera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	c.opened.Add(1)
	s, err := c.Camera.Open(ctx, want)
	return hollowStream{s, c.hollow}, err
}

type hollowStream struct {
	hw.CameraStream
	hollow *atomic.Bool
}

func (s hollowStream) Read(ctx context.Context) (*hw.Frame, error) {
	f, err := s.CameraStream.Read(ctx)
	if err == nil && s.hollow.Load() {
		f.Planes[0].Data = []byte{0, 0, 0, 1, h264.TypeAUD, 0xf0}
	}
	return f, err
}

func TestACameraWhoseUnitsHaveNoPictureIsOpenedAnew(t *testing.T) {
	var asked atomic.Uint32
	var hollow atomic.Bool
	var opened atomic.Int32
	inBox(t, codedByCamera, func(b *hw.Board) {
		byCamera(t, &asked, false)(b)
		cameras := b.Cameras
		b.Cameras = func() ([]hw.Camera, error) {
			list, err := cameras()
			for i, c := range list {
				list[i] = hollowCamera{c, &hollow, &opened}
			}
			return list, err
		}
	}, func(r *rig) {
		time.Sleep(30 * time.Second)
		before := opened.Load()
		if before != 1 {
			t.Errorf("a camera that works was opened %d times", before)
		}
		hollow.Store(true)
		time.Sleep(time.Minute)
		if n := opened.Load() - before; n < 10 || n > 12 {
			t.Errorf("the camera was opened %d times more in a minute", n)
		}
		hollow.Store(false)
		r.until("picture", onDuty)
	})
}
