package encode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/io/video"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/webrtc/v4"

	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// What is coded if nobody says otherwise.
const (
	usualBitrate = 4_000_000 // bit/s
	usualGOP     = 2         // seconds
)

var usualRate = hw.Rate{Num: 30, Den: 1}

// H264 codes pictures with one of the box's encoders. It implements
// [codec.VideoEncoderBuilder]; a [mediadevices.CodecSelector] takes the first
// of several that can be built.
//
// BitRate (bit/s) of zero means 4 Mbit/s, KeyFrameInterval (frames) of zero
// two seconds. Profile, Preset and Threads are those of [hw.EncoderConfig],
// but an empty Profile is baseline, the one that every browser must play.
//
// [mediadevices.CodecSelector]: https://pkg.go.dev/github.com/pion/mediadevices#CodecSelector
type H264 struct {
	codec.BaseParams

	Driver  hw.EncoderDriver
	Profile string
	Preset  string
	Threads int
}

// profiles pairs the names of profiles with profile_idc and constraint flags
// as SDP tells them (RFC 6184, 8.1).
var profiles = map[string]string{"baseline": "42e0", "main": "4d00", "high": "6400"}

// RTPCodec describes the stream to peers: 90 kHz, packetization mode 1, and
// they may ask for key pictures. It claims level 3.1 as everybody does; peers
// that allow level asymmetry take higher ones.
func (h H264) RTPCodec() *codec.RTPCodec {
	const clock = 90_000
	c := codec.NewRTPH264Codec(clock)
	c.SDPFmtpLine = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=" + profiles[h.profile()] + "1f"
	c.RTCPFeedback = []webrtc.RTCPFeedback{{Type: "nack", Parameter: "pli"}, {Type: "ccm", Parameter: "fir"}}
	return c
}

func (h H264) profile() string { return cmp.Or(h.Profile, "baseline") }

// BuildVideoEncoder opens the encoder for the pictures of r, of which it reads
// the first: its mode decides, for tracks know no frame rate; what images do
// not tell comes from p. It fails as the driver's Open does.
//
// Each Read of the result gives one access unit in byte-stream form, key
// pictures with their parameter sets in front; the memory is the caller's. It
// fails as r does when r ends, and with [io.EOF] after Close. Close may be
// called from any goroutine and more than once; it waits for r's current Read,
// which a closed or dead source ends. The controller is a [Controller].
func (h H264) BuildVideoEncoder(r video.Reader, p prop.Media) (codec.ReadCloser, error) {
	if _, ok := profiles[h.profile()]; !ok || !slices.Contains(h.Driver.Codecs, stream.H264) {
		return nil, fmt.Errorf("%s with profile %q for mediadevices: %w", h.Driver.Name, h.Profile, hw.ErrUnsupported)
	}
	frames := &framer{source: r, rate: rateOf(p)}
	first, err := frames.next()
	if err != nil {
		return nil, err
	}
	defer first.Release()
	enc, err := h.Driver.Open(h.config(first))
	if err != nil {
		return nil, err
	}
	return start(enc, frames, first), nil
}

// rateOf returns the rate of images that do not say it.
func rateOf(p prop.Media) hw.Rate {
	if p.FrameRate <= 0 {
		return usualRate
	}
	return hw.Rate{Num: int(math.Round(float64(p.FrameRate) * 1000)), Den: 1000}
}

// config returns what the encoder shall do with pictures like f.
func (h H264) config(f *hw.Frame) hw.EncoderConfig {
	rate := f.FPS
	if rate.Float() <= 0 {
		rate = usualRate
	}
	return hw.EncoderConfig{
		Codec:   stream.H264,
		Width:   max(f.Width&^1, 2),
		Height:  max(f.Height&^1, 2),
		FPS:     rate,
		GOP:     cmp.Or(h.KeyFrameInterval, int(math.Round(usualGOP*rate.Float()))),
		Bitrate: cmp.Or(h.BitRate, usualBitrate),
		Profile: h.profile(),
		Preset:  h.Preset,
		Threads: h.Threads,
		Input:   h.input(f),
	}
}

// input returns the layout that lets a hardware encoder read pictures like f
// in place, if there is one.
func (h H264) input(f *hw.Frame) hw.Layout {
	if h.Driver.Importer == nil || f.Planes[0].FD < 0 {
		return hw.Layout{}
	}
	l, err := h.Driver.Importer.Layout(layoutOf(f))
	if err != nil {
		return hw.Layout{} // the encoder will copy
	}
	return l
}

// layoutOf returns how f lies in its dma-bufs, which may be larger.
func layoutOf(f *hw.Frame) hw.Layout {
	l := hw.Layout{Pixel: f.Pixel, Width: f.Width, Height: f.Height}
	shapes := f.Pixel.Planes()
	if len(shapes) != len(f.Planes) {
		return l
	}
	var fds []int
	for i, p := range f.Planes {
		b := slices.Index(fds, p.FD)
		if b < 0 {
			b, fds = len(fds), append(fds, p.FD)
		}
		l.Planes[i] = hw.PlaneLayout{Buffer: b, Offset: p.Offset, Stride: p.Stride}
		l.Sizes[b] = max(l.Sizes[b], p.Offset+p.Stride*shapes[i].Lines(f.Height))
	}
	return l
}

// A coder is one running encoder and the goroutine that feeds it.
type coder struct {
	enc  hw.Encoder
	next func() (*stream.Unit, error)
	end  context.CancelCauseFunc
	fed  chan struct{} // closed when nothing more is submitted

	closing sync.Once
	closed  error
}

func start(enc hw.Encoder, frames *framer, first *hw.Frame) *coder {
	ctx, end := context.WithCancelCause(context.Background())
	c := &coder{enc: enc, end: end, fed: make(chan struct{})}
	c.next = func() (*stream.Unit, error) {
		u, err := enc.Next(ctx)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return u, err
	}
	first.Retain()
	go func() {
		defer close(c.fed)
		end(c.feed(ctx, frames, first))
	}()
	return c
}

// feed submits f and all pictures after it until something ends.
func (c *coder) feed(ctx context.Context, frames *framer, f *hw.Frame) error {
	last := time.Duration(math.MinInt64)
	for {
		err := c.submit(f, &last)
		f.Release()
		if err != nil {
			return err
		}
		if f, err = frames.next(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			f.Release()
			return context.Cause(ctx)
		}
	}
}

// submit passes over pictures that are not newer than the last, which a track
// with several readers gives twice at times. That the encoder has no room is
// counted there.
func (c *coder) submit(f *hw.Frame, last *time.Duration) error {
	if f.Stamp <= *last {
		return nil
	}
	*last = f.Stamp
	if err := c.enc.Submit(f); !errors.Is(err, hw.ErrBusy) {
		return err
	}
	return nil
}

// Read implements [codec.ReadCloser].
func (c *coder) Read() ([]byte, func(), error) {
	u, err := c.next()
	if err != nil {
		return nil, nothing, err
	}
	return annexB(u), nothing, nil
}

// Close implements [codec.ReadCloser].
func (c *coder) Close() error {
	c.closing.Do(func() {
		c.end(errClosed)
		c.closed = c.enc.Close()
	})
	<-c.fed
	return c.closed
}

// Controller implements [codec.Controllable].
func (c *coder) Controller() codec.EncoderController { return Controller{c.enc} }

// annexB returns u in byte-stream form (H.264 annex B). A key unit gets the
// parameter sets of its track, unless it has its own.
func annexB(u *stream.Unit) []byte {
	const code = 4
	out := make([]byte, 0, len(u.Data)+len(u.Track.Setup)+2*code)
	put := func(nal []byte) { out = append(append(out, 0, 0, 0, 1), nal...) }
	if u.Key && !slices.ContainsFunc(slices.Collect(h264.NALs(u.Data)), isSPS) {
		if sps, pps, err := h264.ParameterSets(u.Track.Setup); err == nil {
			put(sps)
			put(pps)
		}
	}
	for nal := range h264.NALs(u.Data) {
		put(nal)
	}
	return out
}

func isSPS(nal []byte) bool { return h264.Type(nal) == h264.TypeSPS }

// A Controller turns the knobs of a running encoder. It implements
// [codec.KeyFrameController] and [codec.BitRateController]; its methods may be
// called from any goroutine.
type Controller struct{ enc hw.Encoder }

// ForceKeyFrame makes the next picture a key picture. It never fails.
func (c Controller) ForceKeyFrame() error {
	c.enc.ForceKey()
	return nil
}

// SetBitRate changes the target (bit/s) from the next pictures on.
func (c Controller) SetBitRate(bps int) error { return c.enc.SetBitrate(bps) }

// Stats counts since the encoder was opened; CopiedBytes of zero says that it
// reads the camera's memory.
func (c Controller) Stats() hw.EncoderStats { return c.enc.Stats() }

// A framer makes frames of what a track gives. It is for one goroutine.
type framer struct {
	source video.Reader
	rate   hw.Rate // of images that do not say it
	copies copies
}

// next returns the next picture as a frame, which the caller releases.
// Pictures that are no longer valid are passed over: the reader was late.
func (r *framer) next() (*hw.Frame, error) {
	for {
		img, release, err := r.source.Read()
		if err != nil {
			return nil, err
		}
		f, err := r.frame(img)
		release()
		if f != nil || err != nil {
			return f, err
		}
	}
}

func (r *framer) frame(img image.Image) (*hw.Frame, error) {
	if own, ok := img.(interface{ Frame() *hw.Frame }); ok {
		return own.Frame(), nil
	}
	return r.copies.of(img, r.rate)
}
