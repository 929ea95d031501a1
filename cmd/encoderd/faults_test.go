package main

import (
	"slices"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// Everything that can happen to camera and microphone, one after the other,
// while a player and a destination are connected.
func TestNoFaultOfCameraOrSoundEndsAConnection(t *testing.T) {
	n := peer.StartNginx(t)
	p := start(t, settings{outputs: hall(n.URL("live"))})
	p.do("stream.start")
	v := p.view("main", "tcp")
	first := p.until("a reader and the output on air", func(b status.Box) bool { return watched(1)(b) && outputIs(status.Live)(b) })
	noPicture := func(b status.Box) bool { return !b.Input.Signal }
	picture := func(b status.Box) bool { return b.Input.Signal }
	sound := func(b status.Box) bool { return b.Sound.Signal }
	steps := []struct {
		fault      string
		then, back func(status.Box) bool // while it is on, once it is off
		code       status.FaultCode
	}{
		{"camera-unplugged", noPicture, picture, status.NoPicture},
		{"camera-frozen", noPicture, picture, status.NoPicture},
		{"camera-empty", func(b status.Box) bool { return b.Input.Signal && b.Input.Damaged > 20 }, picture, ""},
		{"camera-noise-stamps", picture, picture, ""},
		{"mic-unplugged", func(b status.Box) bool { return !b.Sound.Signal }, sound, status.NoSound},
		{"mic-overrun", func(b status.Box) bool { return b.Sound.Xruns >= 2 }, sound, ""},
		{"mic-clock+300ppm", sound, sound, ""},
		{"mic-clock-300ppm", sound, sound, ""},
		{"silence", func(b status.Box) bool { return b.Sound.Signal && b.Sound.PeakDBFS < -80 }, func(b status.Box) bool { return b.Sound.PeakDBFS > -50 }, ""},
	}
	for _, s := range steps {
		p.fault(s.fault, true)
		p.until(s.fault+" to show", func(b status.Box) bool {
			return s.then(b) && (s.code == "" || b.Has(s.code) && b.State == status.Degraded)
		})
		p.frames(45)
		p.fault(s.fault, false)
		b := p.until("the end of "+s.fault, func(b status.Box) bool { return s.back(b) && len(b.Faults) == 0 && b.State == status.Live })
		sameReaders(t, first, b)
		if o := b.Outputs[0]; !o.Since.Equal(*first.Outputs[0].Since) || o.Lost > 0 {
			t.Errorf("%s: the output was %+v, is %+v", s.fault, first.Outputs[0], o)
		}
	}
	p.frames(60)
	last := p.now()
	v.Kill()
	p.stop()
	n.Kill()
	records := n.Recordings(t)
	if len(records) != 1 {
		t.Fatalf("the server saw %d connections, want one", len(records))
	}
	for _, file := range []string{v.file, records[0]} {
		m := decode(t, file, 320, 180)
		m.rises(t)
		slates := m.slates()
		t.Logf("%d pictures, of which %d slates (the box counts %d), at most %v apart; %d packets of sound",
			len(m.pictures), slates, last.Input.Slate, m.longest(), len(m.sound))
		if slates < 60 || m.longest() > time.Second {
			t.Errorf("%d slates, pictures up to %v apart", slates, m.longest())
		}
		m.steady(t)
		m.inStep(t, 15)
		if o := m.offsets(); slices.Max(o) > 60*time.Millisecond || slices.Min(o) < -60*time.Millisecond {
			t.Errorf("a beep is between %v and %v off its picture", slices.Min(o), slices.Max(o))
		}
	}
}

func TestABusyCameraAtTheStartIsFoundLater(t *testing.T) {
	p := start(t, settings{})
	v := p.view("main", "tcp")
	before := p.until("a reader", watched(1))
	p.fault("camera-busy", true)
	p.fault("camera-unplugged", true)
	p.until("the slate", func(b status.Box) bool { return !b.Input.Signal })
	p.fault("camera-unplugged", false) // found, but another program has it
	b := p.until("the reason", func(b status.Box) bool {
		return b.Has(status.NoPicture) && slices.ContainsFunc(b.Faults, func(f status.Fault) bool { return containsAll(f.Text, "busy") })
	})
	t.Logf("faults: %+v", b.Faults)
	p.frames(30)
	p.fault("camera-busy", false)
	after := p.until("the picture", func(b status.Box) bool { return b.Input.Signal })
	p.frames(30)
	sameReaders(t, before, after)
	v.Kill()
	m := decode(t, v.file, 320, 180)
	if s := m.pictures[len(m.pictures)-1]; !s.ok {
		t.Error("the last picture is a slate")
	}
}
