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

// vividParameters are those of the board, see setup.sh.
const vividParameters = "n_devs=2 node_types=0x1,0x1 num_inputs=2,1 input_types=0xc,0x0"

// replug takes the camera away in three ways and gives it back while a viewer
// and a push are connected.
func replug(t *testing.T, b *box) {
	rtmp := peer.StartNginx(t)
	b.run(t, settings{fps: 10, camera: "v4l2:platform:vivid-000", push: rtmp.Address})
	b.do(t, "stream.start")
	b.until(t, "the push is confirmed", pushing)
	v := b.watch(t)
	before := b.status(t)
	faults := []struct{ name, takeAway, giveBack string }{
		// vivid comes back when its last user has closed it, here the shell
		{
			"disconnected while streaming",
			// Type=exec: started means that it has the camera open
			"set -e; systemd-run -q --unit=holder -p Type=exec -p StandardInput=file:/dev/video0 sleep infinity\n" +
				"v4l2-ctl -d /dev/video0 -c disconnect=1",
			"systemctl stop holder",
		},
		{
			"unbound from its driver",
			"echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind",
			"echo vivid.0 > /sys/bus/platform/drivers/vivid/bind",
		},
		{
			"driver unloaded",
			"echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind; for i in $(seq 100); do rmmod vivid && exit; sleep 0.1; done; exit 1",
			"modprobe vivid " + vividParameters,
		},
	}
	for _, f := range faults {
		b.settle(t)
		s := b.status(t)
		b.Sh(t, f.takeAway)
		b.until(t, f.name+": the slate is shown", func(now status.Box) bool {
			return !now.Input.Signal && now.Input.Slate >= s.Input.Slate+20
		})
		begin := time.Now()
		b.Sh(t, f.giveBack)
		b.until(t, f.name+": the picture returns", onAir)
		t.Logf("%s: the picture is back after %.1f s", f.name, time.Since(begin).Seconds())
	}
	b.settle(t)
	after := b.status(t)
	if len(after.Readers) != 1 || after.Readers[0].Peer != before.Readers[0].Peer || !after.Readers[0].Since.Equal(before.Readers[0].Since) {
		t.Errorf("viewers %+v, want the one from before: %+v", after.Readers, before.Readers)
	}
	if o := after.Outputs[0]; o.State != status.Live || !o.Since.Equal(*before.Outputs[0].Since) {
		t.Errorf("the push is %s since %v, want live since %v", o.State, o.Since, before.Outputs[0].Since)
	}
	if files := rtmp.Recordings(t); len(files) != 1 {
		t.Errorf("the RTMP server saw %d connections, want 1", len(files))
	}
	b.do(t, "stream.stop")
	v.Kill()
	b.until(t, "the push has ended", func(s status.Box) bool { return s.Outputs[0].State == status.Off })
	for name, file := range map[string]string{"viewer": v.file, "RTMP server": rtmp.Recordings(t)[0]} {
		if slates := runs(numbers(t, file)); slates < len(faults) {
			t.Errorf("%s: %d runs of slates between pictures of the camera, want %d", name, slates, len(faults))
		}
	}
	if said := v.Log(); strings.Contains(said, "reconnect") {
		t.Errorf("the viewer had to connect again:\n%s", said)
	}
}

// runs counts the slates, one run of them as one, that pictures of the camera
// follow and precede.
func runs(numbers []int) (n int) {
	seen, slate := false, false
	for _, number := range numbers {
		if number == noNumber {
			slate = seen
			continue
		}
		if slate {
			n++
		}
		seen, slate = true, false
	}
	return n
}
