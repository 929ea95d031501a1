package tsl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/daemon/tally"
)

// Refresh is how often an [Out] says what it said before, so that displays know
// that it is alive and those that were switched on later light up.
const Refresh = time.Second

// sendPatience is how long the far side may take to accept a packet.
const sendPatience = 2 * time.Second

// An Out lights a display elsewhere by TSL 3.1. Its methods may be called from
// any goroutine. [NewOut] makes one.
type Out struct {
	open    tally.Opener
	channel Channel
	text    string
	news    chan struct{}

	mu    sync.Mutex
	state string
}

// NewOut returns an Out that shows text and the tally at the address and bits
// of channel, by what open opens.
func NewOut(open tally.Opener, channel Channel, text string) *Out {
	return &Out{open: open, channel: channel, text: text, news: make(chan struct{}, 1), state: status.Off}
}

// Show says what to show from now on: a state of the tally. Unknown lights
// nothing, for the display has no word for it. Show returns at once; of several
// states only the latest may be sent.
func (o *Out) Show(state string) {
	o.mu.Lock()
	o.state = state
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// Run sends the state at every change and every [Refresh] until ctx ends, and
// makes the display dark then, whose failure is an error. It returns an error
// when the far side is lost, too. live is called once it has accepted a packet.
func (o *Out) Run(ctx context.Context, live func()) error {
	conn, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	live = sync.OnceFunc(live)
	again := time.NewTicker(Refresh)
	defer again.Stop()
	for {
		if err := o.send(conn, o.shown()); err != nil {
			return err
		}
		live()
		select {
		case <-o.news:
		case <-again.C:
		case <-ctx.Done():
			return o.send(conn, status.Off)
		}
	}
}

// A display is darkened so often by [Out.Darken], and at such intervals.
const (
	darkTimes = 3
	darkEvery = 100 * time.Millisecond
)

// Darken makes the display dark after a Run that could not. It says so several
// times, for nobody answers and a packet may be lost; it ends before that only
// with ctx, or an error.
func (o *Out) Darken(ctx context.Context) error {
	conn, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer closing(ctx, conn)()
	for i := range darkTimes {
		if err := o.send(conn, status.Off); err != nil {
			return err
		}
		if i+1 < darkTimes && !rest(ctx, darkEvery) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// rest waits for d, and reports whether ctx still goes on then.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (o *Out) shown() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state
}

// send writes one packet. A far side that does not take it in its time is cut
// off.
func (o *Out) send(conn io.WriteCloser, state string) error {
	late := time.AfterFunc(sendPatience, func() { _ = conn.Close() })
	_, err := conn.Write(o.display(state).Append(nil))
	if !late.Stop() {
		return fmt.Errorf("the display takes nothing for %v", sendPatience)
	}
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) { // by UDP: it is off, and may be switched on
		return fmt.Errorf("send to the display: %w", err)
	}
	return nil
}

// display is the packet for a state.
func (o *Out) display(state string) Display31 {
	d := Display31{Address: o.channel.Address, Brightness: 3, Text: o.text}
	light := func(bit int) {
		if bit >= 1 && bit <= len(d.Tally) {
			d.Tally[bit-1] = true
		}
	}
	switch state {
	case status.Program:
		light(o.channel.ProgramBit)
	case status.Preview:
		light(o.channel.PreviewBit)
	}
	return d
}
