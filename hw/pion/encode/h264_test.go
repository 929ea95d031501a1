package encode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/prop"
	"go.uber.org/goleak"

	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	sps = []byte{0x67, 0x42, 0xc0, 0x1e, 0xd9}
	pps = []byte{0x68, 0xce, 0x3c, 0x80}
)

// A fakeEncoder codes each frame as one unit that holds its sequence number.
type fakeEncoder struct {
	cfg   hw.EncoderConfig
	track *stream.Track
	own   bool  // key units bring their parameter sets
	fail  error // of Submit
	busy  uint32

	units  chan *stream.Unit
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	key     bool
	bitrate int
	stats   hw.EncoderStats
	closes  int
}

func newFakeEncoder(t *testing.T) *fakeEncoder {
	t.Helper()
	setup, err := h264.ConfigRecord(sps, pps)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeEncoder{
		track: &stream.Track{Codec: stream.H264, Setup: setup}, units: make(chan *stream.Unit, 100), closed: make(chan struct{}), key: true,
	}
}

func (e *fakeEncoder) driver() hw.EncoderDriver {
	return hw.EncoderDriver{Name: "fake", Codecs: []stream.Codec{stream.H264}, Open: func(c hw.EncoderConfig) (hw.Encoder, error) {
		e.cfg = c
		return e, nil
	}}
}

func (e *fakeEncoder) Submit(f *hw.Frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail != nil {
		return e.fail
	}
	if f.Seq == e.busy {
		return fmt.Errorf("fake: %w", hw.ErrBusy)
	}
	u := &stream.Unit{Track: e.track, Key: e.key, PTS: f.Stamp}
	slice := []byte{0x41, byte(f.Seq)}
	if e.key {
		slice[0] = 0x65
		if e.own {
			u.Data = h264.AppendNAL(h264.AppendNAL(u.Data, sps), pps)
		}
	}
	u.Data = h264.AppendNAL(u.Data, slice)
	e.key = false
	e.stats.Submitted++
	e.units <- u
	return nil
}

func (e *fakeEncoder) Next(ctx context.Context) (*stream.Unit, error) {
	select {
	case u := <-e.units:
		return u, nil
	default:
	}
	select {
	case u := <-e.units:
		return u, nil
	case <-e.closed:
		return nil, errors.New("fake: closed")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *fakeEncoder) SetBitrate(bps int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bitrate = bps
	return nil
}

func (e *fakeEncoder) ForceKey() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.key = true
}

func (e *fakeEncoder) Stats() hw.EncoderStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

func (e *fakeEncoder) Close() error {
	e.once.Do(func() { close(e.closed) })
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closes++
	return nil
}

// A carrier is a picture that carries a frame, or no longer does.
type carrier struct {
	image.Gray
	frame *hw.Frame
}

func (c *carrier) Frame() *hw.Frame {
	if c.frame == nil {
		return nil
	}
	return c.frame.Retain()
}

// A source gives the images that a test sends, then how it ends.
type source struct {
	images chan image.Image
	err    error
}

func (s *source) Read() (image.Image, func(), error) {
	img, ok := <-s.images
	if !ok {
		return nil, nil, s.err
	}
	return img, func() {
		if c, ok := img.(*carrier); ok && c.frame != nil {
			c.frame.Release()
		}
	}, nil
}

var small = hw.Mode{Pixel: hw.NV12, Width: 65, Height: 48, FPS: hw.Rate{Num: 25, Den: 1}}

// carriers returns n pictures of small, and a function that counts how many
// frames are out.
func carriers(t *testing.T, n int) (list []image.Image, out func() int) {
	t.Helper()
	var mu sync.Mutex
	lent := n
	for i := range n {
		f, err := hw.NewMemoryFrame(small, func(*hw.Frame) {
			mu.Lock()
			defer mu.Unlock()
			lent--
		})
		if err != nil {
			t.Fatal(err)
		}
		f.Seq, f.Stamp = uint32(i+1), time.Duration(i+1)*small.FPS.Period()
		list = append(list, &carrier{frame: f.Lend()})
	}
	return list, func() int {
		mu.Lock()
		defer mu.Unlock()
		return lent
	}
}

// feed returns a source of the images that ends with err.
func feed(err error, images ...image.Image) *source {
	s := &source{images: make(chan image.Image, len(images)), err: err}
	for _, img := range images {
		s.images <- img
	}
	close(s.images)
	return s
}

func build(t *testing.T, h H264, s *source) codec.ReadCloser {
	t.Helper()
	c, err := h.BuildVideoEncoder(s, prop.Media{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func readUnit(t *testing.T, c codec.ReadCloser) []byte {
	t.Helper()
	b, release, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	release()
	return b
}

// byteStream joins NAL units with start codes.
func byteStream(nals ...[]byte) []byte {
	var out []byte
	for _, n := range nals {
		out = append(append(out, 0, 0, 0, 1), n...)
	}
	return out
}

func TestFramesGoToTheEncoderAndUnitsComeAsByteStream(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("the encoder brings parameter sets %v", own), func(t *testing.T) {
			enc := newFakeEncoder(t)
			enc.own, enc.busy = own, 2
			images, out := carriers(t, 4)
			images = append(images[:3:3], &carrier{}, images[2], images[3]) // one is too old, one came before
			images[4].(*carrier).frame.Retain()
			s := feed(fmt.Errorf("read: %w: %w", hw.ErrGone, io.EOF), images...)
			c := build(t, H264{Driver: enc.driver()}, s)
			want := [][]byte{byteStream(sps, pps, []byte{0x65, 1}), byteStream([]byte{0x41, 3}), byteStream([]byte{0x41, 4})}
			for i, w := range want {
				if got := readUnit(t, c); !bytes.Equal(got, w) {
					t.Errorf("unit %d is %x, want %x", i, got, w)
				}
			}
			for range 2 {
				if _, _, err := c.Read(); !errors.Is(err, io.EOF) || !errors.Is(err, hw.ErrGone) {
					t.Errorf("at the end: %v", err)
				}
			}
			if out() != 0 {
				t.Errorf("%d frames did not come back", out())
			}
		})
	}
}

func TestThePicturesDecideHowToCode(t *testing.T) {
	tests := []struct {
		name string
		h    H264
		p    prop.Media
		img  func(*testing.T) image.Image
		want hw.EncoderConfig
	}{
		{
			"a frame knows its rate",
			H264{},
			prop.Media{Video: prop.Video{FrameRate: 50}},
			oneCarrier,
			hw.EncoderConfig{Width: 64, Height: 48, FPS: hw.Rate{Num: 25, Den: 1}, GOP: 50, Bitrate: 4_000_000, Profile: "baseline"},
		},
		{
			"an image does not",
			H264{},
			prop.Media{Video: prop.Video{FrameRate: 12.5}},
			oneGray,
			hw.EncoderConfig{Width: 32, Height: 16, FPS: hw.Rate{Num: 12500, Den: 1000}, GOP: 25, Bitrate: 4_000_000, Profile: "baseline"},
		},
		{
			"nor does a track",
			H264{BaseParams: codec.BaseParams{BitRate: 1_000_000, KeyFrameInterval: 15}, Profile: "high", Preset: "fast", Threads: 2},
			prop.Media{},
			oneGray,
			hw.EncoderConfig{Width: 32, Height: 16, FPS: hw.Rate{Num: 30, Den: 1}, GOP: 15, Bitrate: 1_000_000, Profile: "high", Preset: "fast", Threads: 2},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			enc := newFakeEncoder(t)
			tt.h.Driver = enc.driver()
			c, err := tt.h.BuildVideoEncoder(feed(io.EOF, tt.img(t)), tt.p)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			tt.want.Codec = stream.H264
			if enc.cfg != tt.want {
				t.Errorf("got %+v, want %+v", enc.cfg, tt.want)
			}
		})
	}
}

func oneCarrier(t *testing.T) image.Image {
	t.Helper()
	list, _ := carriers(t, 1)
	return list[0]
}

func oneGray(*testing.T) image.Image { return image.NewGray(image.Rect(0, 0, 33, 16)) }

// An importer takes what is named, at lines of 128 bytes.
type importer struct {
	hw.Importer
	asked hw.Layout
	err   error
}

func (i *importer) Layout(src hw.Layout) (hw.Layout, error) {
	i.asked = src
	return src, i.err
}

func TestTheEncoderLearnsWhereTheCamerasPixelsLie(t *testing.T) {
	layout := func(buffer, offset int, sizes [3]int) hw.Layout {
		return hw.Layout{
			Pixel: hw.NV12, Width: 65, Height: 48, Sizes: sizes,
			Planes: [3]hw.PlaneLayout{{Stride: 128}, {Buffer: buffer, Offset: offset, Stride: 128}},
		}
	}
	one := layout(0, 6400, [3]int{6400 + 24*128})
	two := layout(1, 64, [3]int{48 * 128, 64 + 24*128})
	tests := []struct {
		name    string
		fds     [2]int
		offset  int
		refuses error
		asked   hw.Layout
		want    hw.Layout
	}{
		{"one buffer", [2]int{7, 7}, 6400, nil, one, one},
		{"two buffers", [2]int{7, 3}, 64, nil, two, two},
		{"the encoder cannot read it", [2]int{7, 3}, 64, hw.ErrUnsupported, two, hw.Layout{}},
		{"memory of the CPU", [2]int{-1, -1}, 0, nil, hw.Layout{}, hw.Layout{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img := oneCarrier(t).(*carrier)
			img.frame.Planes = []hw.Plane{{Stride: 128, FD: tt.fds[0]}, {Stride: 128, FD: tt.fds[1], Offset: tt.offset}}
			enc, imp := newFakeEncoder(t), &importer{err: tt.refuses}
			d := enc.driver()
			d.Importer = imp
			build(t, H264{Driver: d}, feed(io.EOF, img))
			if imp.asked != tt.asked || enc.cfg.Input != tt.want {
				t.Errorf("asked %+v, opened with %+v", imp.asked, enc.cfg.Input)
			}
		})
	}
}

func TestWhatCannotBeBuiltLeavesNothing(t *testing.T) {
	missing := fmt.Errorf("fake: %w", hw.ErrMissing)
	tests := []struct {
		name   string
		change func(*H264)
		err    error // of the source, before the first picture
		want   error
	}{
		{"no such library", func(h *H264) {
			h.Driver.Open = func(hw.EncoderConfig) (hw.Encoder, error) { return nil, missing }
		}, nil, hw.ErrMissing},
		{"another codec", func(h *H264) { h.Driver.Codecs = []stream.Codec{stream.H265} }, nil, hw.ErrUnsupported},
		{"an unknown profile", func(h *H264) { h.Profile = "best" }, nil, hw.ErrUnsupported},
		{"no picture", func(*H264) {}, hw.ErrNoSignal, hw.ErrNoSignal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			images, out := carriers(t, 1)
			s := feed(tt.err, images...)
			if tt.err != nil {
				_, release, _ := s.Read()
				release()
			}
			h := H264{Driver: newFakeEncoder(t).driver()}
			tt.change(&h)
			if _, err := h.BuildVideoEncoder(s, prop.Media{}); !errors.Is(err, tt.want) {
				t.Errorf("got %v", err)
			}
			if len(s.images) == 0 && out() != 0 {
				t.Errorf("%d frames did not come back", out())
			}
		})
	}
}

func TestAnEncoderThatFailsEndsTheTrack(t *testing.T) {
	enc := newFakeEncoder(t)
	enc.fail = fmt.Errorf("fake: %w", hw.ErrGone)
	images, out := carriers(t, 1)
	s := &source{images: make(chan image.Image, 1)}
	s.images <- images[0]
	c := build(t, H264{Driver: enc.driver()}, s) // the source lives on
	if _, _, err := c.Read(); !errors.Is(err, hw.ErrGone) || out() != 0 {
		t.Errorf("got %v, %d frames are out", err, out())
	}
}

func TestCloseEndsReadAndIsHarmlessTwice(t *testing.T) {
	enc := newFakeEncoder(t)
	images, out := carriers(t, 2)
	s := &source{images: make(chan image.Image, 1)}
	s.images <- images[0]
	c := build(t, H264{Driver: enc.driver()}, s)
	readUnit(t, c)
	ended := make(chan error)
	go func() {
		_, _, err := c.Read()
		ended <- err
	}()
	closed := make(chan error)
	go func() { closed <- c.Close() }()
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("Read ends with %v", err)
	}
	s.images <- images[1] // what the feeder still waits for
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil || enc.closes != 1 || out() != 0 {
		t.Errorf("%v, closed %d times, %d frames are out", err, enc.closes, out())
	}
}

func TestKnobsReachTheEncoder(t *testing.T) {
	enc := newFakeEncoder(t)
	images, _ := carriers(t, 2)
	s := &source{images: make(chan image.Image), err: io.EOF}
	go func() { s.images <- images[0] }()
	c := build(t, H264{Driver: enc.driver()}, s)
	readUnit(t, c)
	knobs := c.Controller()
	if err := knobs.(codec.KeyFrameController).ForceKeyFrame(); err != nil {
		t.Error(err)
	}
	if err := knobs.(codec.BitRateController).SetBitRate(123_000); err != nil || enc.bitrate != 123_000 {
		t.Errorf("%v, bit rate %d", err, enc.bitrate)
	}
	s.images <- images[1]
	if u := readUnit(t, c); !bytes.HasPrefix(u, byteStream(sps, pps)) {
		t.Errorf("no key picture: %x", u)
	}
	if n := knobs.(Controller).Stats().Submitted; n != 2 {
		t.Errorf("%d frames submitted", n)
	}
	close(s.images)
}

func TestPeersAreToldTheProfile(t *testing.T) {
	for profile, want := range map[string]string{"": "42e01f", "main": "4d001f", "high": "64001f"} {
		c := H264{Profile: profile}.RTPCodec()
		if line := "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=" + want; c.SDPFmtpLine != line || c.ClockRate != 90000 || c.MimeType != "video/H264" {
			t.Errorf("%q: %+v", profile, c.RTPCodecCapability)
		}
	}
}
