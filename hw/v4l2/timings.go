package v4l2

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// Timings are the picture and blanking of a digital input. Equal ones compare
// with ==.
type Timings struct{ raw uapi.DVTimings }

// QueryTimings measures what comes in. The error wraps [hw.ErrNoSignal] if
// nothing does or it is not yet stable, and [hw.ErrUnsupported] if the receiver
// cannot take it.
func (d *Device) QueryTimings() (Timings, error) {
	var t Timings
	err := Ioctl(d, "measure the signal of", uapi.QueryDVTimings, &t.raw)
	switch {
	case errors.Is(err, unix.ENOLINK):
		return Timings{}, fmt.Errorf("%w: nothing comes in: %w", hw.ErrNoSignal, err)
	case errors.Is(err, unix.ENOLCK):
		return Timings{}, fmt.Errorf("%w: it is not locked: %w", hw.ErrNoSignal, err)
	case errors.Is(err, unix.ERANGE):
		return Timings{}, fmt.Errorf("the signal is outside what the receiver takes, set the source to 1080p or 720p: %w: %w", hw.ErrUnsupported, err)
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENODATA):
		return Timings{}, fmt.Errorf("the input has no timings: %w: %w", hw.ErrUnsupported, err)
	}
	return t, err
}

// SetTimings makes the receiver expect t. It may reset the format; while there
// are buffers it fails with an error that wraps [hw.ErrBusy].
func (d *Device) SetTimings(t Timings) error {
	return Ioctl(d, "set the timings of", uapi.SetDVTimings, &t.raw) // t is our copy: drivers write back
}

// Timings returns what the receiver expects.
func (d *Device) Timings() (Timings, error) {
	var t Timings
	err := Ioctl(d, "ask for the timings of", uapi.GetDVTimings, &t.raw)
	return t, err
}

// maxTimings bounds the lists of drivers.
const maxTimings = 256

// EnumTimings lists the timings that the receiver knows. pad is that of a
// subdevice, zero on a video node.
func (d *Device) EnumTimings(pad int) ([]Timings, error) {
	var list []Timings
	for i := range uint32(maxTimings) {
		e := uapi.DVTimingsEntry{Index: i, Pad: uint32(pad)}
		more, err := entry(Ioctl(d, "list the timings of", uapi.EnumDVTimings, &e))
		if err != nil || !more {
			return list, err
		}
		list = append(list, Timings{e.Timings})
	}
	return list, nil
}

// Width returns the pixels of a line.
func (t Timings) Width() int { return int(t.raw.BT.Width) }

// Height returns the lines of a whole picture, also if it comes in two halves.
func (t Timings) Height() int { return int(t.raw.BT.Height) }

// Interlaced says that pictures come in halves.
func (t Timings) Interlaced() bool { return t.raw.BT.Interlaced == uapi.DVInterlaced }

// total returns the pixels of a whole picture with its blanking.
func (t Timings) total() uint64 {
	b := &t.raw.BT
	w := uint64(b.Width) + uint64(b.HFrontPorch) + uint64(b.HSync) + uint64(b.HBackPorch)
	h := uint64(b.Height) + uint64(b.VFrontPorch) + uint64(b.VSync) + uint64(b.VBackPorch)
	if t.Interlaced() {
		h += uint64(b.SecondVFrontPorch) + uint64(b.SecondVSync) + uint64(b.SecondVBackPorch)
	}
	return w * h
}

// Rate returns whole pictures a second, zero if they are not known. Receivers
// measure the clock, so that a rate next to a common one is taken for that:
// 59.9402 Hz for 60000/1001.
func (t Timings) Rate() hw.Rate {
	num, den := t.raw.BT.PixelClock(), t.total()
	if num == 0 || den == 0 {
		return hw.Rate{}
	}
	const reduced = uapi.DVFlagReducedFPS | uapi.DVFlagCanDetectReduced
	if t.raw.BT.Flags&reduced == reduced {
		num, den = num*1000, den*1001
	}
	for _, r := range receivedRates {
		// An eighth of the distance between 60 and 60000/1001.
		if exact := r.Float(); math.Abs(float64(num)/float64(den)-exact) < exact*125e-6 {
			return r
		}
	}
	g := gcd(num, den)
	if num, den = num/g, den/g; num > math.MaxInt32 || den > math.MaxInt32 {
		num, den = uint64(math.Round(float64(num)/float64(den)*1000)), 1000
	}
	return hw.Rate{Num: int(num), Den: int(den)}
}

// receivedRates are those that sources send.
var receivedRates = []hw.Rate{
	{Num: 60, Den: 1},
	{Num: 60000, Den: 1001},
	{Num: 50, Den: 1},
	{Num: 30, Den: 1},
	{Num: 30000, Den: 1001},
	{Num: 25, Den: 1},
	{Num: 24, Den: 1},
	{Num: 24000, Den: 1001},
	{Num: 120, Den: 1},
	{Num: 120000, Den: 1001},
	{Num: 100, Den: 1},
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// String returns, for example, "1920x1080p 59.94 Hz".
func (t Timings) String() string {
	scan := "p"
	if t.Interlaced() {
		scan = "i"
	}
	return fmt.Sprintf("%dx%d%s %.4g Hz", t.Width(), t.Height(), scan, t.Rate().Float())
}
