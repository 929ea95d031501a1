//go:build box

//nolint:thelper // a part of TestDaemonOnTheBoard, which is no helper
package boxtest

import (
	"strings"
	"testing"

	"encoderd.example/buildroot/virt"
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

// lampsOff kills the daemon and looks at its lamps. gpio-sim gives a line back
// to its pull, which here has every lamp shine: so do drivers that keep a line
// as it was.
func lampsOff(t *testing.T, b *box) {
	b.Sh(t, lookBefore)
	virt.Until(t, soon, "the daemon has its lamps", func() bool {
		out, rc, err := b.Try("gpioinfo | grep output | grep -c encoderd")
		return err == nil && rc == 0 && strings.TrimSpace(out) == "4"
	})
	b.Sh(t, "for n in 1 5 6 7; do echo pull-up > /run/panel/sim_gpio$n/pull; done; systemctl kill -s KILL --kill-whom=main encoderd")
	virt.Until(t, soon, "the unit has ended", func() bool { return b.show(t, "ActiveState")["ActiveState"] == "failed" })
	if got := strings.Fields(b.Sh(t, "cat /run/lamps-before; /run/lamps")); strings.Join(got, " ") != "1 1 1 1 0 0 0 0" {
		t.Errorf("before and after the unit's command the lamps are %v\n%s", got, b.Sh(t, "journalctl -u encoderd -o cat --no-pager | tail"))
	}
}
