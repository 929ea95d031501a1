package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// A cable is a pair of pseudo terminals: the box opens path, the test has the
// other end.
func cable(t *testing.T) (far *os.File, path string) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	fd := int(far.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return far, fmt.Sprintf("/dev/pts/%d", n)
}

// free is a UDP port that nobody has.
func free(t *testing.T) string {
	t.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

// umd is a packet of TSL UMD 3.1: 0x80 and the address, tallies 1 to 4, text.
func umd(address, tallies byte) []byte {
	return append([]byte{0x80 | address, tallies | 0x30}, fmt.Sprintf("%-16s", "CAM")...)
}

func tallyIs(state string) func(status.Box) bool {
	return func(b status.Box) bool { return b.Tally.State == state }
}

// A switcher lights the box's lamps by UDP; a second one, by a serial line, has
// its say; a display elsewhere and the camera's own lamp follow; and when the
// switchers fall silent nobody claims to know.
func TestSwitchersLightLampsHereAndElsewhere(t *testing.T) {
	in, out := free(t), free(t)
	line, tty := cable(t)
	head, camera := cable(t)
	display, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", out)
	if err != nil {
		t.Fatal(err)
	}
	defer display.Close()
	visca := listen(head)
	p := start(t, settings{outputs: fmt.Sprintf(`
[[tally]]
name = "desk"
protocol = "tsl3.1"
address = "udp://%s"
input = "5"
timeout = "3s"
[[tally]]
name = "truck"
protocol = "tsl3.1"
address = "serial:%s"
input = "5"
timeout = "5m"
[[tally_out]]
name = "monitor"
address = "udp://%s"
input = 7
[ptz]
port = "serial:%s"
model = "sony"
`, in, tty, out, camera)})
	p.until("switchers that have said nothing", func(b status.Box) bool { return b.Tally.State == status.Unknown && b.Has(status.TallyLost) })

	desk := dialUDP(t, in)
	say := func(w io.Writer, address, tallies byte) {
		t.Helper()
		if _, err := w.Write(umd(address, tallies)); err != nil {
			t.Fatal(err)
		}
	}
	// A switcher repeats itself; so does this one, until the box shows it.
	repeat := func(what string, tallies byte, ok func(status.Box) bool) status.Box {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				_, _ = desk.Write(umd(5, tallies))
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		}()
		defer func() {
			stop()
			<-done
		}()
		return p.until(what, ok)
	}
	say(line, 5, 0)
	repeat("nothing", 0, tallyIs(status.Off))
	repeat("preview", 1, tallyIs(status.Preview))
	b := repeat("program", 2, tallyIs(status.Program))
	if l := b.Lamps["TALLY"]; l.Pattern != "red" || !strings.Contains(l.Reason, "desk") {
		t.Errorf("the tally lamp is %+v", l)
	}
	if l := b.Lamps["STAGE"]; l.Pattern != "red" {
		t.Errorf("the stage lamp is %+v", l)
	}
	repeat("the display to be red", 2, func(status.Box) bool { return shows(t, display, 7, 2) })
	repeat("the camera's lamp to be red", 2, func(status.Box) bool { return strings.Contains(visca(), "\x81\x01\x7E\x01\x0A\x00\x02\xFF") })

	// The desk falls silent while it is on program.
	b = p.until("the desk to be forgotten", tallyIs(status.Unknown))
	if l := b.Lamps["TALLY"]; l.Pattern != "blue double" {
		t.Errorf("the tally lamp is %+v", l)
	}
	if l := b.Lamps["STAGE"]; l.Pattern != "off" {
		t.Errorf("the stage lamp is %+v", l)
	}
	p.until("the display to be dark", func(status.Box) bool { return shows(t, display, 7, 0) })
	say(line, 5, 2)
	b = p.until("the truck to have its say", tallyIs(status.Program))
	if len(b.Tally.Sources) != 2 || b.Tally.Sources[0].State != status.Unknown || b.Tally.Sources[1].State != status.Program {
		t.Errorf("sources %+v", b.Tally.Sources)
	}
	// Its cable is pulled out.
	_ = line.Close()
	b = p.until("the truck to be gone", tallyIs(status.Unknown))
	if b.Tally.Sources[1].Error == "" {
		t.Errorf("sources %+v", b.Tally.Sources)
	}
	p.stop()
	if said := visca(); !strings.HasSuffix(said, "\x81\x01\x7E\x01\x0A\x00\x03\xFF") {
		t.Errorf("in the end the camera heard % X", said)
	}
}

// Nobody tells the camera and the displays that the daemon was killed: what
// systemd runs after it does, whatever has become of the config and of some of
// them.
func TestNothingElsewhereStaysRedWhenTheDaemonIsKilled(t *testing.T) {
	in, udp := free(t), free(t)
	head, camera := cable(t)
	line, monitor := cable(t)
	display, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", udp)
	if err != nil {
		t.Fatal(err)
	}
	defer display.Close()
	wall := newWall(t)
	visca, serial := listen(head), listen(line)
	p := start(t, settings{outputs: fmt.Sprintf(`
[[tally]]
name = "desk"
protocol = "tsl3.1"
address = "udp://%s"
input = "5"
timeout = "1h"
[[tally_out]]
name = "monitor"
address = "udp://%s"
input = 6
[[tally_out]]
name = "wall"
address = "tcp://%s"
input = 8
[[tally_out]]
name = "desk"
address = "serial:%s"
input = 9
[[tally_out]]
name = "nobody"
address = "tcp://127.0.0.1:1"
input = 10
[ptz]
port = "serial:%s"
model = "sony"
`, in, udp, wall.address, monitor, camera)})
	const red, dark = "\x81\x01\x7E\x01\x0A\x00\x02\xFF", "\x81\x01\x7E\x01\x0A\x00\x03\xFF"
	desk := dialUDP(t, in)
	p.until("all to be red", func(b status.Box) bool {
		_, _ = desk.Write(umd(5, 2))
		return shows(t, display, 6, 2) && wall.last(8) == 2 && strings.HasSuffix(visca(), red) && lastTally(serial(), 9) == 2
	})
	p.signal(syscall.SIGKILL)
	<-p.done
	if wall.last(8) != 2 || !strings.HasSuffix(visca(), red) || lastTally(serial(), 9) != 2 {
		t.Fatal("somebody has darkened what the daemon lit; this test shows nothing")
	}
	p.write(p.config, "[[output]\n")
	began := time.Now()
	code, _, said := p.command("lamps-off", "--board", "sim", "--state", p.state, "--config", p.config)
	if code != exitFailed || !strings.Contains(said, "display 10 at tcp://127.0.0.1:1") || strings.Count(said, "\n") != 1 {
		t.Errorf("exit code %d, %s", code, said)
	}
	if took := time.Since(began); took > 15*time.Second { // TimeoutStopSec of the unit
		t.Errorf("it took %v", took)
	}
	peer.Await(t, "the display by UDP to be dark", func() bool { return shows(t, display, 6, 0) })
	peer.Await(t, "the display by TCP to be dark", func() bool { return wall.last(8) == 0 })
	peer.Await(t, "the display on the serial line to be dark", func() bool { return lastTally(serial(), 9) == 0 })
	peer.Await(t, "the camera to be dark", func() bool { return strings.HasSuffix(visca(), dark) })
}

// A wall is a display that takes TSL UMD 3.1 by TCP.
type wall struct {
	address string
	said    lockedBuffer
}

func newWall(t *testing.T) *wall {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wall{address: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				defer context.AfterFunc(t.Context(), func() { _ = c.Close() })()
				_, _ = io.Copy(&w.said, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return w
}

func (w *wall) last(address byte) int { return lastTally(w.said.String(), address) }

// lastTally is what a display was told last in a stream of whole packets, -1 if
// nothing.
func lastTally(said string, address byte) int {
	i := strings.LastIndexByte(said, 0x80|address)
	if i < 0 || i+1 >= len(said) {
		return -1
	}
	return int(said[i+1] & 0x0F)
}

func dialUDP(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// shows reports whether the display at address has been told of those tallies
// last.
func shows(t *testing.T, display net.PacketConn, address, tallies byte) (told bool) {
	t.Helper()
	buf := make([]byte, 64)
	for {
		if err := display.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, _, err := display.ReadFrom(buf)
		if err != nil {
			return told
		}
		if n == 18 && buf[0] == 0x80|address {
			told = buf[1]&0x0F == tallies
		}
	}
}

// listen answers as a camera does, and returns what came so far.
func listen(head *os.File) func() string {
	var said lockedBuffer
	go func() {
		buf := make([]byte, 64)
		for {
			n, err := head.Read(buf)
			if err != nil {
				if _, open := head.Stat(); open != nil {
					return
				}
				continue // the box has not opened its end yet, or has closed it
			}
			_, _ = said.Write(buf[:n])
			if buf[n-1] == 0xFF {
				_, _ = head.WriteString("\x90\x41\xFF")
			}
		}
	}()
	return said.String
}

// The text on a serial line starts and stops the show, and asks how it is.
func TestARemoteStartsAndStops(t *testing.T) {
	n := peer.StartNginx(t)
	far, tty := cable(t)
	p := start(t, settings{outputs: hall(n.URL("live")) + fmt.Sprintf("[remote]\nport = \"serial:%s\"\n", tty)})
	p.until("the port to be open", func(b status.Box) bool {
		for _, s := range b.Services {
			if s.Name == "remote" {
				return s.State == "live"
			}
		}
		return false
	})
	answers := bufio.NewScanner(far)
	ask := func(line, want string) {
		t.Helper()
		if _, err := far.WriteString(line + "\r\n"); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() {
			t.Fatalf("%s: no answer: %v", line, answers.Err())
		}
		if got := answers.Text(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	ask("STATUS", "STATUS state=off live=0/0 signal=yes muted=no tally=off faults=none")
	ask("start", "OK START")
	p.until("the show", outputIs(status.Live))
	ask("STATUS", "STATUS state=live live=1/1")
	ask("STOP", "OK STOP")
	p.until("the end", outputIs(status.Off))
	ask("DANCE", "ERR unknown command")
}

// A panel whose wires are wrong is told of, and the rest of the box works.
func TestWiresThatAreNotThere(t *testing.T) {
	p := start(t, settings{outputs: `
[[key]]
name = "DOOR"
pin = "gpio:NO_SUCH_LINE"
press = "audio.toggle"
[[lamp]]
name = "HALL"
pin = "led:no-such-led"
shows = "fault"
[[tally]]
name = "nobody"
protocol = "vmix"
address = "tcp://127.0.0.1:1"
input = "1"
[ptz]
port = "serial:/dev/ttyNOBODY"
`})
	b := p.until("faults", func(b status.Box) bool { return b.Has(status.PanelWire) && b.Has(status.TallyLost) })
	if k := b.Keys["DOOR"]; k.Error == "" {
		t.Errorf("the key is %+v", k)
	}
	if code, _, said := p.command("do", "--state", p.state, "ptz.home"); code == 0 || !strings.Contains(said, "serial port") {
		t.Errorf("a camera that is not there: code %d, %s", code, said)
	}
	p.do("audio.toggle")
	p.until("silence", func(b status.Box) bool { return b.Sound.Muted && b.Lamps["TALLY"].Pattern == "blue double" })
}

// What status --watch draws is the panel as it is.
func TestThePanelIsDrawnAsText(t *testing.T) {
	p := start(t, settings{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, built, "status", "--watch", "--state", p.state)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.do("audio.mute")
	var text strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fmt.Fprintln(&text, lines.Text())
		if containsAll(text.String(), "KEYS", "LAMPS", "STREAM", "nothing is on air", "TALLY") && lines.Text() == "" {
			break
		}
	}
	cancel()
	_ = cmd.Wait() // it was killed
	if !containsAll(text.String(), "KEYS", "LAMPS", "STREAM", "nothing is on air", "TALLY") {
		t.Errorf("drawn:\n%s", text.String())
	}
	if strings.Contains(text.String(), "\x1b") {
		t.Error("what goes into a pipe holds terminal sequences")
	}
}

// A factory reset leaves a new box with its recordings.
func TestAFactoryResetMakesANewBox(t *testing.T) {
	p := start(t, settings{outputs: hall("rtmp://192.0.2.1/live")})
	kept := filepath.Join(p.state, "recordings", "show.mp4")
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.do("factory.reset")
	peer.Await(t, "the end", p.ended)
	if _, err := os.Stat(filepath.Join(p.state, "factory-reset")); err != nil {
		t.Errorf("nothing tells the next start: %v", err)
	}
	p.configure(settings{}) // it stands elsewhere, and so it stays
	p.launch()
	p.until("a new box", onDuty)
	if b, _ := os.ReadFile(filepath.Join(p.state, "secrets.toml")); strings.Contains(string(b), canary) {
		t.Error("the new box knows the old key")
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("the recording is gone: %v", err)
	}
	if _, err := os.Stat(filepath.Join(p.state, "factory-reset")); err == nil {
		t.Error("the next start will forget everything again")
	}
}
