package external

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/hw/yuv"
)

// maxWaiting bounds the pictures that wait for a unit: beyond it the oldest
// counts as swallowed.
const maxWaiting = 64

// A sender is the goroutine that hands pictures to the device.
type sender struct {
	*encoder

	bitrate int // that the device works at
	convert *yuv.Converter
	pool    *memory.Pool // for pictures that are copied; made when first needed
	// kept are duplicates of the descriptors behind each index: as long as we
	// hold them, no other memory has their identity.
	kept   [wire.MaxBuffers][]int
	warned bool
}

// run sends until Close or a failure.
func (s *sender) run() error {
	defer func() {
		for _, fds := range s.kept {
			wire.CloseAll(fds)
		}
	}()
	for {
		select {
		case <-s.closing:
			return nil
		case <-s.failed:
			return nil
		case r := <-s.queue:
			if err := s.send(r); err != nil {
				return err
			}
		}
	}
}

// send hands over one picture: in place if the device can read it, else as a
// copy.
func (s *sender) send(r request) error {
	index, err := s.inPlace(r.frame)
	if err != nil || index >= 0 {
		return s.submit(index, r.frame, r, err)
	}
	index, err = s.copyIn(r.frame)
	r.frame.Release()
	if errors.Is(err, hw.ErrUnsupported) && !errors.Is(err, hw.ErrGone) {
		s.drop(err)
		return nil
	}
	return s.submit(index, nil, r, err)
}

// drop gives up a picture that has been taken.
func (s *sender) drop(why error) {
	if s.dropped.Add(1); !s.warned {
		s.warned = true
		s.log.Warn("a picture cannot be coded", "device", s.id, "err", why)
	}
	s.mu.Lock()
	s.inside--
	s.mu.Unlock()
}

// submit lends a buffer to the device; the frame, if there is one, comes back
// with it. An error from before is passed on.
func (s *sender) submit(index int, f *hw.Frame, r request, before error) error {
	if before != nil {
		if f != nil {
			f.Release()
		}
		return before
	}
	s.mu.Lock()
	s.slots.lend(index, f)
	if len(s.stamps) == maxWaiting {
		s.stamps = append(s.stamps[:0], s.stamps[1:]...)
		s.swallowed.Add(1)
	}
	s.stamps = append(s.stamps, r.stamp)
	stale := s.slots.stale()
	s.mu.Unlock()
	if err := errors.Join(s.adapt(), s.detach(stale)); err != nil {
		return err
	}
	m := wire.Submit{Index: uint32(index), Stamp: int64(r.stamp)}
	if r.key {
		m.Flags = wire.KeyFrame
	}
	return s.proc.send(m)
}

// adapt follows the wanted bit rate.
func (s *sender) adapt() error {
	bps := int(s.wanted.Load())
	if bps == s.bitrate {
		return nil
	}
	s.bitrate = bps
	return s.proc.send(wire.Bitrate{BitsPerSecond: uint32(bps)})
}

// inPlace returns the index of f's memory, which it attaches if it is new, or
// -1 if the device cannot read it.
func (s *sender) inPlace(f *hw.Frame) (int, error) {
	fds, n, ok := s.direct(f)
	if !ok {
		return -1, nil
	}
	var key [3]memory.Identity
	for i, fd := range fds[:n] {
		var err error
		if key[i], err = memory.Identify(fd); err != nil {
			return -1, err
		}
	}
	s.mu.Lock()
	index := s.slots.find(key)
	s.mu.Unlock()
	if index >= 0 {
		return index, nil
	}
	for i, fd := range fds[:n] {
		if size, err := memory.Size(fd); err != nil || size < int64(s.layout.Sizes[i]) {
			return -1, err // too short for the device
		}
	}
	return s.attach(slot{used: true, key: key}, fds[:n])
}

// attach makes a buffer known to the device.
func (s *sender) attach(as slot, fds []int) (int, error) {
	s.mu.Lock()
	index, taken := s.slots.free()
	s.slots.list[index] = as
	s.mu.Unlock()
	if taken {
		if err := s.forget(index); err != nil {
			return -1, err
		}
	}
	for _, fd := range fds {
		kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("keep a picture's memory: %w", err)
		}
		s.kept[index] = append(s.kept[index], kept)
	}
	m := wire.Attach{Index: uint32(index)}
	if memory.IsDMABuf(fds[0]) {
		m.Flags = wire.DMABuf
	}
	return index, s.proc.send(m, s.kept[index]...)
}

// detach gives up a buffer that no longer comes; -1 is none.
func (s *sender) detach(index int) error {
	if index < 0 {
		return nil
	}
	s.mu.Lock()
	s.slots.list[index] = slot{}
	s.mu.Unlock()
	return s.forget(index)
}

// forget makes the device, and us, let go of the buffer behind an index.
func (s *sender) forget(index int) error {
	wire.CloseAll(s.kept[index])
	s.kept[index] = nil
	return s.proc.send(wire.Detach{Index: uint32(index)})
}

// copyIn writes f into one of our own buffers and returns its index.
func (s *sender) copyIn(f *hw.Frame) (int, error) {
	if err := s.copyable(f); err != nil {
		return -1, err
	}
	if s.pool == nil {
		pool, err := s.allocate(s.layout, s.limit)
		if err != nil {
			return -1, err
		}
		s.pool = pool
	}
	n, index := s.vacant()
	if n < 0 {
		return -1, errors.New("all buffers are at the device") // impossible: Submit counts
	}
	buffer := s.pool.Buffers()[n]
	if buffer.Mem[0] == nil {
		return -1, fmt.Errorf("its buffers cannot be mapped, and the picture must be copied: %w", hw.ErrUnsupported)
	}
	if err := s.fill(buffer, f); err != nil {
		return -1, err
	}
	if index >= 0 {
		return index, nil
	}
	return s.attach(slot{used: true, own: n + 1}, buffer.FDs[:s.layout.Buffers()])
}

// vacant returns one of our own buffers that the device does not have, and its
// index, -1 if it is not attached.
func (s *sender) vacant() (n, index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.pool.Buffers() {
		index := s.slots.findOwn(n)
		if index < 0 || len(s.slots.list[index].frames) == 0 {
			return n, index
		}
	}
	return -1, -1
}

// fill brings f to the device's layout.
func (s *sender) fill(b hw.Buffer, f *hw.Frame) error {
	hw.BeginAccess(f.Planes, hw.Reading)
	defer hw.EndAccess(f.Planes, hw.Reading)
	planes := f.Planes
	l := s.layout
	if f.FullRange || f.Pixel != l.Pixel || f.Width != l.Width || f.Height != l.Height {
		picture, err := s.converted(f)
		if err != nil {
			return err
		}
		planes = picture.Planes
		s.copied.Add(uint64(picture.Copied))
	}
	to := memory.Planes(l, b)
	hw.BeginAccess(to, hw.Writing)
	defer hw.EndAccess(to, hw.Writing)
	s.copied.Add(uint64(memory.Copy(to, planes, l.Pixel, l.Width, l.Height)))
	return nil
}

func (s *sender) converted(f *hw.Frame) (yuv.Picture, error) {
	if s.convert == nil || !s.convert.Fits(f.Mode) {
		c, err := yuv.New(f.Mode, hw.Mode{Pixel: s.layout.Pixel, Width: s.layout.Width, Height: s.layout.Height, Matrix: hw.BT709}) // as the protocol says of every picture
		if err != nil {
			return yuv.Picture{}, err
		}
		s.convert = c
	}
	return s.convert.Convert(f)
}
