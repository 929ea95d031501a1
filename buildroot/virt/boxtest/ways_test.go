//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"strings"
	"testing"

	"encoderd.example/daemon/status"
)

// A passage is how pictures shall get from the camera to the encoder.
type passage struct {
	name     string
	module   string // parameters of the encoder's module, "" to leave it as it is
	settings settings
	way      string
	reason   string // what it must say
	copied   int    // bytes a picture
	pictures uint64
	viewer   viewer
}

// ways has the daemon take each way, from a camera and to an encoder whose
// pictures lie in memory as drivers want it. The HDMI input scales to a size
// that an alignment of 64 leaves as it is.
func ways(t *testing.T, b *box) {
	const config = "asked for by the config"
	b.Sh(t, plugHDMI+hdmi25fps)
	for _, p := range []passage{
		{name: "config: import", settings: settings{camera: webcam, buffers: "import"}, way: "import", reason: config, pictures: 300},
		{name: "config: copy", settings: settings{camera: webcam, buffers: "copy"}, way: "copy", reason: config, copied: width * height * 3 / 2, pictures: 60},
		{
			name: "lines of 64 bytes, multi-planar", module: "align=64",
			settings: settings{camera: hdmi, fps: 25, height: 192}, way: "export", pictures: 100,
		},
		{
			name: "lines of 16 bytes, single-planar", module: "align=16 multiplanar=0",
			settings: settings{camera: hdmi, fps: 25, height: 192, buffers: "import"}, way: "import", pictures: 100,
		},
	} {
		t.Run(p.name, func(t *testing.T) {
			if p.module != "" {
				b.Sh(t, "set -e; systemctl stop encoderd; modprobe -r vh264enc; modprobe vh264enc "+p.module+"; udevadm settle")
			}
			p.settings.encoder, p.settings.bitrate = "auto", generous
			b.run(t, p.settings)
			b.settle(t)
			p.viewer = b.watch(t)
			pass(t, b, p)
			p.viewer.Kill()
			seen := numbers(t, p.viewer.file)
			n := checkNumbers(t, seen, lossesOf(b.status(t)))
			checkStamps(t, seen, stamps(t, p.viewer.file, "v:0"), max(p.settings.fps, 15))
			if n < int(p.pictures) {
				t.Errorf("%d pictures with the camera's number arrived, want %d", n, p.pictures)
			}
		})
	}
}

// pass lets so many pictures pass, counts what was copied, and returns once they
// must have arrived.
func pass(t *testing.T, b *box, p passage) {
	t.Helper()
	first := b.until(t, "the board's encoder codes", func(s status.Box) bool { return codedBy(board)(s) && s.Renditions[0].Buffers != nil })
	if got := first.Renditions[0].Buffers; got.Way != p.way || !strings.Contains(got.Reason, p.reason) {
		t.Errorf("pictures get to the encoder by %s: %s; want %s: %s", got.Way, got.Reason, p.way, p.reason)
	}
	last := b.until(t, "the pictures are coded", func(s status.Box) bool {
		return s.Renditions[0].Frames >= first.Renditions[0].Frames+p.pictures
	})
	b.Sh(t, "sleep 1") // what is under way arrives first
	was, is := first.Renditions[0], last.Renditions[0]
	pictures, copied := int(is.Frames-was.Frames), int(is.CopiedBytes-was.CopiedBytes)
	t.Logf("%d pictures by %s, %s (%s): %d bytes copied; the box counted %+v", pictures, is.Encoder, is.Buffers.Way, is.Buffers.Reason,
		copied, lossesOf(last).since(lossesOf(first)))
	// a picture may be copied at one look and counted at the next
	if least, most := (pictures-2)*p.copied, (pictures+2)*p.copied; copied < least || copied > most {
		t.Errorf("%d bytes of raw pictures were copied over %d pictures, want %d for each", copied, pictures, p.copied)
	}
}
