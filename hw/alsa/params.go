package alsa

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/pcm"
)

// What is asked of a card, best first. Rates count more than formats: 24 bits
// at 48 kHz beat 16 bits that must be resampled.
var (
	rates   = []uint32{48000, 44100, 96000, 32000, 88200, 192000, 24000, 22050, 16000, 11025, 8000}
	formats = []struct {
		kernel uint
		format pcm.Format
	}{{formatS16, pcm.S16}, {formatS24In, pcm.S24In3}, {formatS24, pcm.S24}, {formatS32, pcm.S32}}
)

// counts returns the numbers of channels to ask for, best first, if so many are
// needed.
func counts(need int) []interval {
	if need > hw.Channels {
		return []interval{{uint32(need), math.MaxUint32, intervalInteger}}
	}
	return []interval{{2, 2, intervalInteger}, {1, 1, intervalInteger}, {3, math.MaxUint32, intervalInteger}}
}

// The period decides how old sound is when it is read, the buffer only how
// long this process may be held up before sound is lost: 320 ms.
const (
	periodsPerSecond = 50
	periodsPerBuffer = 16
)

// A setup is what a card was set to.
type setup struct {
	format   pcm.Format
	rate     int
	channels int
	period   int // sample frames from wake-up to wake-up
	buffer   int // sample frames that the card holds
}

func (s setup) frameBytes() int { return s.channels * s.format.Bytes() }

// open leaves everything open but the way of access.
func openParams() *hwParams {
	p := &hwParams{rmask: math.MaxUint32, info: math.MaxUint32}
	for i := range p.masks {
		for j := range p.masks[i] {
			p.masks[i][j] = math.MaxUint32
		}
	}
	for i := range p.intervals {
		p.intervals[i].max = math.MaxUint32
	}
	p.only(paramAccess, accessRWInterleaved)
	return p
}

// only leaves one choice of a mask.
func (p *hwParams) only(param int, bit uint) {
	p.masks[param] = mask{}
	p.masks[param][bit/32] = 1 << (bit % 32)
}

func (p *hwParams) interval(param int) *interval { return &p.intervals[param-paramInterval] }

// low and high are the ends of i as whole numbers.
func (i interval) low() uint32  { return i.min + i.flags&intervalOpenMin }
func (i interval) high() uint32 { return i.max - i.flags&intervalOpenMax/intervalOpenMax }

// refine asks the card which choices are left; ok is false if none are.
func (d *device) refine(p *hwParams) (ok bool, err error) {
	p.rmask, p.cmask = math.MaxUint32, 0
	err = d.ioctl(ioHWRefine, unsafe.Pointer(p)) //nolint:gosec // an ioctl takes an address
	if errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	return err == nil, err
}

// configure finds the best setting that the card can do and sets it. Of two
// channels any number will do, since one of a card's is heard on both sides;
// a greater number is needed.
func (d *device) configure(channels int) (setup, error) {
	p, s, err := d.choose(counts(channels))
	if err != nil {
		return setup{}, err
	}
	if err := d.near(p, paramPeriodSize, uint32(s.rate/periodsPerSecond)); err != nil {
		return setup{}, err
	}
	if err := d.near(p, paramPeriods, periodsPerBuffer); err != nil {
		return setup{}, err
	}
	p.rmask, p.cmask = math.MaxUint32, 0
	if err := d.ioctl(ioHWParams, unsafe.Pointer(p)); err != nil { //nolint:gosec // an ioctl takes an address
		return setup{}, fmt.Errorf("set %s, %d channels, %d Hz: %w", s.format, s.channels, s.rate, err)
	}
	s.period = int(p.interval(paramPeriodSize).low())
	s.buffer = int(p.interval(paramBufferSize).low())
	if s.period < 1 || s.buffer < s.period {
		return setup{}, fmt.Errorf("driver grants periods of %d and a buffer of %d frames: %w", s.period, s.buffer, hw.ErrUnsupported)
	}
	return s, nil
}

// choose tries what the tables above want, best first.
func (d *device) choose(channels []interval) (*hwParams, setup, error) {
	for _, rate := range rates {
		for _, f := range formats {
			for _, ch := range channels {
				p := openParams()
				p.only(paramFormat, f.kernel)
				*p.interval(paramRate) = interval{rate, rate, intervalInteger}
				*p.interval(paramChannels) = ch
				ok, err := d.refine(p)
				if err != nil {
					return nil, setup{}, err
				}
				if !ok {
					continue
				}
				n := p.interval(paramChannels).low()
				*p.interval(paramChannels) = interval{n, n, intervalInteger}
				return p, setup{format: f.format, rate: int(rate), channels: int(n)}, nil
			}
		}
	}
	return nil, setup{}, fmt.Errorf("no format in common, the card offers %s: %w", d.offer(), hw.ErrUnsupported)
}

// offer describes what the card can do, for an error.
func (d *device) offer() string {
	p := openParams()
	if ok, err := d.refine(p); !ok || err != nil {
		return "nothing"
	}
	n := 0
	for _, word := range p.masks[paramFormat] {
		n += bits.OnesCount32(word)
	}
	rate, ch := p.interval(paramRate), p.interval(paramChannels)
	return fmt.Sprintf("%d formats (mask %#x), %d to %d Hz, %d to %d channels",
		n, p.masks[paramFormat][:2], rate.low(), rate.high(), ch.low(), ch.high())
}

// near narrows a parameter to the possible value nearest to want, from above
// if it can be.
func (d *device) near(p *hwParams, param int, want uint32) error {
	for _, try := range []interval{
		{want, want, intervalInteger},
		{want, math.MaxUint32, 0},
		{0, want, 0},
	} {
		q := *p
		*q.interval(param) = intersect(*p.interval(param), try)
		ok, err := d.refine(&q)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		pick := q.interval(param).low()
		if try.min == 0 {
			pick = q.interval(param).high()
		}
		*q.interval(param) = interval{pick, pick, intervalInteger}
		if ok, err = d.refine(&q); ok || err != nil {
			*p = q
			return err
		}
	}
	return nil // left to the driver
}

// intersect may return an empty interval, which the kernel refuses.
func intersect(a, b interval) interval {
	return interval{max(a.low(), b.min), min(a.high(), b.max), b.flags}
}

// software says when to wake up, when an overrun stops the card, and which
// clock stamps.
func (d *device) software(s setup) error {
	stamp := int32(tstampMonotonic)
	if err := d.ioctl(ioTTStamp, unsafe.Pointer(&stamp)); err != nil { //nolint:gosec // an ioctl takes an address
		return fmt.Errorf("ask for monotonic stamps: %w", err)
	}
	sw := &swParams{
		tstampMode:     tstampEnable,
		periodStep:     1,
		availMin:       uint(s.period),
		xferAlign:      1,
		startThreshold: 1 << 30, // started by hand
		stopThreshold:  uint(s.buffer),
		boundary:       1 << 30,
		proto:          protocol,
		tstampType:     tstampMonotonic,
	}
	if err := d.ioctl(ioSWParams, unsafe.Pointer(sw)); err != nil { //nolint:gosec // an ioctl takes an address
		return fmt.Errorf("set wake-up and overrun: %w", err)
	}
	return nil
}
