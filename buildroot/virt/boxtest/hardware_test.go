//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"fmt"
	"strings"
	"testing"

	"encoderd.example/daemon/status"
)

// The board's encoder is lossless at this rate.
const generous = "12M"

const (
	webcam = "v4l2:platform:vivid-000#0"
	hdmi   = "v4l2:platform:vivid-000#1"
)

// codedBy reports whether the picture of the camera is coded by an encoder
// whose name begins so.
func codedBy(encoder string) func(status.Box) bool {
	return func(s status.Box) bool { return onAir(s) && strings.HasPrefix(s.Renditions[0].Encoder, encoder) }
}

const board = "v4l2:vh264enc"

// copiesNothing shows that the CPU moves no raw picture on its way from the
// camera to the encoder, and that none is lost on the way to ten viewers.
func copiesNothing(t *testing.T, b *box) {
	c := b.gather(t, webcam)
	b.settle(t)
	pass(t, b, passage{way: "export", pictures: 300})
	c.stayed(t)
	seen := c.leave(t)
	checkNumbers(t, seen, lossesOf(b.status(t)))
	checkStamps(t, seen, stamps(t, c.viewer.file, "v:0"), 15)
}

// cameraFaults is everything that vivid can do to a webcam.
func cameraFaults(t *testing.T, b *box) {
	c := b.gather(t, webcam)
	const camera, opened = "v4l2-ctl -d /dev/video0 -c ", "camera opened"
	const debug = "echo %d > /sys/class/video4linux/video0/dev_debug; " // 9: each call for buffers goes to the kernel's log
	for _, f := range []fault{
		{
			// it is offered again, and nobody notices
			name: "a buffer is refused", begin: fmt.Sprintf(debug, 9) + camera + "inject_vidioc_qbuf_error=1", end: fmt.Sprintf(debug, 0),
			meantime: answers("a buffer was refused", `dmesg | grep -q "VIDIOC_QBUF: error -22"`),
		},
		{
			name: "every fifth picture is lost", begin: camera + "percentage_of_dropped_buffers=20", end: camera + "percentage_of_dropped_buffers=0",
			meantime: grows("lost pictures are counted", 5, missed),
		},
		{
			name: "streaming dies", begin: camera + "inject_fatal_streaming_error=1", says: opened,
			meantime: grows("the slate is shown", 1, slates),
		},
		{
			name: "driver unloaded", slate: true, says: opened,
			begin: "echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind; for i in $(seq 100); do rmmod vivid && exit; sleep 0.1; done; exit 1",
			end:   "modprobe vivid " + vividParameters,
		},
	} {
		c.suffer(t, f)
	}
	b.until(t, "the board's encoder codes again", codedBy(board))
	c.leave(t)
}

// The controls of vivid's HDMI input, which take effect while it is selected.
const (
	node      = "v4l2-ctl -d /dev/video0 "
	plugHDMI  = node + "-i 1; " + node + "-c dv_timings_signal_mode=4; " + node + "-c dv_timings="
	hdmi25fps = "6" // 1280x720p25 in vivid's list of timings
	hdmi30fps = "7" // 1280x720p30
)

// hdmiFaults is what happens to an HDMI cable and what is behind it.
func hdmiFaults(t *testing.T, b *box) {
	b.Sh(t, plugHDMI+hdmi25fps)
	opened := func(rate int) string { return fmt.Sprintf("camera opened.* %d fps", rate) }
	c := b.gather(t, hdmi)
	if b.said(t, opened(25)) == 0 {
		t.Error("the camera was not opened at the source's rate")
	}
	for _, f := range []fault{
		{name: "no signal", slate: true, begin: node + "-c dv_timings_signal_mode=1", end: node + "-c dv_timings_signal_mode=4", says: opened(25)},
		{name: "no lock", slate: true, begin: node + "-c dv_timings_signal_mode=2", end: node + "-c dv_timings_signal_mode=4", says: opened(25)},
		{
			name: "another resolution", begin: node + "-c dv_timings=" + hdmi30fps, says: opened(30),
			meantime: answers("the camera was opened anew", `journalctl -u encoderd -o cat --no-pager | grep -q "`+opened(30)+`"`),
		},
		{
			name: "a resolution that nobody knows", slate: true, says: opened(30),
			begin: node + "-c dv_timings_signal_mode=3", end: node + "-c dv_timings_signal_mode=4",
		},
		{
			// the node is back as soon as it is closed: the slate is short
			name: "cable out and in", begin: node + "-c disconnect=1", says: opened(30),
			meantime: grows("the slate is shown", 1, slates),
		},
	} {
		c.suffer(t, f)
	}
	c.leave(t)
}

// encoderFaults is what the board's encoder can do to us: the ladder acts, the
// picture is back, and the watchdog has nothing to do.
func encoderFaults(t *testing.T, b *box) {
	const driver, fallsBack = "/sys/bus/platform/drivers/vh264enc/", "next=libx264"
	anew := fault{
		begin: "echo vh264enc.0 > " + driver + "unbind", meantime: missesEncoder,
		end: "echo vh264enc.0 > " + driver + "bind", coder: board,
	}
	c := b.gather(t, webcam)
	b.until(t, "the board's encoder codes", codedBy(board))
	for _, f := range []fault{
		{name: "a picture fails", begin: encoder("fail_in", 3), meantime: grows("it is counted", 1, dropped), coder: board},
		{
			name: "it takes 150 ms for a picture", begin: encoder("latency_us", 150_000), end: encoder("latency_us", 0),
			meantime: grows("pictures are dropped and counted", 5, dropped), coder: board,
		},
		{
			name: "it hangs for ever", begin: encoder("hang", 1), end: encoder("hang", 0), says: fallsBack,
			meantime: standsIn(status.EncoderFallback), coder: "libx264",
		},
		anew.called("it is plugged in anew"),
		{
			name: "it does not even stop", begin: encoder("hang_stop", 1) + encoder("hang", 1), end: encoder("hang", 0) + encoder("hang_stop", 0),
			says: "encoder is left behind", meantime: standsIn(status.EncoderFallback, status.DriverHangs), coder: "libx264",
		},
		anew.called("it is plugged in anew after that"),
	} {
		c.suffer(t, f)
	}
	b.until(t, "nothing hangs any more", func(s status.Box) bool { return !s.Has(status.DriverHangs) && !s.Has(status.EncoderFallback) })
	b.wantShown(t, map[string]string{"NRestarts": "0", "ActiveState": "active"})
	c.leave(t)
	b.Sh(t, encoder("max_instances", 0)+"systemctl restart encoderd")
	b.until(t, "an encoder without a free instance is stood in for", codedBy("libx264"))
}

func (f fault) called(name string) fault {
	f.name = name
	return f
}

// encoder sets a parameter of the board's encoder, in a script.
func encoder(name string, value int) string {
	return fmt.Sprintf("echo %d > /sys/module/vh264enc/parameters/%s; ", value, name)
}

// standsIn waits until software codes, and the box says why.
func standsIn(why ...status.FaultCode) func(*testing.T, *box, status.Box) {
	return func(t *testing.T, b *box, _ status.Box) {
		s := b.until(t, "software takes over", codedBy("libx264"))
		for _, code := range why {
			if !s.Has(code) {
				t.Errorf("%s is none of the faults %+v", code, s.Faults)
			}
		}
	}
}

// missesEncoder waits until software is no longer a spare: there is no other
// encoder.
func missesEncoder(t *testing.T, b *box, _ status.Box) {
	b.until(t, "the encoder is missing", func(s status.Box) bool { return codedBy("libx264")(s) && !s.Has(status.EncoderFallback) })
}
