package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/sim"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// codecHEVC is a node that codes HEVC, composed from documentation.
func codecHEVC() *fakevb2.Node {
	number := func(id uint32, name string, most int64) fakevb2.Control {
		return fakevb2.Control{ID: id, Name: name, Type: uapi.CtrlTypeInteger, Max: most}
	}
	return &fakevb2.Node{
		Path: "/dev/video0", Driver: "vh264enc", Card: "vh264enc", BusInfo: "platform:vh264enc",
		Caps: uapi.CapVideoM2MMplane | uapi.CapStreaming, Type: uapi.BufTypeVideoCaptureMplane,
		Encoder: &fakevb2.Encoder{
			Raw:   []fakevb2.Format{{Code: uint32(hw.NV12), BytesPerPixel: 1.5, Align: 16, AnyStride: true}},
			Coded: []uint32{uint32(hw.FourCC("HEVC"))},
		},
		Controls: []fakevb2.Control{
			number(uapi.CIDGOPSize, "GOP", 600),
			{ID: uapi.CIDForceKeyFrame, Name: "Force Key", Type: uapi.CtrlTypeButton},
			number(uapi.CIDBitrate, "Bitrate", 100_000_000),
			number(uapi.CIDRepeatSeqHeader, "Repeat", 1),
			number(uapi.CIDHEVCProfile, "HEVC Profile", 2),
			number(uapi.CIDHEVCLevel, "HEVC Level", 12),
			number(uapi.CIDHEVCTier, "HEVC Tier", 1),
			number(uapi.CIDHEVCRefreshType, "HEVC Refresh Type", 2),
			number(uapi.CIDHEVCRefreshPeriod, "HEVC Refresh Period", 600),
		},
	}
}

// TestAViewerDecodesHEVC goes all the way: the software board's camera, the
// driver of stateful encoders on a kernel of software, the RTSP server, ffprobe.
func TestAViewerDecodesHEVC(t *testing.T) {
	kernel := fakevb2.New(codecHEVC())
	finder := m2m.Finder{
		Root: fstest.MapFS{"sys/class/video4linux/video0/dev": {Data: []byte("81:0\n")}},
		Sys:  kernel, Log: slog.New(slog.DiscardHandler),
	}
	board := sim.New(sim.Options{}).Hardware()
	board.FindEncoders = finder.Encoders
	board.AudioEncoders = []hw.AudioEncoderDriver{{Name: "fake", Codec: stream.AAC, Open: newFakeSound}}
	address := peer.FreeAddress(t)
	c := parse(t, fmt.Sprintf(`
[video]
width = 64
height = 64
fps = 15
[audio]
source = "none"
[[rendition]]
name = "main"
codec = "h265"
bitrate = "1M"
gop = "1s"
[serve]
web = ""
rtsp = %q
`, address))
	c.Video.Height = fakevb2.HeightHEVC // smaller than people may choose
	c.Renditions[0].Height = fakevb2.HeightHEVC

	r := &rig{t: t, ended: make(chan error, 1)}
	r.Daemon = New(Options{Board: board, State: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	r.Apply(c)
	ctx, cancel := context.WithCancel(context.Background())
	r.end = cancel
	go func() { r.ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		r.stop()
		if fds, maps := kernel.Left(); fds+maps != 0 {
			t.Errorf("%d descriptors and %d mappings are left", fds, maps)
		}
	})
	b := r.until("H.265", func(b status.Box) bool { return onDuty(b) && b.Renditions[0].Frames > 20 })
	if v := b.Renditions[0]; v.Codec != "h265" || !strings.Contains(v.Encoder, "vh264enc") {
		t.Errorf("%+v", v)
	}
	var complaints strings.Builder
	cmd := exec.CommandContext(t.Context(), "ffprobe", "-v", "warning", "-rtsp_transport", "tcp", "-read_intervals", "%+3", "-count_frames", "-of", "default=nw=1",
		"-show_entries", "stream=codec_name,profile,width,height,has_b_frames,nb_read_frames", "rtsp://"+address+"/main")
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("ffprobe: %v (make test installs it)\n%s", err, &complaints)
	}
	var frames int
	said, count, _ := strings.Cut(string(out), "nb_read_frames=")
	if _, err := fmt.Sscan(count, &frames); err != nil || frames < 30 || said != "codec_name=hevc\nprofile=Main\nwidth=64\nheight=48\nhas_b_frames=0\n" {
		t.Errorf("ffprobe says %d frames, %v:\n%s", frames, err, out)
	}
}
