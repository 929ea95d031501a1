package gpio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/warthog618/go-gpiocdev"
	"github.com/warthog618/go-gpiocdev/uapi"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// WatchKey reports how a key stands and then its edges, with the kernel's
// stamps, until ctx ends (nil) or the line cannot be had or read: that error
// wraps hw.ErrBusy, hw.ErrGone, [ErrNoLine] or [ErrManyLines] where it is one
// of those. When the kernel had to drop edges, a Level stands in for them. told
// runs on the caller's goroutine.
func WatchKey(ctx context.Context, w hw.KeyWire, told func(hw.Edge)) error {
	l, err := openInput(w)
	if err != nil {
		return fmt.Errorf("%s: %w", w.Pin, err)
	}
	defer l.close()
	stop := l.endWith(ctx)
	defer stop()
	if err := l.watch(w.Name, told); ctx.Err() == nil {
		return fmt.Errorf("%s: %w", w.Pin, explain(err))
	}
	return nil
}

// An input is a line that tells of its edges. It talks to the kernel by the
// lower floor of the library: the upper one waits in a thread for each line,
// and once the chip is taken out it spins there and tells nobody.
type input struct {
	file *os.File
	buf  [lineEventSize]byte
}

// lineEventSize is that of struct gpio_v2_line_event.
const lineEventSize = 48

func openInput(w hw.KeyWire) (*input, error) {
	at, err := find(w.Pin)
	if err != nil {
		return nil, err
	}
	chip, err := unix.Open("/dev/"+at.chip, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, explain(&os.PathError{Op: "open", Path: "/dev/" + at.chip, Err: err})
	}
	defer unix.Close(chip) //nolint:errcheck // lines live on without it
	request := inputRequest(w, at.offset)
	if err := uapi.GetLine(uintptr(chip), &request); err != nil {
		return nil, inUse(at, err)
	}
	fd := int(request.Fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &input{file: os.NewFile(uintptr(fd), string(w.Pin))}, nil
}

// inputRequest says all that the kernel is asked to do for a key.
func inputRequest(w hw.KeyWire, offset int) uapi.LineRequest {
	r := uapi.LineRequest{Lines: 1}
	r.Offsets[0] = uint32(offset)
	copy(r.Consumer[:], consumer)
	r.Config.Flags = uapi.LineFlagV2Input | uapi.LineFlagV2EdgeBoth | pulls[w.Pull]
	if w.ActiveLow {
		r.Config.Flags |= uapi.LineFlagV2ActiveLow
	}
	if w.Debounce > 0 {
		r.Config.AddAttribute(uapi.LineConfigAttribute{Attr: uapi.DebouncePeriod(w.Debounce).Encode(), Mask: 1})
	}
	return r
}

// pulls has the kernel's word for each. A chip that has none ignores it.
var pulls = map[hw.Pull]uapi.LineFlagV2{
	hw.PullUp:   uapi.LineFlagV2BiasPullUp,
	hw.PullDown: uapi.LineFlagV2BiasPullDown,
	hw.PullNone: uapi.LineFlagV2BiasDisabled,
}

func (l *input) close() { _ = l.file.Close() } // nothing was written

// endWith makes reads fail once ctx ends, until stop is called.
func (l *input) endWith(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	undo := context.AfterFunc(ctx, func() {
		defer close(done)
		// It fails only on a closed file, and then nobody reads.
		_ = l.file.SetReadDeadline(time.Unix(1, 0))
	})
	return func() {
		if !undo() {
			<-done
		}
	}
}

// watch reports until the line fails.
func (l *input) watch(key string, told func(hw.Edge)) error {
	t := track{key: key}
	if err := l.look(&t, told); err != nil {
		return err
	}
	for {
		e, err := l.next()
		if err != nil {
			return err
		}
		edge, what := t.follow(e)
		switch what {
		case moved:
			told(edge)
		case lost:
			if err := l.look(&t, told); err != nil {
				return err
			}
		case known:
		}
	}
}

// next waits for the kernel's next event.
func (l *input) next() (e uapi.LineEvent, err error) {
	n, err := l.file.Read(l.buf[:])
	if err != nil {
		return e, err
	}
	if n != len(l.buf) {
		return e, fmt.Errorf("an event of %d bytes", n)
	}
	_, err = binary.Decode(l.buf[:], binary.NativeEndian, &e)
	return e, err
}

// look reads how the line stands.
func (l *input) look(t *track, told func(hw.Edge)) error {
	at := stream.Monotonic()
	down, err := l.value()
	if err != nil {
		return err
	}
	told(t.found(down, at))
	return nil
}

func (l *input) value() (bool, error) {
	conn, err := l.file.SyscallConn()
	if err != nil {
		return false, err
	}
	values := uapi.LineValues{Mask: 1}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = uapi.GetLineValuesV2(fd, &values) }); err != nil {
		return false, err
	}
	return values.Get(0) == 1, failed
}

// A track follows one line through its events.
type track struct {
	key  string
	down bool
	// seen is the number of the last event; the first one is 1.
	seen uint32
	// until is when down was read: events up to then are in it already.
	until time.Duration
}

// What an event says.
type news int

const (
	known news = iota // nothing that was not told
	moved             // an edge
	lost              // events before it are missing: look at the line
)

// found takes note of how the line stands at an instant.
func (t *track) found(down bool, at time.Duration) hw.Edge {
	t.down, t.until = down, at
	return hw.Edge{Key: t.key, Down: down, Stamp: at, Level: true}
}

// follow takes note of an event. One that leads to where the key stands, as
// those of a pulse too short to be read, says nothing.
func (t *track) follow(e uapi.LineEvent) (hw.Edge, news) {
	gap := e.LineSeqno != t.seen+1
	t.seen = e.LineSeqno
	stamp, down := time.Duration(e.Timestamp), gpiocdev.LineEventType(e.ID) == gpiocdev.LineEventRisingEdge
	switch {
	case gap:
		return hw.Edge{}, lost
	case stamp <= t.until || down == t.down:
		return hw.Edge{}, known
	}
	t.down = down
	return hw.Edge{Key: t.key, Down: down, Stamp: stamp}, moved
}
