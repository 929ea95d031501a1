//go:build box

//nolint:thelper // a part of TestDaemonOnTheBoard, which is no helper
package boxtest

import (
	"strings"
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
	for _, end := range []struct{ signal, result string }{{"KILL", "signal"}, {"STOP", "watchdog"}} {
		b.panelled(t, rtmp.Address)
		b.until(t, "the camera is coded", onAir)
		b.tells(t, 2, status.Program)
		b.press(t, lineStream)
		b.until(t, "the push is confirmed", pushing)
		b.lampsAgree(t, "on air and on program", map[string]string{"STREAM": "red", "TALLY": "red", "STAGE": "red", "REC": "off"})
		begin := time.Now()
		b.Sh(t, shining+"systemctl kill -s "+end.signal+" --kill-whom=main encoderd")
		virt.Until(t, soon, "the unit has ended", func() bool { return b.show(t, "ActiveState")["ActiveState"] == "failed" })
		t.Logf("%s: the unit has ended after %.1f s", end.signal, time.Since(begin).Seconds())
		b.wantShown(t, map[string]string{"Result": end.result, "NRestarts": "0"})
		if got := strings.Fields(b.Sh(t, "cat /run/lamps-before; /run/lamps")); strings.Join(got, " ") != "1 1 1 1 0 0 0 0" {
			t.Errorf("%s: before and after the unit's command the lamps are %v\n%s", end.signal, got, b.Sh(t, "journalctl -u encoderd -o cat --no-pager | tail"))
		}
	}
}
