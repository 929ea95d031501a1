//go:build board && (arm64 || amd64)

package main

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// player writes sound without end: silence, and a beep at each instant. Frames
// count from the start of the program and go on over breaks.
type player struct {
	card         *pcm
	beep         int64 // length in frames
	start, every int64 // the instants, CLOCK_MONOTONIC

	mu      sync.Mutex
	zero    clockFit
	first   int64   // frame at which the running stream began
	written int64   // next frame to write
	beeps   []int64 // first frames of the beeps so far; lost if none was played
	xruns   int
}

const lost = -1

// The player writes blocks of 10 ms and keeps up to a second of them written in
// advance, so that a busy host does not let the card run empty.
const blocks = 100

func (p *player) run(ctx context.Context) error {
	block := make([]int16, 2*p.card.rate/blocks)
	for ctx.Err() == nil {
		if err := p.look(); err != nil {
			return err
		}
		p.fill(block)
		err := p.card.write(block)
		switch {
		case errors.Is(err, unix.EPIPE):
			if err := p.again(); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			p.mu.Lock()
			p.written += int64(len(block) / 2)
			p.mu.Unlock()
		}
	}
	return nil
}

// again restarts a stream that ran empty. The frames that follow are played
// later than planned, so the fit begins anew.
func (p *player) again() error {
	if err := p.card.prepare(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.xruns++
	p.first, p.zero = p.written, clockFit{}
	return nil
}

// look feeds the clock fit with where the card is now.
func (p *player) look() error {
	s, err := p.card.status()
	if err != nil || s.state != stateRunning {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.zero.add(s.tstamp.Nano(), p.nanos(int64(s.hwPtr)))
	return nil
}

func (p *player) nanos(frames int64) int64 {
	return frames * int64(time.Second) / int64(p.card.rate)
}

// played returns when the n-th beep was played, as known by now, and the breaks
// so far. A beep that a break has swallowed is 0.
func (p *player) played(n int) (at int64, xruns int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	zero, ok := p.zero.value()
	if !ok || n >= len(p.beeps) || p.beeps[n] < p.first {
		return 0, p.xruns
	}
	return zero + p.nanos(p.beeps[n]-p.first), p.xruns
}

// fill renders the next block, both channels alike.
func (p *player) fill(block []int16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	frames := len(block) / 2
	p.place(int64(frames))
	clear(block)
	for _, b := range p.beeps[max(0, len(p.beeps)-2):] {
		for i := range frames {
			n := p.written + int64(i) - b
			if b == lost || n < 0 || n >= p.beep {
				continue
			}
			// a cosine: the first sample is a loud one, the edge is sharp
			v := int16(math.Round(0.5 * math.MaxInt16 * math.Cos(2*math.Pi*1000*float64(n)/float64(p.card.rate))))
			block[2*i], block[2*i+1] = v, v
		}
	}
}

// place decides on the frame of the next beep if it begins in this block.
func (p *player) place(frames int64) {
	zero, ok := p.zero.value()
	if !ok {
		return
	}
	at := p.start + int64(len(p.beeps))*p.every
	frame := p.first + int64(math.Round(float64(at-zero)*float64(p.card.rate)/float64(time.Second)))
	switch {
	case frame >= p.written+frames:
	case frame >= p.written-frames: // the fit has moved a little since the last block
		p.beeps = append(p.beeps, max(frame, p.written))
	default:
		p.beeps = append(p.beeps, lost)
	}
}

// clockFit finds the instant at which frame 0 was played. A pointer that moves
// in ticks is late by up to one tick, never early: the smallest difference is
// the true one. Two windows of two seconds follow a card whose clock drifts.
type clockFit struct {
	now, last window
}

type window struct {
	begin, least int64
}

const fitWindow = int64(2 * time.Second)

func (c *clockFit) add(t, played int64) {
	if c.now.begin == 0 || t-c.now.begin > fitWindow {
		c.last, c.now = c.now, window{begin: t, least: t - played}
		return
	}
	c.now.least = min(c.now.least, t-played)
}

func (c *clockFit) value() (int64, bool) {
	if c.last.begin != 0 && c.now.begin != 0 {
		return min(c.last.least, c.now.least), true
	}
	return c.now.least, c.now.begin != 0
}
