package picture

import (
	"sync"

	"encoderd.example/hw"
)

// Buffers is how many frames of one painter can be lent at the same time.
const Buffers = 8

// A pool lends frames whose background is already painted.
type pool struct {
	mode       hw.Mode
	background func(*hw.Frame)

	mu   sync.Mutex
	free []*hw.Frame // room for all, so that giving back allocates nothing
	made int
}

func newPool(mode hw.Mode, background func(*hw.Frame)) *pool {
	return &pool{mode: mode, background: background, free: make([]*hw.Frame, 0, Buffers)}
}

// lend returns a frame with one reference, or nil if all are out. Buffers are
// made when they are first needed.
func (p *pool) lend() *hw.Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		f := p.free[n-1]
		p.free = p.free[:n-1]
		return f.Lend()
	}
	if p.made == Buffers {
		return nil
	}
	f, err := hw.NewMemoryFrame(p.mode, p.giveBack)
	if err != nil {
		panic(err) // impossible: paintable has accepted the mode
	}
	p.made++
	p.background(f)
	return f.Lend()
}

func (p *pool) giveBack(f *hw.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, f)
}
