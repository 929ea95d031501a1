//go:build box

package virt

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEachDeviceIsThereForItsGroup(t *testing.T) {
	g := Start(t)
	for _, d := range []struct{ name, path, group string }{
		{"camera with HDMI input", "/dev/video0", "video"},
		{"camera", "/dev/video1", "video"},
		{"encoder", "/dev/video2", "video"},
		{"encoder by a name that stays", "/dev/v4l/by-path/platform-vh264enc.0-video-index0", "video"},
		{"media controller", "/dev/media0", "video"},
		{"sound card, playback", "/dev/snd/pcmC0D0p", "audio"},
		{"sound card, capture", "/dev/snd/pcmC0D1c", "audio"},
		{"second sound card", "/dev/snd/pcmC1D1c", "audio"},
		{"panel", "/dev/gpiochip1", "gpio"},
	} {
		t.Run(d.name, func(t *testing.T) {
			if got := g.Sh(t, "stat -L -c '%G %a' "+d.path); got != d.group+" 660\n" {
				t.Errorf("%s: group and mode %q, want %s 660", d.path, got, d.group)
			}
		})
	}
	for _, c := range []struct{ name, script, want string }{
		{"cameras and encoder have their names", "cat /sys/class/video4linux/*/name", "vivid-000-vid-cap\nvivid-001-vid-cap\nvh264enc\n"},
		{"sound cards have their names", "cat /proc/asound/card*/id", "Loopback\nLoopback2\n"},
		{"the panel has named lines", "gpioinfo -c gpiochip1 | grep -o '\"[A-Z_]*\"' | tr -d '\"' | xargs", "GO_LIVE TALLY REC MUTE RESET LAMP_STREAM LAMP_REC LAMP_STAGE CONTACT_IN CONTACT_OUT\n"},
		{"keys are released", "cat /run/panel/sim_gpio{0,2,3,4}/pull | uniq", "pull-up\n"},
		{"libraries to load at run time", "ls /usr/lib/aarch64-linux-gnu/ | grep -cE '^(libx264.so.164|libopus.so.0|libturbojpeg.so.0)$'", "3\n"},
		{"systemd is process 1", "cat /proc/1/comm", "systemd\n"},
		{"no unit has failed", "systemctl --failed --no-legend", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := g.Sh(t, c.script); got != c.want {
				t.Errorf("%s: %q, want %q", c.script, got, c.want)
			}
		})
	}
}

func script(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("tests", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEncoderPassesV4L2Compliance(t *testing.T) {
	out := Start(t).Sh(t, script(t, "v4l2.sh"))
	m := regexp.MustCompile(`Total for vh264enc device \S+: (\d+), Succeeded: (\d+), Failed: 0, Warnings: 0`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("v4l2-compliance is not clean:\n%s", out)
	}
	if n, err := strconv.Atoi(m[2]); err != nil || m[1] != m[2] || n < 50 {
		t.Errorf("%s of %s tests passed, want all of at least 50", m[2], m[1])
	}
}

func TestPressGoesThroughThePanel(t *testing.T) {
	out := Start(t).Sh(t, script(t, "gpio.sh"))
	press, release := strings.Index(out, "falling"), strings.Index(out, "rising")
	if press < 0 || release < press {
		t.Errorf("events %q, want falling, then rising", out)
	}
}

func TestWhatIsPlayedIsWhatIsRecorded(t *testing.T) {
	const frames = 96000 // 2 s
	g := Start(t)
	for card, name := range []string{"Loopback", "Loopback2"} {
		t.Run(name, func(t *testing.T) {
			both := []byte(g.Sh(t, fmt.Sprintf(`
set -e
P='-q -t raw -f S16_LE -c 2 -r 48000 --buffer-time=2000000 --period-time=100000'
head -c %d /dev/urandom > /run/played
arecord $P -D hw:%[2]s,1,0 -d 6 /run/recorded & r=$!
S=/proc/asound/card%[3]d/pcm1c/sub0/status
for i in $(seq 200); do grep -q RUNNING $S && break; sleep 0.1; done
aplay $P -D hw:%[2]s,0,0 /run/played
wait $r
cat /run/played /run/recorded`, 4*frames, name, card)))
			played, recorded := both[:4*frames], both[4*frames:]
			at := bytes.Index(recorded, played[:64])
			if at < 0 || at%4 != 0 {
				t.Fatalf("the first samples are at byte %d of %d recorded", at, len(recorded))
			}
			if !bytes.HasPrefix(recorded[at:], played) {
				t.Error("recorded samples are not the played ones")
			}
		})
	}
}

func TestGuestHasTheTime(t *testing.T) {
	g := Start(t)
	s, err := strconv.ParseInt(strings.TrimSpace(g.Sh(t, "date +%s")), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Since(time.Unix(s, 0)).Abs(); off > time.Minute {
		t.Errorf("the guest's clock is off by %v", off)
	}
}

func TestGuestReachesTheHost(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 1)
	go func() {
		defer close(heard)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		heard <- string(b)
	}()
	t.Cleanup(func() {
		l.Close()
		for range heard {
		}
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	Start(t).Sh(t, "echo -n from the guest > /dev/tcp/10.0.2.2/"+port)
	if got := <-heard; got != "from the guest" {
		t.Errorf("the host heard %q", got)
	}
}

func TestGuestsDoNotSeeEachOther(t *testing.T) {
	a, b := Start(t), Start(t)
	a.Sh(t, "echo mine > /root/file; sync; date -s '2001-02-03'")
	if out := b.Sh(t, "ls /root; date +%Y"); strings.Contains(out, "file") || strings.Contains(out, "2001") {
		t.Errorf("the second guest sees the first: %q", out)
	}
	if a.Port("sh") == b.Port("sh") {
		t.Errorf("both guests have port %d", a.Port("sh"))
	}
}

func TestScriptsAndFilesOfTheHarness(t *testing.T) {
	g := Start(t)
	out, rc, err := g.Try("echo before; exit 7")
	if out != "before\n" || rc != 7 || err != nil {
		t.Errorf("Try of a failing script gives %q, %d, %v", out, rc, err)
	}
	program := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nprintf '\\000\\377@@rc=3\\n'"), 0o700); err != nil {
		t.Fatal(err)
	}
	g.Put(t, map[string]string{"some/folder/program": program})
	if got := g.Sh(t, "/run/work/some/folder/program"); got != "\x00\xff@@rc=3\n" {
		t.Errorf("the program from the host says %q", got)
	}
	if out, _, err := g.Try("systemctl poweroff -ff; sleep 60"); err == nil {
		t.Errorf("a guest that dies is no error; it said %q", out)
	}
}

// TestEncoderIsLossless compares what ffmpeg decodes with what went into the
// virtual encoder at a bit rate that leaves nothing out.
func TestEncoderIsLossless(t *testing.T) {
	const format = "width=320,height=180,pixelformat=NV12"
	g := Start(t)
	for name, source := range map[string]string{
		"a moving picture":             "testsrc2=size=320x180:rate=15:duration=2,format=nv12",
		"zeros, which need escaping":   "color=size=320x180:rate=15:duration=1,format=nv12,geq=lum=0:cb=0:cr=0",
		"a picture that never changes": "smptebars=size=320x180:rate=15:duration=2,format=nv12",
	} {
		t.Run(name, func(t *testing.T) {
			raw := filepath.Join(t.TempDir(), "in.yuv")
			ffmpeg(t, "-f", "lavfi", "-i", source, "-f", "rawvideo", raw)
			g.Put(t, map[string]string{"in.yuv": raw})
			coded := g.Sh(t, `set -e
E=/dev/v4l/by-path/platform-vh264enc.0-video-index0
v4l2-ctl -d $E --set-fmt-video-out=`+format+` --set-ctrl=video_bitrate=200000000,video_gop_size=10 \
	--stream-mmap --stream-out-mmap --stream-from=/run/work/in.yuv --stream-to=/run/work/out.h264 >&2 2>/run/work/said || { cat /run/work/said; exit 1; }
cat /run/work/out.h264`)
			es := filepath.Join(t.TempDir(), "out.h264")
			if err := os.WriteFile(es, []byte(coded), 0o600); err != nil {
				t.Fatal(err)
			}
			got := ffmpeg(t, "-err_detect", "explode", "-i", es, "-pix_fmt", "nv12", "-f", "rawvideo", "-")
			want, err := os.ReadFile(raw)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d coded bytes decode to %d bytes that differ from the %d that went in", len(coded), len(got), len(want))
			}
		})
	}
}

func ffmpeg(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatalf("ffmpeg: install it, make test does: %v", err)
	}
	var said bytes.Buffer
	c := exec.CommandContext(t.Context(), path, append([]string{"-v", "error", "-y"}, args...)...)
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		t.Fatalf("ffmpeg %v: %v\n%s", args, err, &said)
	}
	return out
}

func TestDaemonRunsUnderItsOwnUnit(t *testing.T) {
	g := Start(t)
	const devices = "/dev/video0\n/dev/video2\n/dev/snd/pcmC0D1c\n/dev/gpiochip1\n"
	InstallDaemon(t, g, Build(t, "./buildroot/virt/testdata/notifystub"), devices)
	g.Sh(t, "systemctl start encoderd")
	if got := g.Sh(t, "for p in ActiveState StatusText User; do systemctl show -P $p encoderd; done"); got != "active\nstub is up\nencoderd\n" {
		t.Errorf("the unit's state, status and user are %q", got)
	}
	journal := g.Sh(t, "journalctl -u encoderd -o cat --no-pager")
	uid := strings.TrimSpace(g.Sh(t, "id -u encoderd"))
	for device := range strings.Lines(devices) {
		if want := fmt.Sprintf("opened %s as uid %s\n", strings.TrimSpace(device), uid); !strings.Contains(journal, want) {
			t.Errorf("the journal lacks %q:\n%s", want, journal)
		}
	}
	if got := g.Sh(t, "stat -c '%U %a' /var/lib/encoderd /var/lib/encoderd/config.toml"); got != "encoderd 700\nencoderd 600\n" {
		t.Errorf("state directory and configuration have owner and mode %q", got)
	}
	g.Sh(t, "systemctl kill -s KILL encoderd")
	Until(t, 2*time.Minute, "systemd restarts the killed daemon", func() bool {
		return g.Sh(t, "for p in NRestarts ActiveState; do systemctl show -P $p encoderd; done") == "1\nactive\n"
	})
}

// TestSecondBuildDoesNothing has Start build the board, then asks for it again.
func TestSecondBuildDoesNothing(t *testing.T) {
	Start(t)
	work := os.Getenv("VIRT_WORK")
	if work == "" {
		work = filepath.Join(Root(t), ".cache", "virt")
	}
	before, err := os.Stat(filepath.Join(work, "vm.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "./build.sh", work).CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Fatalf("the second build says %q, %v", out, err)
	}
	after, err := os.Stat(filepath.Join(work, "vm.qcow2"))
	if err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the second build made the snapshot anew (%v)", err)
	}
}
