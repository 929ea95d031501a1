package fakevb2

import (
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// An inbox is the events of one opening. It follows v4l2-event.c: of each
// subscription one event waits, and what comes on top of it is merged into it.
type inbox struct {
	subs     []source
	waiting  []uapi.Event
	sequence uint32
}

type source struct{ typ, id uint32 }

func (b *inbox) poll() int16 {
	if len(b.waiting) > 0 {
		return unix.POLLPRI
	}
	return 0
}

func (b *inbox) put(e uapi.Event) {
	if !slices.Contains(b.subs, source{e.Type, e.ID}) {
		return
	}
	e.Sequence = b.sequence
	b.sequence++
	for i, w := range b.waiting {
		if w.Type == e.Type && w.ID == e.ID {
			e.Data[0] |= w.Data[0]
			b.waiting = slices.Delete(b.waiting, i, i+1)
			break
		}
	}
	b.waiting = append(b.waiting, e)
}

func (k *Kernel) subscribe(f *file, arg *uapi.EventSubscription) error {
	n := f.node
	switch arg.Type {
	case uapi.EventCtrl:
		if n.control(arg.ID) == nil {
			return unix.EINVAL
		}
	case uapi.EventSourceChange:
		if len(n.Receivers) == 0 && (n.Converter == nil || n.Converter.Finds == 0) {
			return unix.EINVAL
		}
	case uapi.EventEOS:
		if n.Encoder == nil {
			return unix.EINVAL
		}
	default:
		return unix.EINVAL
	}
	if s := (source{arg.Type, arg.ID}); !slices.Contains(f.inbox.subs, s) {
		f.inbox.subs = append(f.inbox.subs, s)
	}
	return nil
}

func (k *Kernel) unsubscribe(f *file, arg *uapi.EventSubscription) error {
	if arg.Type == uapi.EventAll {
		f.inbox = inbox{sequence: f.inbox.sequence}
		return nil
	}
	meant := source{arg.Type, arg.ID}
	f.inbox.subs = slices.DeleteFunc(f.inbox.subs, func(s source) bool { return s == meant })
	f.inbox.waiting = slices.DeleteFunc(f.inbox.waiting, func(e uapi.Event) bool { return source{e.Type, e.ID} == meant })
	return nil
}

func (k *Kernel) dqevent(f *file, arg *uapi.Event) error {
	if len(f.inbox.waiting) == 0 {
		return unix.ENOENT
	}
	*arg = f.inbox.waiting[0]
	f.inbox.waiting = f.inbox.waiting[1:]
	arg.Pending = uint32(len(f.inbox.waiting))
	return nil
}

// tell sends an event to all openings of n that want it, but for one.
func (k *Kernel) tell(n *Node, e uapi.Event, but *file) {
	e.Sec, e.Nsec = int64(k.now/1e9), int64(k.now%1e9)
	for _, v := range k.fds {
		if f, ok := v.(*file); ok && f.node == n && f != but && !f.gone() {
			f.inbox.put(e)
		}
	}
	k.moved.Broadcast()
}
