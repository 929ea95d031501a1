package visca

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"encoderd.example/daemon/status"
)

// Errors of Send.
var (
	// ErrSilent says that the camera did not answer in time.
	ErrSilent = errors.New("the camera does not answer; check its cable, its power, and camera and baud under [ptz]")
	// ErrRefused says that the camera answered no.
	ErrRefused = errors.New("the camera refuses")
	// ErrAway says that the serial port is not open.
	ErrAway = errors.New("the serial port of the camera is not there")
)

const (
	answerTime = time.Second            // for an acknowledgement; the standard's cameras take 20 ms
	lampEvery  = 10 * time.Second       // the lamp is told again: a camera that was switched off forgets
	lampAgain  = 500 * time.Millisecond // after it was not taken
	// lampTries are the quick ones: a camera that never answers its lamp's
	// command must not keep orders waiting.
	lampTries   = 4
	goodbyeTime = 2 * time.Second // for the last packet, until the port is closed on it
)

// A Link speaks with one camera. Set the exported fields before Run. Send and
// Tally may be called from any goroutine, at any time.
type Link struct {
	Camera int    // address in the chain, 1–7
	Model  string // of [Models], or "": the camera's lamp is left alone
	Log    *slog.Logger

	mu    sync.Mutex
	open  bool
	tally string

	once  sync.Once
	work  chan order
	lamps chan struct{} // of one: the tally has changed
}

// An order is a command and whom to tell.
type order struct {
	ctx  context.Context //nolint:containedctx // the caller's, who may leave
	c    Command
	done chan error
}

func (l *Link) init() {
	l.once.Do(func() {
		if l.Camera < minAddress || l.Camera > maxAddress {
			l.Camera = minAddress
		}
		l.work, l.lamps = make(chan order), make(chan struct{}, 1)
		l.tally = status.Off
	})
}

// Send gives the camera a command and waits until it has taken it: not until it
// is done.
func (l *Link) Send(ctx context.Context, c Command) error {
	l.init()
	l.mu.Lock()
	open := l.open
	l.mu.Unlock()
	if !open {
		return ErrAway
	}
	o := order{ctx, c, make(chan error, 1)}
	ctx, cancel := context.WithTimeout(ctx, 2*answerTime)
	defer cancel()
	select {
	case l.work <- o:
	case <-ctx.Done():
		return fmt.Errorf("%w (%w)", ErrSilent, context.Cause(ctx))
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w (%w)", ErrSilent, context.Cause(ctx))
	}
}

// Tally says what the camera's lamp shall show: a state of [status.Tally].
// Unknown is dark: a lamp in the speaker's face must not be red by guess. The
// latest call counts.
func (l *Link) Tally(state string) {
	l.init()
	l.mu.Lock()
	l.tally = state
	l.mu.Unlock()
	select {
	case l.lamps <- struct{}{}:
	default: // one is due already
	}
}

// lamp returns the command for what the lamp shall show, or nil.
func (l *Link) lamp() Command {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := Models[l.Model]
	switch {
	case l.tally == status.Program:
		return m.Program
	case l.tally == status.Preview && m.Preview != nil:
		return m.Preview
	default:
		return m.Off
	}
}

// Run speaks over port until ctx ends, which is no error, or the port fails. It
// darkens the camera's lamp in the end and closes the port, two seconds after
// the end of ctx at the latest. The port must not close with ctx by itself: the
// lamp would stay lit.
func (l *Link) Run(ctx context.Context, port io.ReadWriteCloser) (err error) {
	l.init()
	replies := make(chan reply)
	broken := make(chan error, 1)
	stop := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() { broken <- read(port, replies, stop) })
	helpers.Go(func() { closeLate(ctx, port, stop) })
	l.setOpen(true)
	defer func() {
		l.setOpen(false)
		close(stop)
		err = errors.Join(err, port.Close())
		helpers.Wait()
	}()
	s := session{link: l, port: port, replies: replies, broken: broken}
	return s.run(ctx)
}

// closeLate closes the port some time after the end of ctx unless stop is
// closed before: a write that hangs ends so.
func closeLate(ctx context.Context, port io.Closer, stop <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-stop:
		return
	}
	late := time.NewTimer(goodbyeTime)
	defer late.Stop()
	select {
	case <-late.C:
		_ = port.Close() // Run tells of it
	case <-stop:
	}
}

func (l *Link) setOpen(open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = open
}

// read hands on what the camera says until the port ends or stop is closed.
func read(port io.Reader, to chan<- reply, stop <-chan struct{}) error {
	var s splitter
	buf := make([]byte, 64)
	for {
		n, err := port.Read(buf)
		for _, b := range buf[:n] {
			r, ok := s.next(b)
			if !ok {
				continue
			}
			select {
			case to <- r:
			case <-stop:
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("read from the camera: %w", err)
		}
	}
}

// A session is the time that a port is open.
type session struct {
	link    *Link
	port    io.Writer
	replies <-chan reply
	broken  <-chan error
	lamp    *time.Timer // when the lamp is told again
	silent  int         // times in a row that it was told without an answer
}

// run works until ctx ends or the port fails. Whatever ended the work, a lamp
// that is lit is darkened if it was to end.
func (s *session) run(ctx context.Context) error {
	s.lamp = time.NewTimer(lampEvery)
	defer s.lamp.Stop()
	err := s.work(ctx)
	if ctx.Err() != nil {
		return s.goDark()
	}
	return err
}

// work returns nil only when ctx has ended.
func (s *session) work(ctx context.Context) error {
	if err := s.showLamp(ctx); err != nil {
		return err
	}
	for {
		var err error
		select {
		case o := <-s.link.work:
			err = s.carryOut(ctx, o)
		case <-s.link.lamps:
			s.silent = 0
			err = s.showLamp(ctx)
		case <-s.lamp.C:
			err = s.showLamp(ctx)
		case <-s.replies: // a completion, or noise
		case err = <-s.broken:
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// carryOut sends an order, unless whoever gave it has left.
func (s *session) carryOut(ctx context.Context, o order) error {
	if err := o.ctx.Err(); err != nil {
		return nil //nolint:nilerr // told by Send
	}
	err := s.ask(ctx, o.c)
	o.done <- err
	return fatal(err)
}

// showLamp tells the camera what its lamp shall show. A camera that does not
// answer is no reason to close the port.
func (s *session) showLamp(ctx context.Context) error {
	c := s.link.lamp()
	if c == nil {
		return nil
	}
	err := s.ask(ctx, c)
	s.lamp.Reset(s.nextLamp(err))
	if err != nil && s.link.Log != nil {
		s.link.Log.Debug("tally lamp of the camera", "err", err)
	}
	return fatal(err)
}

// nextLamp returns when the lamp is told again after its command ended by err.
func (s *session) nextLamp(err error) time.Duration {
	switch {
	case errors.Is(err, errBusy):
		return lampAgain
	case errors.Is(err, ErrSilent) && s.silent < lampTries:
		s.silent++
		return lampAgain
	case err == nil:
		s.silent = 0
	}
	return lampEvery
}

// goDark is for the end: nobody waits for an answer.
func (s *session) goDark() error {
	off := Models[s.link.Model].Off
	if off == nil {
		return nil
	}
	if _, err := s.port.Write(packet(s.link.Camera, off)); err != nil {
		return fmt.Errorf("darken the lamp of the camera: %w", err)
	}
	return nil
}

// darkTimes is how often a lamp is darkened after a link that could not: the
// first answer may be to what that said last.
const darkTimes = 2

// Darken makes the lamp of a camera of a model dark by port, after a [Link] that
// could not: what that sent last may be cut short. It tells the camera until it
// has taken it twice, or ctx ends, and closes port. A model without a lamp needs
// nothing.
func Darken(ctx context.Context, port io.ReadWriteCloser, camera int, model string) (err error) {
	off := Models[model].Off
	if off == nil {
		return port.Close()
	}
	replies, broken, stop := make(chan reply), make(chan error, 1), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() { broken <- read(port, replies, stop) })
	hung := context.AfterFunc(ctx, func() { _ = port.Close() }) // a write that hangs ends so
	defer func() {
		hung()
		close(stop)
		err = errors.Join(err, port.Close())
		reading.Wait()
	}()
	s := session{link: &Link{Camera: camera}, port: port, replies: replies, broken: broken}
	return s.darken(ctx, off)
}

func (s *session) darken(ctx context.Context, off Command) error {
	for taken := 0; taken < darkTimes; {
		err := s.ask(ctx, off)
		if err == nil {
			taken++
			continue
		}
		if fatal(err) != nil {
			return err
		}
		again := time.NewTimer(lampAgain)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return err
		}
	}
	return nil
}

// fatal keeps the errors after which the port is of no use.
func fatal(err error) error {
	if errors.Is(err, ErrSilent) || errors.Is(err, ErrRefused) {
		return nil
	}
	return err
}

// ask sends a command and waits until the camera has taken or refused it.
func (s *session) ask(ctx context.Context, c Command) error {
	if _, err := s.port.Write(packet(s.link.Camera, c)); err != nil {
		return fmt.Errorf("write to the camera: %w", err)
	}
	late := time.NewTimer(answerTime)
	defer late.Stop()
	for {
		select {
		case r := <-s.replies:
			if r.from == s.link.Camera && r.kind != completed {
				return r.err()
			}
		case err := <-s.broken:
			return err
		case <-late.C:
			return ErrSilent
		case <-ctx.Done():
			return ErrSilent
		}
	}
}
