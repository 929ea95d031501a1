//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// broadcast starts the daemon with a push that people have switched on.
func (b *box) broadcast(t *testing.T) *peer.Nginx {
	t.Helper()
	rtmp := peer.StartNginx(t)
	b.run(t, settings{fps: 10, push: rtmp.Address})
	b.do(t, "stream.start")
	b.until(t, "the push is confirmed", pushing)
	return rtmp
}

// back waits until everything is on air again after fault, by itself, and says
// how long that took.
func (b *box) back(t *testing.T, what string, fault func()) {
	t.Helper()
	since := b.status(t).Since
	begin := time.Now()
	fault()
	b.until(t, what+": the camera is coded again", func(s status.Box) bool { return s.Since.After(since) && onAir(s) })
	served := time.Since(begin)
	b.grab(t)
	b.until(t, what+": the push is confirmed again", pushing)
	t.Logf("%s: coded again after %.1f s, picture fetched by RTSP and push confirmed after %.1f s", what, served.Seconds(), time.Since(begin).Seconds())
}

// kill ends the program at once, three times.
func kill(t *testing.T, b *box) {
	rtmp := b.broadcast(t)
	for range 3 {
		b.back(t, "killed", func() { b.Sh(t, "systemctl kill -s KILL --kill-whom=main encoderd") })
	}
	b.wantShown(t, map[string]string{"NRestarts": "3", "ActiveState": "active", "SubState": "running"})
	if files := rtmp.Recordings(t); len(files) != 4 {
		t.Errorf("the RTMP server saw %d connections, want 4", len(files))
	}
}

// simulated runs the daemon on the software board, which has faults to order.
const simulated = `mkdir -p /run/systemd/system/encoderd.service.d
printf '[Service]\nExecStart=\nExecStart=/usr/bin/encoderd run --state /var/lib/encoderd --board sim\n' \
	> /run/systemd/system/encoderd.service.d/90-sim.conf
systemctl daemon-reload`

// hang stops the whole process, then only its encoder.
func hang(t *testing.T, b *box) {
	b.broadcast(t)
	b.back(t, "stopped", func() { b.Sh(t, "systemctl kill -s STOP --kill-whom=main encoderd") })
	b.wantWatchdog(t, 1)

	b.Sh(t, "systemctl stop encoderd\n"+simulated)
	b.broadcast(t)
	b.back(t, "encoder hangs", func() { b.do(t, "board.fault name=encoder-hung on=true") })
	b.wantWatchdog(t, 2)
	if got := b.Sh(t, "journalctl -u encoderd -o cat --no-pager"); !strings.Contains(got, "no progress service=encode/main") {
		t.Error("the journal does not name the service that hung")
	}
}

// wantWatchdog fails the test unless systemd has ended the daemon so often.
func (b *box) wantWatchdog(t *testing.T, times int) {
	t.Helper()
	b.wantShown(t, map[string]string{"NRestarts": "1", "ActiveState": "active"})
	journal := b.Sh(t, "journalctl -u encoderd -o cat --no-pager")
	if got := strings.Count(journal, "Watchdog timeout"); got != times {
		t.Errorf("the journal has %d watchdog timeouts, want %d", got, times)
	}
}
