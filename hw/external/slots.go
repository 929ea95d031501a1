package external

import (
	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
)

// A slot is an index that the device knows a buffer by.
type slot struct {
	used bool
	own  int // number of our own buffer plus one, or zero
	key  [3]memory.Identity
	// frames are lent under this index, the earliest first: the same frame may
	// be submitted again before it is back. Those of our own buffers are nil.
	frames []*hw.Frame
	since  uint64 // of the latest use
}

// slots are all that a device has been given. They are guarded by the
// encoder's lock; find and free only by its sender.
type slots struct {
	list  [wire.MaxBuffers]slot
	clock uint64
}

// find returns the index of a buffer that is attached, or -1.
func (s *slots) find(key [3]memory.Identity) int {
	for i := range s.list {
		if s.list[i].used && s.list[i].own == 0 && s.list[i].key == key {
			return i
		}
	}
	return -1
}

// findOwn returns the index of our own buffer n, or -1.
func (s *slots) findOwn(n int) int {
	for i := range s.list {
		if s.list[i].used && s.list[i].own == n+1 {
			return i
		}
	}
	return -1
}

// free returns an index for a new buffer and whether the device must first
// forget the one that has it. There always is one: no more than maxInflight
// are lent.
func (s *slots) free() (index int, detach bool) {
	best := -1
	for i := range s.list {
		switch l := &s.list[i]; {
		case !l.used:
			return i, false
		case len(l.frames) == 0 && (best < 0 || l.since < s.list[best].since):
			best = i
		}
	}
	return best, true
}

// idle is after how many pictures a buffer that did not come again is given
// up: a camera that was opened anew has others, and old ones hold its memory.
const idle = 64

// stale returns an index whose buffer has been idle, or -1.
func (s *slots) stale() int {
	for i := range s.list {
		if l := &s.list[i]; l.used && l.own == 0 && len(l.frames) == 0 && s.clock-l.since > idle {
			return i
		}
	}
	return -1
}

// lend marks an index as lent to the device, with the frame that comes back.
func (s *slots) lend(index int, f *hw.Frame) {
	s.clock++
	l := &s.list[index]
	l.since = s.clock
	l.frames = append(l.frames, f)
}

// take ends the earliest loan of an index. It reports false if there is none.
func (s *slots) take(index uint32) (*hw.Frame, bool) {
	if uint64(index) >= uint64(len(s.list)) || len(s.list[index].frames) == 0 {
		return nil, false
	}
	l := &s.list[index]
	f := l.frames[0]
	l.frames = append(l.frames[:0], l.frames[1:]...)
	return f, true
}

// clear forgets everything and returns the frames that were lent.
func (s *slots) clear() []*hw.Frame {
	var frames []*hw.Frame
	for i := range s.list {
		for _, f := range s.list[i].frames {
			if f != nil {
				frames = append(frames, f)
			}
		}
		s.list[i] = slot{}
	}
	return frames
}
