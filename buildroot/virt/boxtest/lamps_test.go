//go:build box

//nolint:thelper // a part of TestDaemonOnTheBoard, which is no helper
package boxtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"encoderd.example/buildroot/virt"
	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// lookBefore makes the unit write down how the lamps' lines are after the
// daemon's end, before its own command sees to them. Nobody starts it again.
const lookBefore = `set -e
cat > /run/lamps <<'END'
#!/bin/sh
for n in 1 5 6 7; do cat /run/panel/sim_gpio$n/value; done | xargs
END
chmod 755 /run/lamps
d=/run/systemd/system/encoderd.service.d; mkdir -p $d
{ echo '[Service]'; echo Restart=no; echo ExecStopPost=; echo 'ExecStopPost=+/bin/sh -c "/run/lamps > /run/lamps-before"'
  grep ^ExecStopPost= /usr/lib/systemd/system/encoderd.service; } > $d/90-lamps.conf
systemctl daemon-reload
systemctl start encoderd`

// shining is what all lamps do when nobody drives their lines.
const shining = "for n in 1 5 6 7; do echo pull-up > /run/panel/sim_gpio$n/pull; done\n"

// lampsOff kills a daemon on air and on program, then lets one hang, and looks
// at its lamps. gpio-sim gives a line back to its pull, which here has every
// lamp shine: so do drivers that keep a line as it was.
func lampsOff(t *testing.T, b *box) {
	rtmp := peer.StartNginx(t)
	b.Sh(t, lookBefore)
	far := newDisplay(t)
	for _, end := range []struct{ signal, result string }{{"KILL", "signal"}, {"STOP", "watchdog"}} {
		b.panelled(t, rtmp.Address, panelConfig+fmt.Sprintf("[[tally_out]]\nname = \"far\"\naddress = \"tcp://%s\"\ninput = 7\n", far.address))
		b.until(t, "the camera is coded", onAir)
		b.tells(t, 2, status.Program)
		b.press(t, lineStream)
		b.until(t, "the push is confirmed", pushing)
		b.lampsAgree(t, "on air and on program", map[string]string{"STREAM": "red", "TALLY": "red", "STAGE": "red", "REC": "off"})
		virt.Until(t, soon, "the display elsewhere is red", func() bool { return far.tally() == 2 })
		begin := time.Now()
		b.Sh(t, shining+"systemctl kill -s "+end.signal+" --kill-whom=main encoderd")
		virt.Until(t, soon, "the unit has ended", func() bool { return b.show(t, "ActiveState")["ActiveState"] == "failed" })
		t.Logf("%s: the unit has ended after %.1f s", end.signal, time.Since(begin).Seconds())
		b.wantShown(t, map[string]string{"Result": end.result, "NRestarts": "0"})
		if got := strings.Fields(b.Sh(t, "cat /run/lamps-before; /run/lamps")); strings.Join(got, " ") != "1 1 1 1 0 0 0 0" {
			t.Errorf("%s: before and after the unit's command the lamps are %v\n%s", end.signal, got, b.Sh(t, "journalctl -u encoderd -o cat --no-pager | tail"))
		}
		virt.Until(t, soon, "the display elsewhere is dark", func() bool { return far.tally() == 0 })
	}
}

// A display is one on the host that takes TSL UMD 3.1 by TCP.
type display struct {
	address string // as the guest calls it

	mu   sync.Mutex
	last byte // of the tallies
}

func newDisplay(t *testing.T) *display {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &display{address: strings.Replace(l.Addr().String(), "127.0.0.1", "10.0.2.2", 1)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { d.read(t.Context(), c) })
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
	return d
}

// read takes packets of 18 bytes until the connection or the test ends.
func (d *display) read(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	for packet := make([]byte, 18); ; {
		if _, err := io.ReadFull(c, packet); err != nil {
			return
		}
		d.mu.Lock()
		d.last = packet[1] & 0x0F
		d.mu.Unlock()
	}
}

func (d *display) tally() byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}
