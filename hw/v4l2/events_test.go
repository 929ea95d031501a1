package v4l2_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

// hdmiBridge is a bridge whose second input is a digital one, with 1080p60 coming in.
func hdmiBridge() *fakevb2.Node {
	n := bridge()
	n.Inputs = 2
	full := fakevb2.Timings(1920, 1080, 60)
	n.Receivers = map[int]*fakevb2.Receiver{1: {Timings: full, Known: []uapi.DVTimings{full, fakevb2.Timings(1280, 720, 50)}}}
	n.Controls = []fakevb2.Control{
		{ID: cidSensed, Name: "Audio Sampling Rate", Max: 192000, Flags: uapi.CtrlFlagReadOnly},
		{ID: cidBig, Name: "Big", Type: uapi.CtrlTypeInteger64, Min: -1 << 40, Max: 1 << 40},
	}
	return n
}

// plugged opens the digital input of hdmiBridge.
func plugged(t *testing.T) (*fakevb2.Kernel, *fakevb2.Node, *v4l2.Device) {
	t.Helper()
	n := hdmiBridge()
	k, d := knobbed(t, n)
	if err := d.SetInput(1); err != nil {
		t.Fatal(err)
	}
	return k, n, d
}

func event(t *testing.T, d *v4l2.Device) v4l2.Event {
	t.Helper()
	if came, err := d.Wait(t.Context(), unix.POLLPRI); err != nil || came != unix.POLLPRI {
		t.Fatalf("got %#x, %v", came, err)
	}
	e, err := d.DequeueEvent()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEventsComeToThoseWhoSubscribed(t *testing.T) {
	k, n, d := plugged(t)
	nothing := func(why string) {
		t.Helper()
		if e, err := d.DequeueEvent(); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %+v, %v", why, e, err)
		}
	}
	change := func() { k.Change(n, 1, func(r *fakevb2.Receiver) { r.Signal = fakevb2.NoSignal }) }

	change()
	nothing("nobody has subscribed")
	if err := d.Subscribe(uapi.EventSourceChange, 0); err != nil {
		t.Fatal(err)
	}
	change()
	nothing("the subscription is of another input")
	for _, id := range []uint32{1, 1} { // twice is once
		if err := d.Subscribe(uapi.EventSourceChange, id); err != nil {
			t.Fatal(err)
		}
	}
	change()
	want := v4l2.Event{Type: uapi.EventSourceChange, ID: 1, Changes: uapi.EventSourceResolution, Stamp: k.Now()}
	if diff := cmp.Diff(want, event(t, d)); diff != "" {
		t.Error(diff)
	}
	nothing("it was one event")
}

func TestControlsTellTheirValues(t *testing.T) {
	k, n, d := plugged(t)
	for _, id := range []uint32{cidSensed, cidBig} {
		if err := d.Subscribe(uapi.EventCtrl, id); err != nil {
			t.Fatal(err)
		}
	}
	k.SetControl(n, cidSensed, 44100)
	k.SetControl(n, cidBig, -1<<35)
	k.SetControl(n, cidSensed, -2) // replaces the first
	for i, want := range []v4l2.Event{
		{Type: uapi.EventCtrl, ID: cidBig, Changes: uapi.EventCtrlValue, Value: -1 << 35, Pending: 1, Sequence: 1, Stamp: time.Hour},
		{Type: uapi.EventCtrl, ID: cidSensed, Changes: uapi.EventCtrlValue, Value: -2, Sequence: 2, Stamp: time.Hour},
	} {
		if diff := cmp.Diff(want, event(t, d)); diff != "" {
			t.Errorf("event %d: %s", i, diff)
		}
	}
	if err := d.SetControl(cidBig, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := d.DequeueEvent(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("who sets a control hears of it: %v", err)
	}
}

func TestASubscriptionToNothingIsRefused(t *testing.T) {
	_, d := knobbed(t, webcam())
	for _, tt := range []struct{ typ, id uint32 }{{uapi.EventSourceChange, 0}, {uapi.EventCtrl, cidHue}, {uapi.EventEOS, 0}, {99, 0}} {
		if err := d.Subscribe(tt.typ, tt.id); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestAWaitForFramesHearsEventsToo(t *testing.T) {
	k, n, d := plugged(t)
	if err := errors.Join(d.Subscribe(uapi.EventSourceChange, 1), d.SetTimings(mustQuery(t, d))); err != nil {
		t.Fatal(err)
	}
	setFormat(t, d, n.Type, code("NV12"), 0, 0)
	q, err := v4l2.NewQueue(d, n.Type, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(q.Enqueue(0), q.StreamOn()); err != nil {
		t.Fatal(err)
	}
	if came, err := d.Wait(t.Context(), unix.POLLIN|unix.POLLPRI); err != nil || came != unix.POLLIN {
		t.Fatalf("got %#x, %v", came, err)
	}
	if _, err := q.Dequeue(); err != nil {
		t.Fatal(err)
	}
	came := make(chan int16)
	go func() {
		events, err := d.Wait(t.Context(), unix.POLLIN|unix.POLLPRI)
		if err != nil {
			t.Error(err)
		}
		came <- events
	}()
	k.AwaitSleep()
	k.Change(n, 1, func(r *fakevb2.Receiver) { r.Timings = fakevb2.Timings(1280, 720, 50) })
	if got := <-came; got != unix.POLLPRI {
		t.Errorf("got %#x", got)
	}
	if err := q.Enqueue(0); err != nil {
		t.Error(err)
	}
	if _, err := d.DequeueEvent(); err != nil {
		t.Error(err)
	}
	d.Interrupt()
	if came, err := d.Wait(t.Context(), unix.POLLIN|unix.POLLPRI); err != nil || came != 0 {
		t.Errorf("got %#x, %v; want no picture while another signal comes in than is expected", came, err)
	}
	if err := errors.Join(q.StreamOff(), q.Discard()); err != nil {
		t.Error(err)
	}
}

func mustQuery(t *testing.T, d *v4l2.Device) v4l2.Timings {
	t.Helper()
	got, err := d.QueryTimings()
	if err != nil {
		t.Fatal(err)
	}
	return got
}
