package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

func TestWhatWasOnAirIsOnAirAgainAfterAPowerCut(t *testing.T) {
	n := peer.StartNginx(t)
	p := start(t, settings{outputs: hall(n.URL("live"))})
	if !outputIs(status.Off)(p.now()) {
		t.Error("an output that starts by button is on air before anybody pressed it")
	}
	p.do("stream.start")
	p.do("audio.mute")
	p.until("the output on air", outputIs(status.Live))
	p.kill()
	p.launch()
	b := p.until("the output on air again", func(b status.Box) bool { return outputIs(status.Live)(b) && onDuty(b) })
	if !b.Sound.Muted {
		t.Error("the sound was muted before the power cut")
	}
	p.do("stream.stop")
	p.until("the output to be off", outputIs(status.Off))
	p.kill()
	p.launch()
	p.until("all renditions to be live", onDuty)
	p.frames(30)
	if !outputIs(status.Off)(p.now()) {
		t.Error("what was off is on after a power cut")
	}
}

func TestASecondDaemonOnTheSameStateIsRefused(t *testing.T) {
	p := start(t, settings{})
	code, _, stderr := p.command("run", "--board", "sim", "--state", p.state, "--config", p.config)
	if code != exitFailed || !containsAll(stderr, "another encoderd uses "+p.state, "--state") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	p.frames(15)
}

func TestTheEndIsInOrderAndWithAGoodbyeToEverybody(t *testing.T) {
	n := peer.StartNginx(t)
	p := start(t, settings{outputs: hall(n.URL("live"))})
	p.do("stream.start")
	v := p.view("main", "tcp")
	p.until("a reader and the output on air", func(b status.Box) bool { return watched(1)(b) && outputIs(status.Live)(b) })
	took := p.stop()
	t.Logf("the end took %v", took)
	if took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
	if err := v.Wait(t); err != nil {
		t.Errorf("the player ended with %v: %s", err, v.Log())
	}
	peer.Await(t, "the server to see the end", func() bool { return strings.Contains(n.Log(), "disconnect") })
	// A connection that merely breaks is logged as "disconnect" first.
	log := n.Log()
	if bye := strings.Index(log, "deleteStream"); bye < 0 || bye > strings.Index(log, "disconnect") {
		t.Errorf("the server saw no goodbye:\n%s", log)
	}
	if !containsAll(p.stderr.String(), "encoderd ends") {
		t.Error("the end was not logged")
	}
}

func TestHangupWithABrokenConfigChangesNothing(t *testing.T) {
	p := start(t, settings{})
	v := p.view("main", "tcp")
	before := p.until("a reader", watched(1))
	p.configure(settings{bitrate: "a lot"})
	p.signal(syscall.SIGHUP)
	p.logged("config stays as it was")
	if log := p.stderr.String(); !containsAll(log, "line 10: ", "is not a bit rate") {
		t.Errorf("it does not say what is wrong:\n%s", log)
	}
	code, _, stderr := p.command("do", "--state", p.state, "config.reload")
	if code != exitFailed || !containsAll(stderr, "line 10: ", "is not a bit rate", `"6M"`) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	p.frames(30)
	sameReaders(t, before, p.now())
	p.configure(settings{bitrate: "333k"})
	p.signal(syscall.SIGHUP)
	after := p.until("the new bit rate", func(b status.Box) bool { return b.Renditions[0].Target == 333_000 })
	sameReaders(t, before, after)
	v.Kill()
	decode(t, v.file, 320, 180).lost(t)
}

func TestRestartByCommandEndsTheProgramForSystemdToStart(t *testing.T) {
	p := start(t, settings{})
	p.do("box.restart")
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != exitFailed || !containsAll(p.stderr.String(), "restart was ordered") {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}
}
