package m2m

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

const (
	// mostInside is how many pictures may be in the encoder's hands: it works on
	// one while others wait, and a camera of six buffers keeps two.
	mostInside = 4
	// imports is how many places for memory of others there are: one for each
	// buffer of a camera, of the slate and of our own copies, since drivers
	// attach memory anew whenever it changes places.
	imports = 16
	// codedBuffers is how many the bitstream comes in.
	codedBuffers = 4
)

// A session is an open device, ready to run.
type session struct {
	node  *node
	cfg   hw.EncoderConfig
	dev   *v4l2.Device
	knobs *knobs
	most  int // bit/s that the level carries
	// raw is what OUTPUT reads.
	raw granted
	in  *v4l2.Queue // OUTPUT
	out *v4l2.Queue // CAPTURE
}

// newSession goes the way of the kernel's documentation, with the detours that
// drivers need (see each step):
//
//	coded format → raw format → rate → crop → controls → buffers → start
func newSession(n *node, cfg hw.EncoderConfig) (*session, error) {
	d, err := n.open()
	if err != nil {
		return nil, err
	}
	s := &session{node: n, cfg: cfg, dev: d}
	if err := s.setUp(); err != nil {
		return nil, fmt.Errorf("%s: %w", n.name, errors.Join(err, s.shut()))
	}
	return s, nil
}

// check refuses what no encoder of this kind does.
func check(n *node, cfg hw.EncoderConfig) error {
	switch {
	case n.syntax(cfg.Codec) == nil:
		return fmt.Errorf("%s: codec %s: %w", n.name, cfg.Codec, hw.ErrUnsupported)
	case cfg.Width%2+cfg.Height%2 > 0:
		return fmt.Errorf("%s: size %dx%d must be even: %w", n.name, cfg.Width, cfg.Height, hw.ErrUnsupported)
	case cfg.FPS.Num <= 0 || cfg.FPS.Den <= 0 || cfg.GOP <= 0 || cfg.Bitrate <= 0:
		return fmt.Errorf("%s: %.4g fps, a key frame each %d, %d bit/s: all must be above zero: %w", n.name, cfg.FPS.Float(), cfg.GOP, cfg.Bitrate, hw.ErrUnsupported)
	default:
		return n.fits(cfg.Width, cfg.Height)
	}
}

func (s *session) setUp() error {
	var err error
	if s.raw, err = s.setFormats(); err != nil {
		return err
	}
	if err := tolerate(s.setRate(s.cfg.FPS)); err != nil {
		return err
	}
	if err := s.crop(); err != nil {
		return err
	}
	if s.knobs, err = newKnobs(s.dev, s.node.log); err != nil {
		return err
	}
	if s.most, err = s.knobs.configure(s.node.quirks, s.cfg); err != nil {
		return err
	}
	if err := s.makeBuffers(); err != nil {
		return err
	}
	return s.start()
}

// setFormats sets what comes out and what goes in: the layout that most
// pictures will have if the driver takes it, else one that we can convert to.
func (s *session) setFormats() (granted, error) {
	if err := s.node.setCoded(s.dev, s.node.syntax(s.cfg.Codec), s.cfg.Width, s.cfg.Height); err != nil {
		return granted{}, err
	}
	wishes := []hw.Layout{s.cfg.Input}
	if s.cfg.Input.Width != s.cfg.Width || s.cfg.Input.Height != s.cfg.Height {
		wishes = nil
	}
	for _, pixel := range s.node.Takes() {
		wishes = append(wishes, hw.Layout{Pixel: pixel, Width: s.cfg.Width, Height: s.cfg.Height})
	}
	var errs []error
	for _, wish := range wishes {
		g, err := s.node.nearest(s.dev, wish)
		if err == nil || errors.Is(err, hw.ErrGone) {
			return g, err
		}
		errs = append(errs, err)
	}
	return granted{}, errors.Join(errs...)
}

// setRate tells the driver the frame rate, always: rate control counts by it,
// and the default is 30. Some cut it to whole numbers.
func (s *session) setRate(r hw.Rate) error {
	if s.node.quirks.wholeRates {
		r = hw.Rate{Num: int(r.Float() + 0.5), Den: 1}
	}
	_, err := s.dev.SetOutputRate(s.node.raw, r)
	return err
}

// crop cuts off the lines and columns that the driver added, after the raw
// format, which resets it. Whether that was understood shows in the parameter
// sets.
func (s *session) crop() error {
	if s.raw.width == s.cfg.Width && s.raw.height == s.cfg.Height {
		return nil
	}
	_, err := s.dev.SetCrop(s.node.raw, v4l2.Rect{Width: s.cfg.Width, Height: s.cfg.Height})
	return tolerate(err)
}

// makeBuffers makes room for pictures, imported if the driver can, and for the
// bitstream.
func (s *session) makeBuffers() error {
	least, err := s.knobs.value(uapi.CIDMinBuffersForOutput, 1)
	if err != nil {
		return err
	}
	planes := s.node.planes(s.raw.mems)
	s.in, err = v4l2.NewImportQueue(s.dev, s.node.raw, imports, planes)
	if errors.Is(err, unix.EINVAL) {
		s.in, err = v4l2.NewQueue(s.dev, s.node.raw, max(mostInside, s.node.quirks.buffers, int(least)), planes)
	}
	if err != nil {
		return err
	}
	s.out, err = v4l2.NewQueue(s.dev, s.node.coded, max(codedBuffers, s.node.quirks.buffers), s.node.planes(1))
	if err != nil {
		return err
	}
	if s.in.Len() < 1 || s.out.Len() < 2 {
		return fmt.Errorf("the driver makes only %d and %d buffers: free memory or choose a smaller picture", s.in.Len(), s.out.Len())
	}
	return nil
}

func (s *session) start() error {
	if err := s.fillCoded(); err != nil {
		return err
	}
	return errors.Join(s.in.StreamOn(), s.out.StreamOn())
}

// fillCoded hands all buffers for the bitstream to the driver.
func (s *session) fillCoded() error {
	for i := range s.out.Len() {
		if err := s.out.Enqueue(i); err != nil {
			return err
		}
	}
	return nil
}

// shut goes stop → unmap → free → close. It may be called at any stage.
func (s *session) shut() error {
	var queues []*v4l2.Queue
	for _, q := range []*v4l2.Queue{s.in, s.out} {
		if q != nil {
			queues = append(queues, q)
		}
	}
	var errs []error
	for _, q := range queues {
		errs = append(errs, unlessGone(q.StreamOff()))
	}
	for _, q := range queues {
		for i := range q.Len() {
			errs = append(errs, q.Unmap(i))
		}
	}
	for _, q := range queues {
		errs = append(errs, unlessGone(q.Free()))
	}
	return errors.Join(append(errs, s.dev.Close())...)
}
