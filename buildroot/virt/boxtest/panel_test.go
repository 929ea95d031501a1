//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"encoderd.example/buildroot/virt"
	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// The lines of the panel that tests move and look at.
const (
	lineStream, lineMute, lineReset, lineContact = 0, 3, 4, 8
)

// lampLines are the lines of lamps, by the lamp's name.
var lampLines = map[string]int{"TALLY": 1, "STREAM": 5, "REC": 6, "STAGE": 7, "MUTE": 9}

// panelConfig gives people, and an emulated processor, more time to think than
// the usual config does, the mute lamp a line, and the tally two who tell it.
const panelConfig = `
[[key]]
name = "STREAM"
press = "stream.start"
hold = "stream.stop grace=4m"
[[lamp]]
name = "MUTE"
pin = "gpio:CONTACT_OUT"
[[tally]]
name = "closure"
protocol = "contact"
address = "gpio:CONTACT_IN"
says = "preview"
[[tally]]
name = "desk"
protocol = "tsl3.1"
address = "udp://:8900"
input = "5"
timeout = "1h"
`

// panelled starts the daemon with all of the panel, and a push to address. Its
// picture is its own, and it has no sound: what an emulated processor starves
// now and then has lights, too.
func (b *box) panelled(t *testing.T, address, panel string) {
	t.Helper()
	silent := strings.NewReplacer("alsa:Loopback,1", "none")
	b.configure(t, silent.Replace(settings{fps: 10, camera: "test", push: address}.toml())+panel)
	b.Sh(t, "systemctl reset-failed encoderd; systemctl restart encoderd")
}

// down presses a key, by its line, and up lets it go.
func down(line int) string { return fmt.Sprintf("echo pull-down > /run/panel/sim_gpio%d/pull\n", line) }

func up(line int) string { return fmt.Sprintf("echo pull-up > /run/panel/sim_gpio%d/pull\n", line) }

// press is longer than a contact bounces, and held is down for so many seconds.
func (b *box) press(t *testing.T, line int) { t.Helper(); b.held(t, line, "0.1") }

func (b *box) held(t *testing.T, line int, seconds string) {
	t.Helper()
	b.Sh(t, down(line)+"sleep "+seconds+"\n"+up(line))
}

// tells has a switcher say something of camera 5 by TSL UMD 3.1, again and again
// as switchers do, until the tally is so.
func (b *box) tells(t *testing.T, tallies byte, state string) {
	t.Helper()
	b.until(t, "the tally is "+state, func(s status.Box) bool {
		if s.Tally.State != state {
			b.Sh(t, fmt.Sprintf(`printf '\x85\x%02xCAM %%-12s' 5 > /dev/udp/127.0.0.1/8900`, 0x30|tallies))
		}
		return s.Tally.State == state
	})
}

// levels are what lamps' lines were driven to in the course of four seconds,
// which are two periods of every rhythm: "0", "1" or "01".
func (b *box) levels(t *testing.T) map[string]string {
	t.Helper()
	lines := "read -t 0.05 -u 9\n" // a pause that starts no program
	for name, n := range lampLines {
		lines += fmt.Sprintf("read v < /run/panel/sim_gpio%d/value; echo %s $v\n", n, name)
	}
	out := b.Sh(t, "exec 9<> <(:); end=$((SECONDS + 5)); while [ $SECONDS -lt $end ]; do\n"+lines+"done")
	seen := map[string]string{}
	for name := range lampLines {
		for _, level := range []string{"0", "1"} {
			if strings.Contains(out, name+" "+level+"\n") {
				seen[name] += level
			}
		}
	}
	return seen
}

// lampsAgree waits until each lamp's line has been driven as the status says,
// steadily, or now and then, with the pattern that want names, if it does.
func (b *box) lampsAgree(t *testing.T, when string, want map[string]string) {
	t.Helper()
	left := maps.Clone(lampLines)
	for end := time.Now().Add(soon); len(left) > 0; {
		before, levels, after := b.status(t).Lamps, b.levels(t), b.status(t).Lamps
		var wrong []string
		for name := range left {
			first, last := before[name], after[name]
			agrees := levels[name] == levelsOf(first.Pattern) && levels[name] == levelsOf(last.Pattern)
			if pattern, asked := want[name]; agrees && (!asked || last.Pattern == pattern) {
				delete(left, name)
				continue
			}
			wrong = append(wrong, fmt.Sprintf("%s: its line was %q, the status said %+v, then %+v", name, levels[name], first, last))
		}
		if time.Now().After(end) && len(left) > 0 {
			t.Fatalf("%s: the lamps are not as they should be, %v:\n%s", when, want, strings.Join(wrong, "\n"))
		}
	}
}

// levelsOf are the levels of a lamp with a pattern.
func levelsOf(pattern string) string {
	switch color, rhythm, _ := strings.Cut(pattern, " "); {
	case color == "off":
		return "0"
	case rhythm == "":
		return "1"
	default:
		return "01"
	}
}

// A gate is a TCP server that lets nobody through before it is opened.
type gate struct {
	address string
	open    func()
}

// newGate stands before the server at address.
func newGate(t *testing.T, address string) gate {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan struct{})
	g := gate{address: l.Addr().String(), open: sync.OnceFunc(func() { close(opened) })}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			passing.Go(func() {
				defer c.Close()
				select {
				case <-opened:
					relay(t, c, address)
				case <-t.Context().Done():
				}
			})
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		passing.Wait()
	})
	return g
}

// relay connects a client with the server at address until one of them ends, or
// the test does.
func relay(t *testing.T, client net.Conn, address string) {
	server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return // the client is told by the end of its connection
	}
	hangUp := func() { _, _ = client.Close(), server.Close() }
	defer hangUp()
	defer context.AfterFunc(t.Context(), hangUp)()
	var back sync.WaitGroup
	back.Go(func() {
		defer hangUp()
		_, _ = io.Copy(client, server)
	})
	_, _ = io.Copy(server, client)
	hangUp()
	back.Wait()
}

// keysAndLamps presses keys and reads lamps through the kernel.
func keysAndLamps(t *testing.T, b *box) {
	rtmp := peer.StartNginx(t)
	g := newGate(t, rtmp.Address)
	b.panelled(t, g.address, panelConfig)
	b.until(t, "the camera is coded", onAir)
	for _, part := range []struct {
		name string
		test func(*testing.T, *box)
	}{
		{"MUTE toggles", muteKey},
		{"a contact and a switcher light the tally", tallyLamps},
		{"STREAM starts, stops, and thinks again", func(t *testing.T, b *box) { streamKey(t, b, g, rtmp) }},
		{"STREAM stops after 3 s and thinks again for 20 s", func(t *testing.T, b *box) { usualStream(t, b, rtmp) }},
		{"RESET resets the network", networkKey},
		{"RESET makes a new box", factoryKey},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(t, b) }) {
			return // the next one finds the box as this one leaves it
		}
	}
}

func muteKey(t *testing.T, b *box) {
	b.lampsAgree(t, "before anything was done", map[string]string{"STREAM": "off", "REC": "off", "MUTE": "off"})
	b.press(t, lineMute)
	b.until(t, "the sound is off", func(s status.Box) bool { return s.Sound.Muted && s.Keys["MUTE"].Action == "audio.toggle" })
	b.lampsAgree(t, "muted", map[string]string{"MUTE": "red"})
	b.press(t, lineMute)
	b.until(t, "the sound is on", func(s status.Box) bool { return !s.Sound.Muted })
	b.lampsAgree(t, "not muted", map[string]string{"MUTE": "off"})
}

// tallyLamps closes a contact and lets a switcher speak: program wins.
func tallyLamps(t *testing.T, b *box) {
	b.until(t, "nobody has said anything", func(s status.Box) bool { return s.Tally.State == status.Unknown })
	b.lampsAgree(t, "nobody knows", map[string]string{"TALLY": "blue double", "STAGE": "off"})
	b.tells(t, 0, status.Off)
	b.Sh(t, down(lineContact))
	b.until(t, "the contact is closed", func(s status.Box) bool { return s.Tally.State == status.Preview })
	b.lampsAgree(t, "on preview", map[string]string{"TALLY": "green pulse", "STAGE": "green pulse"})
	b.tells(t, 2, status.Program)
	b.lampsAgree(t, "on program", map[string]string{"TALLY": "red", "STAGE": "red"})
	b.Sh(t, up(lineContact))
	b.tells(t, 0, status.Off)
	b.lampsAgree(t, "off program", map[string]string{"TALLY": "off", "STAGE": "off"})
}

// streamKey goes on air by the key, leaves it, returns within the time to think
// on the same connection, and leaves for good.
func streamKey(t *testing.T, b *box, g gate, rtmp *peer.Nginx) {
	b.press(t, lineStream)
	b.until(t, "the push is on its way", func(s status.Box) bool {
		return s.Outputs[0].State == status.Starting && s.Lamps["STREAM"].Pattern == "amber pulse"
	})
	b.lampsAgree(t, "connecting", nil)
	g.open()
	since := b.until(t, "the push is confirmed", pushing).Outputs[0].Since
	b.lampsAgree(t, "on air", map[string]string{"STREAM": "red"})

	b.held(t, lineStream, "4")
	s := b.until(t, "the time to think", func(s status.Box) bool { return s.Ending != nil })
	if k := s.Keys["STREAM"]; k.Gesture != "hold" || k.Action != "stream.stop grace=4m" || s.Outputs[0].State != status.Live {
		t.Errorf("after the hold the key is %+v and the push %+v", k, s.Outputs[0])
	}
	b.lampsAgree(t, "stopped, maybe", map[string]string{"STREAM": "amber long-short"})
	b.press(t, lineStream)
	b.until(t, "the show goes on", func(s status.Box) bool { return s.Ending == nil })
	if o := b.status(t).Outputs[0]; o.State != status.Live || o.Since == nil || !o.Since.Equal(*since) {
		t.Errorf("after the second thought the push is %s since %v, want live since %v", o.State, o.Since, since)
	}
	b.lampsAgree(t, "on air again", map[string]string{"STREAM": "red"})
	if files := rtmp.Recordings(t); len(files) != 1 {
		t.Errorf("the RTMP server saw %d shows, want 1", len(files))
	}

	b.held(t, lineStream, "4")
	b.until(t, "the time to think", func(s status.Box) bool { return s.Ending != nil })
	b.held(t, lineStream, "4") // meant
	b.until(t, "the end", func(s status.Box) bool { return s.Ending == nil && s.Outputs[0].State == status.Off })
	b.lampsAgree(t, "off air", map[string]string{"STREAM": "off"})
}

// usualStream holds STREAM as a box without a config of its own has it, and
// presses it at once: the show goes on, on the same connection. From here on the
// keys are the usual ones.
func usualStream(t *testing.T, b *box, rtmp *peer.Nginx) {
	b.panelled(t, rtmp.Address, "")
	b.until(t, "the camera is coded", onAir)
	for try := 1; !b.thinksAgain(t); try++ {
		if try == 5 {
			t.Fatal("after the second thought the push is another one")
		}
	}
	if out := b.Sh(t, "journalctl -u encoderd -o cat --no-pager | grep 'action=stream.stop by=key STREAM'"); !strings.Contains(out, "err=<nil>") {
		t.Errorf("of the stop there is %q", out)
	}
	b.held(t, lineStream, "4")
	b.held(t, lineStream, "4")
	b.until(t, "the end", func(s status.Box) bool { return s.Ending == nil && s.Outputs[0].State == status.Off })
}

// thinksAgain starts the show, stops it, and goes on with it. It reports whether
// that was on the same connection: it is not if the guest stood still for as
// long as there is to think again, or the daemon was started anew.
func (b *box) thinksAgain(t *testing.T) bool {
	t.Helper()
	b.press(t, lineStream)
	before := b.until(t, "the push is confirmed", func(s status.Box) bool { return pushing(s) && s.Keys["STREAM"].At != nil })
	b.Sh(t, down(lineStream)+"sleep 4\n"+up(lineStream)+"sleep 1\n"+down(lineStream)+"sleep 0.1\n"+up(lineStream))
	after := b.until(t, "the show goes on", func(s status.Box) bool {
		k := s.Keys["STREAM"]
		pressed := k.Gesture == "press" && k.At.After(*before.Keys["STREAM"].At)
		return pushing(s) && s.Ending == nil && (pressed || s.Since.After(before.Since))
	})
	return after.Outputs[0].Since.Equal(*before.Outputs[0].Since)
}

// confirmed holds RESET down for so many seconds, and confirms it within the
// usual five, until it has been done. A guest that stood still for seconds may
// have held it for longer than at most, and so for another order; then it lets
// that pass, as it lets pass a confirmation that came too late.
func (b *box) confirmed(t *testing.T, seconds, atMost int, done func(status.Box) bool) {
	t.Helper()
	for range 5 {
		out := b.Sh(t, fmt.Sprintf("t=${EPOCHREALTIME/[.,]/}\n%ssleep %d\n%st=$((${EPOCHREALTIME/[.,]/} - t))\n[ $t -ge %d000000 ] || { sleep 0.5\n%ssleep 0.1\n%s echo pressed; }",
			down(lineReset), seconds, up(lineReset), atMost, down(lineReset), up(lineReset)))
		if strings.Contains(out, "pressed") && b.comes(done) {
			return
		}
	}
	t.Fatalf("held down for %d s, RESET does not what it should; %+v", seconds, b.status(t).Keys["RESET"])
}

// comes reports whether the box gets there within the time in which an order of
// a key is carried out, or waits no more.
func (b *box) comes(done func(status.Box) bool) bool {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(soon / 3); time.Now().Before(end); <-tick.C {
		if s, err := b.tryStatus(); err == nil && done(s) {
			return true
		}
	}
	return false
}

const networkFile = "/etc/systemd/network/20-encoderd.network"

// networkGone waits until the system has taken its network settings back.
func (b *box) networkGone(t *testing.T) {
	t.Helper()
	virt.Until(t, soon, "the network's settings are gone", func() bool {
		_, rc, err := b.Try("test ! -e " + networkFile + " -a ! -e /var/lib/encoderd/requests/network-reset")
		return err == nil && rc == 0
	})
	const service = "encoderd-network-reset.service"
	virt.Until(t, soon, "the network is read anew", func() bool {
		return strings.TrimSpace(b.Sh(t, "echo $(systemctl show -P ActiveState "+service+") $(systemctl show -P Result "+service+")")) == "inactive success"
	})
}

// technician leaves settings of the network that no interface has.
const technician = "printf '[Match]\nName=none0\n[Network]\nAddress=192.0.2.7/24\n' > " + networkFile

func networkKey(t *testing.T, b *box) {
	b.Sh(t, technician)
	b.confirmed(t, 6, 9, func(s status.Box) bool { return s.Keys["RESET"].Action == "network.reset" })
	b.networkGone(t)
	if s := b.status(t); s.Name != "Virtual board" || len(s.Outputs) != 1 {
		t.Errorf("after a reset of the network the box is %q with %d outputs", s.Name, len(s.Outputs))
	}
	b.wantShown(t, map[string]string{"NRestarts": "0", "ActiveState": "active"})
}

func factoryKey(t *testing.T, b *box) {
	b.Sh(t, technician+"; install -d -o encoderd -g encoderd /var/lib/encoderd/recordings; touch /var/lib/encoderd/recordings/show.mp4")
	since := b.status(t).Since
	b.confirmed(t, 11, 25, func(s status.Box) bool { return s.Since.After(since) })
	b.networkGone(t)
	s := b.until(t, "a new box", func(s status.Box) bool { return s.Since.After(since) })
	if s.Name == "Virtual board" || len(s.Outputs) != 0 || len(s.Tally.Sources) != 0 {
		t.Errorf("after a factory reset the box is %q with outputs %+v and tallies %+v", s.Name, s.Outputs, s.Tally.Sources)
	}
	if out := b.Sh(t, "cd /var/lib/encoderd; ls config.toml* factory-reset; ls recordings; grep -rl hall . || true"); !strings.HasSuffix(out, "show.mp4\n") || strings.Count(out, "No such file") != 2 {
		t.Errorf("of the old box there is:\n%s", out)
	}
}
