package memory

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// A Pool is a set of mapped buffers of one layout; it implements [hw.Pool].
type Pool struct {
	layout  hw.Layout
	buffers []hw.Buffer

	once sync.Once
	err  error
}

// NewPool makes count buffers of l in sealed memfds, mapped for reading and
// writing. The caller closes it.
func NewPool(l hw.Layout, count int) (*Pool, error) {
	p := &Pool{layout: l}
	if _, err := Needs(l); err != nil {
		return nil, err
	}
	for range count {
		var fds []int
		for i := range l.Buffers() {
			fd, err := Create("encoderd-picture", roundUp(l.Sizes[i], os.Getpagesize()))
			if err != nil {
				closeAll(fds)
				return nil, errors.Join(err, p.Close())
			}
			fds = append(fds, fd)
		}
		if err := p.add(fds, true); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// Adopt makes a Pool of descriptors that somebody else has made: as many for
// each picture as l has buffers, all of picture 0 first. It checks and maps
// them, and closes them if it fails. Dma-bufs that cannot be mapped are taken
// as they are, without memory.
func Adopt(l hw.Layout, fds []int, write bool) (*Pool, error) {
	p := &Pool{layout: l}
	if _, err := Needs(l); err != nil {
		closeAll(fds)
		return nil, err
	}
	n := l.Buffers()
	for len(fds) >= n {
		if err := p.add(fds[:n], write); err != nil {
			closeAll(fds[n:])
			return nil, errors.Join(err, p.Close())
		}
		fds = fds[n:]
	}
	closeAll(fds)
	return p, nil
}

// add takes the descriptors of one picture, also if it fails.
func (p *Pool) add(fds []int, write bool) error {
	b := hw.Buffer{FDs: [3]int{-1, -1, -1}}
	copy(b.FDs[:], fds)
	p.buffers = append(p.buffers, b)
	own := &p.buffers[len(p.buffers)-1]
	for i, fd := range fds {
		if err := Check(fd, p.layout.Sizes[i]); err != nil {
			return err
		}
		var err error
		if own.Mem[i], err = Map(fd, p.layout.Sizes[i], write); err == nil {
			own.Shared[i] = shared(fd)
		} else if !IsDMABuf(fd) {
			return err
		}
	}
	return nil
}

// Share turns the pool's memfds into dma-bufs where the kernel can do so, and
// reports whether it did. It is for a fresh pool.
func (p *Pool) Share() bool {
	var made [][3]int
	for _, b := range p.buffers {
		fds := [3]int{-1, -1, -1}
		for i := range p.layout.Buffers() {
			fd, err := DMABuf(b.FDs[i], roundUp(p.layout.Sizes[i], os.Getpagesize()))
			if err != nil {
				for _, m := range append(made, fds) {
					closeAll(m[:])
				}
				return false
			}
			fds[i] = fd
		}
		made = append(made, fds)
	}
	for i := range p.buffers {
		closeAll(p.buffers[i].FDs[:])
		p.buffers[i].FDs = made[i]
		for j := range p.layout.Buffers() {
			p.buffers[i].Shared[j] = shared(made[i][j])
		}
	}
	return true
}

// Layout implements [hw.Pool].
func (p *Pool) Layout() hw.Layout { return p.layout }

// Buffers implements [hw.Pool].
func (p *Pool) Buffers() []hw.Buffer { return p.buffers }

// Close implements [hw.Pool]. It may be called more than once.
func (p *Pool) Close() error {
	p.once.Do(func() {
		for i := range p.buffers {
			p.err = errors.Join(p.err, p.Drop(i))
		}
	})
	return p.err
}

// Drop unmaps and closes one buffer before Close does; who still looks at its
// memory would fault. It is not for several goroutines at once.
func (p *Pool) Drop(index int) error {
	b := &p.buffers[index]
	var errs []error
	for i := range b.Mem {
		errs = append(errs, Unmap(b.Mem[i]))
	}
	closeAll(b.FDs[:])
	*b = hw.Buffer{FDs: [3]int{-1, -1, -1}}
	return errors.Join(errs...)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing was written to it
		}
	}
}
