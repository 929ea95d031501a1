//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/buildroot/virt"
	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// The board's encoder is lossless at this rate.
const generous = "12M"

const (
	webcam = "v4l2:platform:vivid-000#0"
	hdmi   = "v4l2:platform:vivid-000#1"
)

// A crowd is a push and ten viewers, who must all stay connected.
type crowd struct {
	box    *box
	rtmp   *peer.Nginx
	viewer viewer // keeps what it gets
	before status.Box
	bytes  map[string]uint64 // that each viewer had got at the last look
}

const others = 9 // viewers who only read

// gather starts the daemon with the hardware encoder and lets everybody come.
func (b *box) gather(t *testing.T, camera string) *crowd {
	t.Helper()
	c := &crowd{box: b, rtmp: peer.StartNginx(t), bytes: map[string]uint64{}}
	b.run(t, settings{fps: 15, camera: camera, encoder: "auto", bitrate: generous, push: c.rtmp.Address})
	b.do(t, "stream.start")
	b.until(t, "the push is confirmed", pushing)
	c.viewer = b.watch(t)
	for range others {
		peer.Start(t, "ffmpeg", "-v", "warning", "-rtsp_transport", "tcp", "-i", b.rtsp(), "-map", "0", "-c", "copy", "-f", "null", "-")
	}
	c.before = b.until(t, "everybody watches", func(s status.Box) bool { return len(s.Readers) == 1+others })
	return c
}

// stayed fails the test unless everybody is connected as at the beginning, and
// has got more since the last look.
func (c *crowd) stayed(t *testing.T) {
	t.Helper()
	since := map[string]time.Time{}
	for _, r := range c.before.Readers {
		since[r.Peer] = r.Since
	}
	now := c.box.status(t)
	for _, r := range now.Readers {
		if !since[r.Peer].Equal(r.Since) {
			t.Errorf("viewer %s is here since %v, want %v", r.Peer, r.Since, since[r.Peer])
		}
		if r.Bytes <= c.bytes[r.Peer] {
			t.Errorf("viewer %s has got nothing more than %d bytes", r.Peer, r.Bytes)
		}
		c.bytes[r.Peer] = r.Bytes
	}
	if len(now.Readers) != len(since) {
		t.Errorf("%d viewers are left of %d", len(now.Readers), len(since))
	}
	if o := now.Outputs[0]; o.State != status.Live || !o.Since.Equal(*c.before.Outputs[0].Since) {
		t.Errorf("the push is %s since %v, want live since %v", o.State, o.Since, c.before.Outputs[0].Since)
	}
	if files := c.rtmp.Recordings(t); len(files) != 1 {
		t.Errorf("the RTMP server saw %d connections, want 1", len(files))
	}
}

// codedBy reports whether the picture of the camera is coded by an encoder
// whose name begins so.
func codedBy(encoder string) func(status.Box) bool {
	return func(s status.Box) bool { return onAir(s) && strings.HasPrefix(s.Renditions[0].Encoder, encoder) }
}

const board = "v4l2:vh264enc"

// copiesNothing shows that the CPU moves no raw picture on its way from the
// camera to the encoder, and that none is lost on the way to a viewer.
func copiesNothing(t *testing.T, b *box) {
	c := b.gather(t, webcam)
	b.settle(t)
	first := b.until(t, "the board's encoder codes", func(s status.Box) bool { return codedBy(board)(s) && s.Renditions[0].Buffers != nil })
	if way := first.Renditions[0].Buffers.Way; way != "export" && way != "import" {
		t.Errorf("pictures get to the encoder by %q (%s), want export or import", way, first.Renditions[0].Buffers.Reason)
	}
	last := b.until(t, "300 pictures are coded", func(s status.Box) bool {
		return s.Renditions[0].Frames >= first.Renditions[0].Frames+300
	})
	if copied := last.Renditions[0].CopiedBytes - first.Renditions[0].CopiedBytes; copied != 0 {
		t.Errorf("%d bytes of raw pictures were copied over %d pictures, want 0", copied, last.Renditions[0].Frames-first.Renditions[0].Frames)
	}
	lost := lossesOf(last).since(lossesOf(first))
	t.Logf("%d pictures by %s, %s: %d bytes copied; the box counted %+v", last.Renditions[0].Frames-first.Renditions[0].Frames,
		last.Renditions[0].Encoder, last.Renditions[0].Buffers.Way, last.Renditions[0].CopiedBytes-first.Renditions[0].CopiedBytes, lost)
	c.stayed(t)
	c.viewer.Kill()
	seen := numbers(t, c.viewer.file)
	n := checkNumbers(t, seen, lossesOf(last))
	checkStamps(t, seen, stamps(t, c.viewer.file, "v:0"), 15)
	if n < 250 {
		t.Errorf("%d pictures with the camera's number arrived, want 250", n)
	}
}

// A fault is something that happens to a device, and its end.
type fault struct {
	name     string
	begin    string
	slate    bool // the picture goes
	end      string
	meantime func(t *testing.T, b *box, before status.Box)
}

func (c *crowd) suffer(t *testing.T, f fault) {
	t.Helper()
	b := c.box
	b.settle(t)
	before := b.status(t)
	b.Sh(t, f.begin)
	if f.slate {
		b.until(t, f.name+": the slate is shown", func(s status.Box) bool {
			return !s.Input.Signal && s.Input.Slate >= before.Input.Slate+5
		})
	}
	if f.meantime != nil {
		f.meantime(t, b, before)
	}
	b.Sh(t, f.end)
	begin := time.Now()
	now := b.until(t, f.name+": the picture is coded again", func(s status.Box) bool {
		return codedBy("")(s) && s.Renditions[0].Frames > before.Renditions[0].Frames+15
	})
	b.until(t, f.name+": and goes on", func(s status.Box) bool {
		return onAir(s) && s.Renditions[0].Frames > now.Renditions[0].Frames+15
	})
	t.Logf("%s: coded again after %.1f s, by %s", f.name, time.Since(begin).Seconds(), now.Renditions[0].Encoder)
	c.stayed(t)
}

// grows waits until a count of the box has grown by that many.
func grows(what string, by uint64, count func(status.Box) uint64) func(*testing.T, *box, status.Box) {
	return func(t *testing.T, b *box, before status.Box) {
		b.until(t, what, func(s status.Box) bool { return count(s) >= count(before)+by })
	}
}

// said waits until the daemon's log has a line that matches.
func said(pattern string) func(*testing.T, *box, status.Box) {
	return func(t *testing.T, b *box, _ status.Box) {
		virt.Until(t, soon, "the log says "+pattern, func() bool {
			_, rc, err := b.Try("journalctl -u encoderd -o cat --no-pager | grep -q '" + pattern + "'")
			return err == nil && rc == 0
		})
	}
}

func missed(s status.Box) uint64  { return s.Input.Missed }
func slates(s status.Box) uint64  { return s.Input.Slate }
func dropped(s status.Box) uint64 { return s.Renditions[0].Dropped }

// cameraFaults is everything that vivid can do to a webcam.
func cameraFaults(t *testing.T, b *box) {
	c := b.gather(t, webcam)
	const camera = "v4l2-ctl -d /dev/video0 -c "
	for _, f := range []fault{
		{name: "a buffer is refused", begin: camera + "inject_vidioc_qbuf_error=1", end: "true"}, // it is offered again, and nobody notices
		{
			name: "every fifth picture is lost", begin: camera + "percentage_of_dropped_buffers=20", end: camera + "percentage_of_dropped_buffers=0",
			meantime: grows("lost pictures are counted", 5, missed),
		},
		{
			name: "streaming dies", begin: camera + "inject_fatal_streaming_error=1", end: "true",
			meantime: grows("the slate is shown", 1, slates),
		},
		{
			name: "driver unloaded", slate: true,
			begin: "echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind; for i in $(seq 100); do rmmod vivid && exit; sleep 0.1; done; exit 1",
			end:   "modprobe vivid " + vividParameters,
		},
	} {
		c.suffer(t, f)
	}
	b.until(t, "the board's encoder codes again", codedBy(board))
}

// hdmiFaults is what happens to an HDMI cable and what is behind it.
func hdmiFaults(t *testing.T, b *box) {
	const node = "v4l2-ctl -d /dev/video0 "
	// vivid's list of timings: 1280x720p25 is number 6, 1280x720p30 number 7
	// (v4l2-ctl sets controls before the input, and one that is inactive is lost)
	b.Sh(t, strings.Join([]string{node + "-i 1", node + "-c dv_timings_signal_mode=4", node + "-c dv_timings=6"}, "; "))
	opened := func(rate int) func(*testing.T, *box, status.Box) {
		return said(fmt.Sprintf("camera opened.* %d fps", rate))
	}
	c := b.gather(t, hdmi)
	opened(25)(t, b, c.before)
	for _, f := range []fault{
		{name: "no signal", slate: true, begin: node + "-c dv_timings_signal_mode=1", end: node + "-c dv_timings_signal_mode=4"},
		{name: "no lock", slate: true, begin: node + "-c dv_timings_signal_mode=2", end: node + "-c dv_timings_signal_mode=4"},
		{name: "another resolution", begin: node + "-c dv_timings=7", end: "true", meantime: opened(30)},
		{name: "a resolution that nobody knows", slate: true, begin: node + "-c dv_timings_signal_mode=3", end: node + "-c dv_timings_signal_mode=4"},
		{
			// the node is back as soon as it is closed: the slate is short
			name: "cable out and in", begin: node + "-c disconnect=1", end: "true",
			meantime: grows("the slate is shown", 1, slates),
		},
	} {
		c.suffer(t, f)
	}
}

// encoderFaults is what the board's encoder can do to us: the ladder acts, and
// the picture is back.
func encoderFaults(t *testing.T, b *box) {
	c := b.gather(t, webcam)
	b.until(t, "the board's encoder codes", codedBy(board))
	const parameter = "echo %d > /sys/module/vh264enc/parameters/%s"
	set := func(name string, value int) string { return fmt.Sprintf(parameter, value, name) }
	for _, f := range []fault{
		{name: "a picture fails", begin: set("fail_in", 3), end: "true", meantime: grows("it is counted", 1, dropped)},
		{
			name: "it takes 150 ms for a picture", begin: set("latency_us", 150_000), end: set("latency_us", 0),
			meantime: grows("pictures are dropped and counted", 5, dropped),
		},
		{name: "it hangs for ever", begin: set("hang", 1), end: "true", meantime: func(t *testing.T, b *box, _ status.Box) {
			b.until(t, "software takes over", codedBy("libx264"))
		}},
	} {
		c.suffer(t, f)
	}
	told := func(f status.Fault) bool { return f.Code == status.EncoderFallback }
	if s := b.status(t); !slices.ContainsFunc(s.Faults, told) {
		t.Errorf("the fallback is none of the faults %+v", s.Faults)
	}
	b.Sh(t, set("hang", 0)+"; systemctl restart encoderd")
	b.until(t, "a restart finds the encoder whole", codedBy(board))
	b.Sh(t, set("max_instances", 0)+"; systemctl restart encoderd")
	b.until(t, "an encoder without a free instance is stood in for", codedBy("libx264"))
	b.Sh(t, set("max_instances", 4))
}
