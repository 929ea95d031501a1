package soft

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var pixNames = map[hw.PixelFormat]string{hw.NV12: "nv12", hw.I420: "yuv420p", hw.YUYV: "yuyv422", hw.I422: "yuv422p", hw.NV24: "nv24", hw.BGR24: "bgr24"}

// peer runs ffmpeg or ffprobe.
func peer(tb testing.TB, in []byte, program string, args ...string) []byte {
	tb.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		tb.Fatalf("%s: install it, make test does", program)
	}
	var out, msg bytes.Buffer
	cmd := exec.CommandContext(context.Background(), path, append([]string{"-v", "error"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &msg
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%s %q: %v: %s", program, args, err, &msg)
	}
	if msg.Len() > 0 {
		tb.Errorf("%s %q complains: %s", program, args, &msg)
	}
	return out.Bytes()
}

// peerTime runs a program as peer does and returns the CPU time it used.
func peerTime(tb testing.TB, in []byte, program string, args ...string) time.Duration {
	tb.Helper()
	cmd := exec.CommandContext(context.Background(), program, append([]string{"-v", "error"}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%s %q: %v", program, args, err)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// scene returns n frames of a moving test picture, 1/fps apart from a start
// that is not zero. They are free for Lend.
func scene(tb testing.TB, m hw.Mode, n int) []*hw.Frame {
	tb.Helper()
	raw := peer(tb, nil, "ffmpeg", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=s=%dx%d:r=%d/%d", m.Width, m.Height, m.FPS.Num, m.FPS.Den),
		"-frames:v", strconv.Itoa(n), "-pix_fmt", pixNames[m.Pixel], "-f", "rawvideo", "-")
	frames := make([]*hw.Frame, n)
	for i := range frames {
		f, err := hw.NewMemoryFrame(m, nil)
		if err != nil {
			tb.Fatal(err)
		}
		for _, p := range f.Planes {
			raw = raw[copy(p.Data, raw):]
		}
		f.Seq = uint32(i)
		f.Stamp = 1234567*time.Microsecond + time.Duration(i)*m.FPS.Period()
		frames[i] = f
	}
	return frames
}

// annexB returns units as a byte stream that ffmpeg reads.
func annexB(units []*stream.Unit) []byte {
	var out []byte
	for _, u := range units {
		for nal := range h264.NALs(u.Data) {
			out = append(append(out, 0, 0, 0, 1), nal...)
		}
	}
	return out
}

// decode returns the pictures of units as planar 4:2:0. The arguments say what
// ffmpeg is to do with them in between.
func decode(tb testing.TB, units []*stream.Unit, args ...string) [][]byte {
	tb.Helper()
	command := append([]string{"-f", "h264", "-i", "-", "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo"}, args...)
	raw := peer(tb, annexB(units), "ffmpeg", append(command, "-")...)
	size := units[0].Track.Width * units[0].Track.Height * 3 / 2
	if len(raw)%size != 0 {
		tb.Fatalf("ffmpeg decoded %d bytes, not a multiple of %d", len(raw), size)
	}
	var pictures [][]byte
	for ; len(raw) > 0; raw = raw[size:] {
		pictures = append(pictures, raw[:size])
	}
	return pictures
}

// A probed is one packet as ffprobe sees it.
type probed struct {
	Flags string `json:"flags"`
}

func probe(tb testing.TB, units []*stream.Unit) (packets []probed, info map[string]any) {
	tb.Helper()
	var out struct {
		Packets []probed
		Streams []map[string]any
	}
	raw := peer(tb, annexB(units), "ffprobe", "-f", "h264", "-show_packets", "-show_streams", "-of", "json", "-")
	if err := json.Unmarshal(raw, &out); err != nil {
		tb.Fatal(err)
	}
	return out.Packets, out.Streams[0]
}

func psnr(a, b []byte) float64 {
	var sum float64
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return 10 * math.Log10(255*255*float64(len(a))/max(sum, 1e-9))
}

// cpuTime returns what this process has used, user and system.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
