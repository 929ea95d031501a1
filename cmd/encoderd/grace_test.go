package main

import (
	"strings"
	"testing"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// Who stops by mistake has some seconds to go on: with the same broadcast, on
// the same connection. What viewers saw in between is a still.
func TestAStopCanBeThoughtOver(t *testing.T) {
	n := peer.StartNginx(t)
	p := start(t, settings{outputs: hall(n.URL("live"))})
	p.do("stream.start")
	began := p.until("confirmation", outputIs(status.Live)).Outputs[0].Since
	before := p.now()
	p.frames(60)

	p.do("stream.stop", "grace=1m")
	slates := before.Input.Slate
	b := p.until("the still", func(b status.Box) bool { return b.Input.Slate > slates+15 })
	if b.Ending == nil || b.Outputs[0].State != status.Live || !b.Input.Signal || b.Has(status.NoPicture) {
		t.Errorf("after the stop: over at %v, output %+v, input %+v, faults %+v", b.Ending, b.Outputs[0], b.Input, b.Faults)
	}
	if l := b.Lamps["STREAM"]; l.Pattern == "off" || l.Pattern == "red" {
		t.Errorf("while a press would go on, the lamp is %+v", l)
	}

	p.do("stream.start")
	p.until("the camera", func(b status.Box) bool { return b.Ending == nil })
	p.frames(60)
	after := p.now()
	if since := after.Outputs[0].Since; since == nil || !since.Equal(*began) {
		t.Errorf("on air since %v, before since %v: that is another connection", since, began)
	}

	p.do("stream.stop", "grace=1m")
	slates = p.until("the stop", func(b status.Box) bool { return b.Ending != nil }).Input.Slate
	p.until("the still again", func(b status.Box) bool { return b.Input.Slate > slates+15 })
	p.do("stream.stop", "grace=1m") // meant
	p.until("the end", outputIs(status.Off))
	if b = p.now(); b.Ending != nil {
		t.Errorf("the show is over, and ends at %v", b.Ending)
	}
	p.do("stream.start")
	p.until("another show", outputIs(status.Live))
	p.do("stream.stop", "grace=200ms")
	p.until("an end that nobody stops", outputIs(status.Off))
	p.frames(30) // the camera's picture is back for those who watch here
	p.stop()

	peer.Await(t, "the goodbye", func() bool { return strings.Contains(n.Log(), "deleteStream") })
	n.Kill()
	records := n.Recordings(t)
	if len(records) != 2 {
		t.Fatalf("two shows left %d recordings", len(records))
	}
	m := decode(t, records[0], 320, 180)
	m.rises(t)
	if s := m.slates(); s < 15 {
		t.Errorf("%d stills are in the recording", s)
	}
	if m.pictures[len(m.pictures)-1].ok {
		t.Error("the last that viewers saw was the hall, after it was said to be over")
	}
	first, last := m.counters(t)
	if last-first < 120 {
		t.Errorf("the recording goes from picture %d to %d", first, last)
	}
}

func TestAPowerCutWhileAStopIsThoughtOverIsTheEnd(t *testing.T) {
	n := peer.StartNginx(t)
	p := start(t, settings{outputs: hall(n.URL("live"))})
	p.do("stream.start")
	p.until("confirmation", outputIs(status.Live))
	p.do("stream.stop", "grace=5m")
	p.until("the still", func(b status.Box) bool { return b.Ending != nil })
	p.kill()
	p.launch()
	b := p.until("the box to be back", onDuty)
	if b.Outputs[0].State != status.Off || b.Ending != nil {
		t.Errorf("after the power cut: %+v, over at %v", b.Outputs[0], b.Ending)
	}
}

func TestATimeToThinkThatIsNone(t *testing.T) {
	p := start(t, settings{outputs: hall("rtmp://192.0.2.1/live")})
	for _, grace := range []string{"soon", "-1s", "6m", "1"} {
		if code, _, said := p.command("do", "--state", p.state, "stream.stop", "grace="+grace); code == 0 || !strings.Contains(said, "grace=20s") {
			t.Errorf("grace=%s: code %d, %s", grace, code, said)
		}
	}
	p.do("stream.stop", "grace=20s") // nothing is on air: nothing to think over
	if b := p.now(); b.Ending != nil {
		t.Errorf("over at %v", b.Ending)
	}
}
