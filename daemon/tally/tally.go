// Package tally knows whether this camera is on program.
//
// Links listen to switchers, each in the language of one protocol, and tell a
// [Desk] what they hear. A [Tracker] keeps it, forgets what is no longer fresh,
// and merges the sources into one answer. It never says program because of a
// source that is silent, broken or gone: such a source is unknown.
//
//	contact ──┐ Says, Alive                    Now
//	tally/tsl ┼───────────────► Tracker ────────────► status.Tally
//	tally/obs ┤ Gone, Missing      │ changed: also when a source turns stale
//	tally/vmix┘                    ▼
//
// One link serves all sources at one protocol and address. Whoever supervises
// a link starts it again after an error; a link does not try again by itself.
package tally

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"encoderd.example/daemon/status"
)

// ErrRefused marks an error after which the box must not try again by itself,
// such as being thrown out. Its text says what to do.
var ErrRefused = errors.New("refused")

// A Source is one thing that can say whether this camera is on program.
type Source struct {
	Name     string // unique
	Protocol string // for people
	Address  string // for people, without secrets
	Input    string // for people: which of the switcher's this camera is
	// Rule is how its words are read where Input does not say all of it: what was
	// read by another one counts for nothing.
	Rule string
	// Timeout is how long a sender may be silent before its word counts no
	// longer; 0 is for contacts, whose silence means nothing.
	Timeout time.Duration
}

// A Link listens to one switcher, port or line.
type Link interface {
	// Run tells d what it hears until ctx ends, which is no error, or until the
	// connection or port is lost. After an error that wraps [ErrRefused] it must
	// not be run again. One Run at a time.
	Run(ctx context.Context, d Desk) error
}

// A Desk takes what a link hears. Its methods may be called from any goroutine
// and return at once. A sender is one far side of the link, by its address, or
// "" where there can be only one. Several may speak for one source; see
// [Tracker]. Sources that are not of the desk, or are not followed any more as
// they were when it was made, are ignored.
type Desk interface {
	// Up says that the link stands: its port is open or its connection made.
	Up()
	// Says tells what a source is now: off, preview or program. It proves that
	// the sender is alive.
	Says(source, sender, state string)
	// Alive says that a sender has said something, whatever it was.
	Alive(sender string)
	// Bad says that a sender has said something that could not be understood,
	// which proves nothing.
	Bad(sender string, err error)
	// Gone says that the connection of a sender has ended: what it said counts
	// no longer.
	Gone(sender string, err error)
	// Missing says that the switcher is there but cannot tell of a source, such
	// as an input that does not exist.
	Missing(source string, why error)
}

// Merge says what the sources are together, and why: any that is program makes
// program; else any that is unknown makes unknown, for it might be program;
// else any preview makes preview.
func Merge(sources []status.TallySource) (state, reason string) {
	first := map[string]status.TallySource{}
	for _, s := range sources {
		if _, ok := first[s.State]; !ok {
			first[s.State] = s
		}
	}
	if s, ok := first[status.Program]; ok {
		return status.Program, s.Name + " says program" + dissent(s)
	}
	if s, ok := first[status.Unknown]; ok {
		return status.Unknown, s.Name + ": " + s.Error
	}
	if s, ok := first[status.Preview]; ok {
		return status.Preview, s.Name + " says preview" + dissent(s)
	}
	if len(sources) == 0 {
		return status.Off, "no tally source is set up"
	}
	return status.Off, "no switcher shows this camera"
}

// dissent names those who say something else than their source, or "".
func dissent(s status.TallySource) string {
	var others []string
	for _, o := range s.Senders {
		if o.State != s.State {
			others = append(others, fmt.Sprintf("%s says %s", o.Sender, o.State))
		}
	}
	if len(others) == 0 {
		return ""
	}
	return fmt.Sprintf(" by %s, but %s", s.Sender, strings.Join(others, ", "))
}

// An Opener opens what a link talks through: a connection or a serial port,
// which the caller closes, from another goroutine too. Read of a port may
// return 0 and no error when nothing came in its time.
type Opener func(ctx context.Context) (io.ReadWriteCloser, error)

// A dead far side is known after alive.Idle + alive.Count × alive.Interval.
var alive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}

// dialPatience is how long a connection may take to be made.
const dialPatience = 5 * time.Second

// Dial returns an Opener that connects to address, HOST:PORT, by network tcp
// or udp. A far side that vanishes without a word ends a TCP connection within
// half a minute.
func Dial(network, address string) Opener {
	d := net.Dialer{Timeout: dialPatience, KeepAliveConfig: alive}
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		return d.DialContext(ctx, network, address)
	}
}

// Listen returns a function that listens for TCP connections at address, whose
// far sides may not vanish without a word either.
func Listen(address string) func(ctx context.Context) (net.Listener, error) {
	l := net.ListenConfig{KeepAliveConfig: alive}
	return func(ctx context.Context) (net.Listener, error) { return l.Listen(ctx, "tcp", address) }
}

// ListenPackets returns a function that listens for UDP datagrams at address.
func ListenPackets(address string) func(ctx context.Context) (net.PacketConn, error) {
	var l net.ListenConfig
	return func(ctx context.Context) (net.PacketConn, error) { return l.ListenPacket(ctx, "udp", address) }
}

// Ended turns what ended a read into the error of a link: nil once ctx has
// ended, else one with words for the end of the connection.
func Ended(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the far side has closed the connection")
	}
	return err
}
