//go:build box

//nolint:thelper // a part of TestDaemonOnTheBoard and its steps, which are no helpers
package boxtest

import (
	"strings"
	"testing"

	"encoderd.example/buildroot/virt"
)

// plugLEDs makes two LEDs, which are there as long as the guest is.
const plugLEDs = `set -e
modprobe uleds
modprobe ledtrig-timer
cat > /run/led <<'END'
#!/bin/bash
printf "%-64s\x64\0\0\0" "$1" | tr ' ' '\0' > /run/$1
exec 3<> /dev/uleds
cat /run/$1 >&3
exec cat <&3 > /run/$1-levels
END
chmod 755 /run/led
for name in virt:mute virt:other; do
	systemd-run -q /run/led $name
	timeout 120 sh -c "until test -e /sys/class/leds/$name; do sleep 0.1; done"
done
udevadm settle
mkdir -p /run/systemd/system/encoderd.service.d
printf '[Service]\nRestart=no\n' > /run/systemd/system/encoderd.service.d/90-leds.conf
systemctl daemon-reload`

// muteLamp has an LED show what the sound does; there is no such sound card.
const muteLamp = `[[lamp]]
name = "MUTE"
pin = "led:virt:mute"
shows = "mute"
`

// setTimer is done by the daemon's user where the daemon is: udev lets it set
// a timer that it has just switched on.
const setTimer = `cat > /run/work/timer <<'END'
set -e
cd /sys/class/leds/virt:other
echo timer > trigger
until test -w delay_on && test -w delay_off; do sleep 0.1; done
echo 125 > delay_on
echo 250 > delay_off
echo $(cat delay_on delay_off)
echo none > trigger
END
timeout 120 nsenter -t $(systemctl show encoderd -p MainPID --value) -m \
	setpriv --reuid=encoderd --regid=encoderd --init-groups bash -c "$(cat /run/work/timer)"`

// leds looks at a lamp that is an LED, through all that the unit forbids.
func leds(t *testing.T, b *box) {
	b.Sh(t, plugLEDs)
	b.configure(t, strings.Replace(settings{}.toml(), "alsa:Loopback,1", "alsa:Missing", 1)+muteLamp)
	b.Sh(t, "systemctl start encoderd")
	if got := b.Sh(t, setTimer); got != "125 250\n" {
		t.Errorf("a timer was set to %q", got)
	}
	virt.Until(t, soon, "the lamp blinks: no sound", func() bool { return b.blinked(t) > 3 })
	t.Logf("it blinks by the trigger %s", b.led(t))
	b.do(t, "audio.mute")
	virt.Until(t, soon, "the lamp shines: muted", func() bool { return b.led(t) == "none 100" })
	b.Sh(t, "systemctl kill -s KILL --kill-whom=main encoderd")
	virt.Until(t, soon, "the unit has ended", func() bool { return b.show(t, "ActiveState")["ActiveState"] == "failed" })
	if got := b.led(t); got != "none 0" {
		t.Errorf("after the end the LED's trigger and brightness are %s\n%s", got, b.Sh(t, "journalctl -u encoderd -o cat --no-pager | tail"))
	}
}

// led returns the lamp's trigger and brightness.
func (b *box) led(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(b.Sh(t, `cd /sys/class/leds/virt:mute; echo $(grep -o '\[.*\]' trigger | tr -d '[]') $(cat brightness)`))
}

// blinked counts how often the lamp became bright.
func (b *box) blinked(t *testing.T) int {
	t.Helper()
	return strings.Count(b.Sh(t, "od -An -v -w4 -td4 /run/virt:mute-levels"), "100")
}
