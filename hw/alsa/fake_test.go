package alsa

import (
	"encoding/binary"
	"math"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A fake is a kernel with one sound card that keeps its own time: nobody waits
// for real, poll moves the clock. It does what include/uapi/sound/asound.h and
// sound/core/pcm_native.c say, and fails to order.
type fake struct {
	// What the card can do.
	rates    []uint32
	formats  []uint
	channels [2]uint32
	ppm      float64       // error of its clock
	grain    time.Duration // of the position that it reports
	spread   int           // by how much a sample is greater than that of the channel before

	// fail, if not nil, is asked before every call and may return its error.
	fail func(call string) error

	mu    sync.Mutex
	calls []string
	fds   map[int]string
	next  int
	rung  bool

	now     time.Duration
	state   int32
	set     hwParams
	avail   uint          // avail_min
	stop    uint          // stop threshold
	started time.Duration // time of the first sample since START
	read    uint64        // sample frames read since START
	base    uint64        // number of the first sample since START: position in the signal
}

const fakeRead = "READI"

var callNames = map[uint]string{
	ioPCMInfo: "INFO", ioTTStamp: "TTSTAMP", ioHWRefine: "HW_REFINE", ioHWParams: "HW_PARAMS", ioSWParams: "SW_PARAMS",
	ioStatusExt: "STATUS_EXT", ioPrepare: "PREPARE", ioStart: "START", ioDrop: "DROP", ioResume: "RESUME",
	ioReadFrames: fakeRead, ioPreferSub: "PREFER_SUBDEVICE",
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{
		rates: []uint32{48000}, formats: []uint{formatS16}, channels: [2]uint32{2, 2},
		fds: map[int]string{}, next: 100, now: 1000 * time.Second,
	}
	t.Cleanup(func() {
		for fd, what := range f.fds {
			t.Errorf("descriptor %d (%s) was not closed", fd, what)
		}
	})
	return f
}

func (f *fake) card() *Card {
	return &Card{id: "alsa:Fake", name: "Fake", sub: -1, root: "/", sys: f}
}

// call notes a call and lets it fail.
func (f *fake) call(name string) error {
	f.calls = append(f.calls, name)
	if f.fail != nil {
		return f.fail(name)
	}
	return nil
}

func (f *fake) add(what string) int {
	f.next++
	f.fds[f.next] = what
	return f.next
}

func (f *fake) open(path string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("open"); err != nil {
		return -1, err
	}
	return f.add(path), nil
}

func (f *fake) newBell() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("eventfd"); err != nil {
		return -1, err
	}
	return f.add("eventfd"), nil
}

func (f *fake) close(fd int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.fds[fd]; !ok {
		return unix.EBADF
	}
	delete(f.fds, fd)
	return nil
}

func (f *fake) ring(bell int)   { f.setRung(bell, true) }
func (f *fake) unring(bell int) { f.setRung(bell, false) }

func (f *fake) setRung(bell int, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fds[bell] != "eventfd" {
		panic("bell is closed")
	}
	f.rung = on
}

// rate is the card's true rate in Hz.
func (f *fake) rate() float64 {
	return float64(f.set.interval(paramRate).min) * (1 + f.ppm*1e-6)
}

// waiting returns how many sample frames lie in the buffer, by the grain, and
// lets the card overrun.
func (f *fake) waiting() uint {
	if f.state != stateRunning {
		return 0
	}
	since := f.now - f.started
	if f.grain > 0 {
		since = since.Truncate(f.grain)
	}
	n := uint(math.Floor(since.Seconds()*f.rate())) - uint(f.read)
	if n >= f.stop {
		f.state = stateXrun
	}
	return n
}

func (f *fake) poll(fd, _ int, timeout time.Duration) (int16, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("poll"); err != nil {
		return 0, false, err
	}
	if f.rung {
		return 0, true, nil
	}
	if fd < 0 || f.state == statePrepared {
		f.now += timeout
		return 0, false, nil
	}
	for end := f.now + timeout; f.now < end; f.now += 100 * time.Microsecond {
		if f.state != stateRunning {
			return unix.POLLERR, false, nil
		}
		if f.waiting() >= f.avail {
			return unix.POLLIN, false, nil
		}
	}
	return 0, false, nil
}

func (f *fake) ioctl(fd int, request uint, arg unsafe.Pointer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.fds[fd]; !ok {
		return unix.EBADF
	}
	if err := f.call(callNames[request]); err != nil {
		return err
	}
	switch request {
	case ioPCMInfo:
		(*pcmInfo)(arg).subdevice = 3
	case ioHWRefine:
		return f.refine((*hwParams)(arg))
	case ioHWParams:
		return f.setHW((*hwParams)(arg))
	case ioSWParams:
		sw := (*swParams)(arg)
		f.avail, f.stop = sw.availMin, sw.stopThreshold
	case ioStatusExt:
		f.status((*pcmStatus)(arg))
	case ioPrepare:
		f.base += f.taken()
		f.state = statePrepared
	case ioStart:
		f.state, f.started, f.read = stateRunning, f.now, 0
	case ioResume:
		f.state = stateRunning
	case ioDrop:
		f.state = stateSetup
	case ioReadFrames:
		return f.readi((*xferi)(arg))
	}
	return nil
}

// taken is how many sample frames the card has taken since START.
func (f *fake) taken() uint64 {
	if f.started == 0 {
		return 0
	}
	return uint64((f.now - f.started).Seconds() * f.rate())
}

func (f *fake) refine(p *hwParams) error {
	var can mask
	for _, n := range f.formats {
		can[n/32] |= 1 << (n % 32)
	}
	some := uint32(0)
	for i := range can {
		p.masks[paramFormat][i] &= can[i]
		some |= p.masks[paramFormat][i]
	}
	lo, hi := uint32(math.MaxUint32), uint32(0)
	for _, r := range f.rates {
		if r >= p.interval(paramRate).low() && r <= p.interval(paramRate).high() {
			lo, hi = min(lo, r), max(hi, r)
		}
	}
	*p.interval(paramRate) = interval{lo, hi, 0}
	cut := func(param int, lo, hi uint32) bool {
		i := p.interval(param)
		*i = interval{max(i.low(), lo), min(i.high(), hi), 0}
		return i.min <= i.max
	}
	if !cut(paramChannels, f.channels[0], f.channels[1]) || !cut(paramPeriodSize, 16, 8192) || !cut(paramPeriods, 2, 1024) || some == 0 || lo > hi {
		return unix.EINVAL
	}
	return nil
}

func (f *fake) setHW(p *hwParams) error {
	if err := f.refine(p); err != nil {
		return err
	}
	period, periods := p.interval(paramPeriodSize).min, p.interval(paramPeriods).min
	*p.interval(paramBufferSize) = interval{period * periods, period * periods, intervalInteger}
	f.set = *p
	f.state = stateSetup
	return nil
}

func (f *fake) status(st *pcmStatus) {
	st.avail = f.waiting()
	st.state = f.state
	st.tstamp = timespec{int64(f.now / time.Second), int64(f.now % time.Second)}
}

// readi gives a signal in which each sample says its number.
func (f *fake) readi(x *xferi) error {
	n := f.waiting()
	switch {
	case f.state == stateXrun:
		return unix.EPIPE
	case f.state == stateSuspended:
		return unix.ESTRPIPE
	case f.state != stateRunning:
		return unix.EBADFD
	case n == 0:
		return unix.EAGAIN
	}
	n = min(n, x.frames)
	ch := int(f.set.interval(paramChannels).min)
	out := unsafe.Slice((*byte)(x.buf), int(n)*ch*2)
	for i := range int(n) {
		for c := range ch {
			binary.LittleEndian.PutUint16(out[2*(i*ch+c):], uint16(f.base+f.read)+uint16(i+c*f.spread))
		}
	}
	f.read += uint64(n)
	x.result = int(n)
	return nil
}
