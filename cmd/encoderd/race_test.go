package main

import (
	"net/http"
	"path/filepath"
	"syscall"
	"testing"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// The race detector needs C, which the program of the other tests has not.
func TestTheRaceDetectorFindsNothingWhileEverythingChanges(t *testing.T) {
	n := peer.StartNginx(t)
	s := settings{sub: true, outputs: hall(n.URL("live"))}
	p := prepare(t, s)
	p.program = filepath.Join(t.TempDir(), "encoderd-race")
	// With paths, it shares what the tests are built of.
	if err := build(p.program, "CGO_ENABLED=1", "-race", "-trimpath=false"); err != nil {
		t.Fatal(err)
	}
	p.launch()
	p.until("all renditions to be live", onDuty)
	v := []viewer{p.view("main", "tcp"), p.view("main", "udp"), p.view("sub", "tcp")}
	p.do("stream.start")
	p.until("readers", watched(len(v)))
	for _, fault := range []string{"camera-unplugged", "mic-unplugged", "mic-clock+300ppm", "camera-noise-stamps"} {
		p.fault(fault, true)
		p.frames(15)
		p.fault(fault, false)
		p.overTCP(http.MethodGet, "/live/main.jpg")
		p.overTCP(http.MethodGet, "/metrics")
	}
	for _, gop := range []string{"2s", "1s"} {
		s.gop, s.bitrate = gop, "300k"
		p.configure(s)
		p.signal(syscall.SIGHUP)
		p.do("config.reload")
		p.do("audio.toggle")
		p.do("box.identify")
		p.frames(15)
	}
	v[0].Kill()
	n.Kill()
	p.until("the loss of the server", outputIs(status.Backoff))
	n.Restart(t)
	p.do("stream.start")
	p.until("the output on air", outputIs(status.Live))
	p.stop() // wants no report of the detector
}
