package picture

import (
	"sync"

	"encoderd.example/hw"
)

// Buffers is how many frames of one painter can be lent at the same time.
const Buffers = 8

// A pool lends frames whose background is already painted.
type pool struct {
	count      int                                                  // of buffers
	build      func(n int, free func(*hw.Frame)) (*hw.Frame, error) // makes buffer n
	background func(*hw.Frame)

	mu   sync.Mutex
	free []*hw.Frame // room for all, so that giving back allocates nothing
	made int
}

func newPool(mode hw.Mode, background func(*hw.Frame)) *pool {
	return &pool{
		count: Buffers, background: background, free: make([]*hw.Frame, 0, Buffers),
		build: func(_ int, free func(*hw.Frame)) (*hw.Frame, error) { return hw.NewMemoryFrame(mode, free) },
	}
}

// newSharedPool paints in memory of somebody else's.
func newSharedPool(shared hw.Pool, fps hw.Rate, background func(*hw.Frame)) *pool {
	buffers := shared.Buffers()
	return &pool{
		count: len(buffers), background: background, free: make([]*hw.Frame, 0, len(buffers)),
		build: func(n int, free func(*hw.Frame)) (*hw.Frame, error) {
			return hw.NewSharedFrame(shared.Layout(), buffers[n], fps, free), nil
		},
	}
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
	if p.made == p.count {
		return nil
	}
	f, err := p.build(p.made, p.giveBack)
	if err != nil {
		panic(err) // impossible: paintable has accepted the mode
	}
	p.made++
	hw.BeginAccess(f.Planes, hw.Writing)
	p.background(f)
	hw.EndAccess(f.Planes, hw.Writing)
	return f.Lend()
}

func (p *pool) giveBack(f *hw.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, f)
}
