//go:build box

// Package boxtest tests the daemon as it runs on a box: the arm64 program with
// its own unit file under systemd, on a board whose camera, sound card and
// encoder library are real, looked at from the network.
//
//	guest                                    host
//	vivid ──► encoderd ──► rtsp :8554 ─────► ffmpeg ─► file ─► pictures, sound
//	aloop ──►    │  └────► rtmp 10.0.2.2 ──► nginx
//	             └───────► web  :8080 ─────► status
//
// Emulated time is real time on a slow machine: tests assert order, counts and
// medians, and ask for a lower frame rate where the emulation does not carry a
// higher one. Each part has a guest of its own.
package boxtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/buildroot/virt"
	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is the deadline for everything that takes seconds on a real box.
const soon = 3 * time.Minute

func TestDaemonOnTheBoard(t *testing.T) {
	programs := programs{daemon: virt.Build(t, "./cmd/encoderd", "-ldflags=-s -w"), flashbeep: virt.Build(t, "./buildroot/virt/flashbeep")}
	for _, part := range []struct {
		name string
		test func(*testing.T, *box)
	}{
		{"the unit keeps its promises", unit},
		{"the page answers through the network", page},
		{"no frame is lost between camera and viewer", frames},
		{"sound and picture leave in step", inStep},
		{"connections outlive the camera", replug},
		{"the hardware encoder codes without a copy", copiesNothing},
		{"pictures take every way to the encoder", ways},
		{"connections outlive what a camera does", cameraFaults},
		{"connections outlive the HDMI cable", hdmiFaults},
		{"connections outlive the hardware encoder", encoderFaults},
		{"a killed daemon is on air again", kill},
		{"a daemon that ends on air leaves no lamp lit", lampsOff},
		{"keys are pressed and lamps read through the kernel", keysAndLamps},
		{"a lamp that is an LED is lit through the sandbox", leds},
		{"a hung daemon is restarted by the watchdog", hang},
	} {
		t.Run(part.name, func(t *testing.T) {
			begin := time.Now()
			b := &box{Guest: virt.Start(t), programs: programs}
			up := time.Now()
			virt.InstallDaemon(t, b.Guest, b.daemon, settings{}.toml())
			t.Logf("the guest was up after %.1f s, the daemon installed %.1f s later", up.Sub(begin).Seconds(), time.Since(up).Seconds())
			// vivid can stamp pictures as most cameras do, when they are taken, and
			// not some time in the future.
			b.Sh(t, "v4l2-ctl -d /dev/video0 -c timestamp_source=1")
			part.test(t, b)
		})
	}
}

// programs are built once for all guests.
type programs struct{ daemon, flashbeep string }

// A box is a guest with the daemon installed.
type box struct {
	*virt.Guest
	programs
}

// The settings of the daemon that tests choose; the rest is small enough for
// an emulated processor.
type settings struct {
	fps     int    // 15 if 0
	height  int    // 180 if 0
	camera  string // "auto" if ""
	buffers string // "auto" if ""
	encoder string // "software" if ""
	bitrate string // "500k" if ""
	push    string // address of an RTMP server on the host, "" for none
}

const width, height = 320, 180

func (s settings) toml() string {
	s.fps = cmp.Or(s.fps, 15)
	s.height = cmp.Or(s.height, height)
	s.camera = cmp.Or(s.camera, "auto")
	s.buffers = cmp.Or(s.buffers, "auto")
	s.encoder = cmp.Or(s.encoder, "software")
	s.bitrate = cmp.Or(s.bitrate, "500k")
	doc := fmt.Sprintf(`[record] # the state directory is a small disk in memory: none begins there, and lamps say so
dir = "/media/usb"
[box]
name = "Virtual board"
[video]
source = %q
width = %d
height = %d
fps = %d
buffers = %q
[audio]
source = "alsa:Loopback,1"
[[rendition]]
name = "main"
bitrate = %q
gop = "2s"
preset = "ultrafast"
threads = 1
encoder = %q
`, s.camera, width, s.height, s.fps, s.buffers, s.bitrate, s.encoder)
	if s.push != "" {
		// 10.0.2.2 is what the guest calls its host.
		doc += fmt.Sprintf("[[output]]\nname = \"push\"\nurl = \"rtmp://%s/live\"\nkey = \"hall\"\nrendition = \"main\"\n",
			strings.Replace(s.push, "127.0.0.1", "10.0.2.2", 1))
	}
	return doc
}

// run starts the daemon anew with s. It is on duty when run returns.
func (b *box) run(t *testing.T, s settings) {
	t.Helper()
	b.configure(t, s.toml())
	b.Sh(t, "systemctl reset-failed encoderd; systemctl restart encoderd")
}

func (b *box) configure(t *testing.T, config string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Put(t, map[string]string{"config.toml": file})
	b.Sh(t, "install -o encoderd -g encoderd -m 600 /run/work/config.toml /var/lib/encoderd/config.toml")
}

// do orders an action.
func (b *box) do(t *testing.T, action string) {
	t.Helper()
	b.Sh(t, "encoderd do --state /var/lib/encoderd "+action)
}

// show returns properties of the unit.
func (b *box) show(t *testing.T, properties ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(b.Sh(t, "systemctl show encoderd -p "+strings.Join(properties, ","))) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		all[key] = value
	}
	return all
}

// wantShown fails the test unless the unit's properties are as wanted.
func (b *box) wantShown(t *testing.T, want map[string]string) {
	t.Helper()
	var names []string
	for name := range want {
		names = append(names, name)
	}
	if got := b.show(t, names...); !maps.Equal(got, want) {
		t.Errorf("the unit has %v, want %v", got, want)
	}
}

// get fetches a page of the daemon over the network.
func (b *box) get(path string) (code int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", b.Port("web"), path), http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, errors.Join(err, resp.Body.Close())
}

func (b *box) tryStatus() (status.Box, error) {
	_, doc, err := b.get("/api/v1/status")
	if err != nil {
		return status.Box{}, err
	}
	var s status.Box
	err = json.Unmarshal(doc, &s)
	return s, err
}

func (b *box) status(t *testing.T) status.Box {
	t.Helper()
	s, err := b.tryStatus()
	if err != nil {
		t.Fatalf("ask for the status: %v", err)
	}
	return s
}

// until waits until the box's status is as wanted. A box that is just
// restarting has none.
func (b *box) until(t *testing.T, what string, wanted func(status.Box) bool) status.Box {
	t.Helper()
	return b.within(t, soon, what, wanted)
}

// within is until with a deadline of its own. It asks once a second: answers
// cost an emulated processor much.
func (b *box) within(t *testing.T, deadline time.Duration, what string, wanted func(status.Box) bool) status.Box {
	t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(deadline); ; {
		s, err := b.tryStatus()
		if err == nil && wanted(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v; status %+v, %v", what, deadline, s, err)
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, context.Cause(t.Context()))
		}
	}
}

// onAir reports whether the camera's picture is coded.
func onAir(s status.Box) bool {
	return s.Input.Signal && len(s.Renditions) == 1 && s.Renditions[0].State == status.Live
}

// pushing reports whether the output is confirmed by its server.
func pushing(s status.Box) bool {
	return onAir(s) && len(s.Outputs) == 1 && s.Outputs[0].State == status.Live
}

// A viewer is ffmpeg that reads the box's RTSP over one TCP connection and
// keeps what it gets: all sound, which ffmpeg 7.1 would not, for it takes no
// packet of AAC from RTSP for a key.
type viewer struct {
	*peer.Process
	file string // sound and pictures, as they came
	sums string // a checksum of each coded picture
}

// watch returns once the box counts the viewer.
func (b *box) watch(t *testing.T) viewer {
	t.Helper()
	dir := t.TempDir()
	v := viewer{file: filepath.Join(dir, "seen.mkv"), sums: filepath.Join(dir, "seen.md5")}
	v.Process = peer.Start(t, "ffmpeg", "-v", "warning", "-rtsp_transport", "tcp", "-i", b.rtsp(),
		"-map", "0", "-c", "copy", "-copyinkf:a", "-cluster_time_limit", "500", "-flush_packets", "1", v.file,
		"-map", "0:v", "-c", "copy", "-f", "framemd5", "-flush_packets", "1", v.sums)
	b.until(t, "a viewer is connected", func(s status.Box) bool { return len(s.Readers) == 1 })
	return v
}

// glance starts a viewer that keeps checksums only.
func (b *box) glance(t *testing.T) viewer {
	t.Helper()
	v := viewer{sums: filepath.Join(t.TempDir(), "seen.md5")}
	v.Process = peer.Start(t, "ffmpeg", "-v", "warning", "-rtsp_transport", "tcp", "-i", b.rtsp(),
		"-map", "0:v", "-c", "copy", "-f", "framemd5", "-flush_packets", "1", v.sums)
	return v
}

func (b *box) rtsp() string { return fmt.Sprintf("rtsp://127.0.0.1:%d/main", b.Port("rtsp")) }

// grab fails the test unless a picture can be fetched by RTSP and decoded.
func (b *box) grab(t *testing.T) {
	t.Helper()
	raw := peer.Output(t, "ffmpeg", "-v", "error", "-rtsp_transport", "tcp", "-i", b.rtsp(),
		"-map", "0:v", "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-")
	if len(raw) != width*height {
		t.Errorf("a picture fetched by RTSP has %d bytes, want %d", len(raw), width*height)
	}
}
