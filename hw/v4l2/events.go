package v4l2

import (
	"time"

	"encoderd.example/hw/v4l2/uapi"
)

// An Event is news from a driver.
type Event struct {
	Type uint32 // uapi.Event…
	ID   uint32 // of the input, pad or control that it is about
	// Changes are bits: uapi.EventSource… of a source change, uapi.EventCtrl… of
	// a control.
	Changes  uint32
	Value    int64         // of the control
	Pending  int           // how many more wait
	Sequence uint32        // a gap means lost events
	Stamp    time.Duration // CLOCK_MONOTONIC
}

// Subscribe asks for events of one type and source: id is the input of a video
// node, the pad of a subdevice, the ID of a control, and zero of others. Wait
// for unix.POLLPRI. The subscription ends with the device.
func (d *Device) Subscribe(typ, id uint32) error {
	return Ioctl(d, "subscribe to events of", uapi.SubscribeEvent, &uapi.EventSubscription{Type: typ, ID: id})
}

// DequeueEvent takes the oldest event. The error wraps [unix.ENOENT] if there is
// none.
func (d *Device) DequeueEvent() (Event, error) {
	var e uapi.Event
	if err := Ioctl(d, "take an event of", uapi.DQEvent, &e); err != nil {
		return Event{}, err
	}
	event := Event{
		Type: e.Type, ID: e.ID, Pending: int(e.Pending), Sequence: e.Sequence,
		Stamp: time.Duration(e.Sec)*time.Second + time.Duration(e.Nsec),
	}
	switch e.Type {
	case uapi.EventSourceChange:
		event.Changes = e.Data[0]
	case uapi.EventCtrl:
		event.Changes = e.Data[0]
		event.Value = int64(int32(e.Data[2]))
		if e.Data[1] == uapi.CtrlTypeInteger64 {
			event.Value = int64(e.Data[2]) | int64(e.Data[3])<<32
		}
	}
	return event, nil
}
