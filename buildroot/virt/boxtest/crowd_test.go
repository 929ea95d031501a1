//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// A crowd is a push and ten viewers, who must all stay connected, and get every
// picture once.
type crowd struct {
	box    *box
	rtmp   *peer.Nginx
	viewer viewer // keeps what it gets
	others []viewer
	before status.Box
	bytes  map[string]uint64 // that each viewer had got at the last look
}

const others = 9 // viewers who keep checksums only

// gather starts the daemon with the hardware encoder and lets everybody come.
func (b *box) gather(t *testing.T, camera string) *crowd {
	t.Helper()
	c := &crowd{box: b, rtmp: peer.StartNginx(t), bytes: map[string]uint64{}}
	b.run(t, settings{fps: 15, camera: camera, encoder: "auto", bitrate: generous, push: c.rtmp.Address})
	b.do(t, "stream.start")
	b.until(t, "the push is confirmed", pushing)
	c.viewer = b.watch(t)
	for range others {
		c.others = append(c.others, b.glance(t))
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

// A fault is something that happens to a device, and its end.
type fault struct {
	name     string
	begin    string
	slate    bool   // the picture goes
	says     string // the log, once more than before
	meantime func(t *testing.T, b *box, before status.Box)
	end      string
	coder    string // who codes then; "" if it does not matter
}

// suffer lets a fault happen, and ends it when it has shown.
func (c *crowd) suffer(t *testing.T, f fault) {
	t.Helper()
	b, started := c.box, time.Now()
	b.settle(t)
	before, said := b.status(t), b.said(t, f.says)
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
		return codedBy(f.coder)(s) && s.Renditions[0].Frames > before.Renditions[0].Frames+15
	})
	b.until(t, f.name+": and goes on", func(s status.Box) bool {
		return onAir(s) && s.Renditions[0].Frames > now.Renditions[0].Frames+15
	})
	t.Logf("%s: coded again after %.1f s, by %s", f.name, time.Since(begin).Seconds(), now.Renditions[0].Encoder)
	if f.says != "" && b.said(t, f.says) <= said {
		t.Errorf("%s: the log does not say %q again", f.name, f.says)
	}
	c.stayed(t)
	t.Logf("%s: the test took %.0f s", f.name, time.Since(started).Seconds())
}

// said returns how often the daemon's log has a line that matches.
func (b *box) said(t *testing.T, pattern string) int {
	t.Helper()
	if pattern == "" {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(b.Sh(t, "journalctl -u encoderd -o cat --no-pager | grep -c '"+pattern+"' || true")))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// leave sends everybody home and looks at what they have got: pictures that
// decode and whose numbers rise, and for each viewer the same ones. It returns
// the numbers.
func (c *crowd) leave(t *testing.T) []int {
	t.Helper()
	var lost uint64
	for _, r := range c.box.status(t).Readers {
		lost += r.Lost
	}
	for _, v := range c.others {
		v.Kill()
	}
	c.viewer.Kill()
	opened := c.box.said(t, "camera opened")
	all, seen := c.viewer.units(t), numbers(t, c.viewer.file)
	t.Logf("%d pictures arrived; the camera was opened %d times", len(seen), opened)
	checkRises(t, seen, opened)
	for i, v := range c.others {
		part := v.units(t)
		skipped, same := gaps(all, part)
		if !same || skipped > int(lost) || len(part) < len(all)/2 {
			t.Errorf("viewer %d got %d pictures of %d; the same: %v; left out: %d, the box counted %d", i, len(part), len(all), same, skipped, lost)
		}
	}
	return seen
}

// units returns a checksum of each coded picture that came.
func (v viewer) units(t *testing.T) (sums []string) {
	t.Helper()
	doc, err := os.ReadFile(v.sums)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(doc)) {
		if !strings.HasPrefix(line, "#") && strings.HasSuffix(line, "\n") { // the last may be cut off
			sums = append(sums, line[strings.LastIndexByte(line, ',')+1:])
		}
	}
	return sums
}

// gaps returns how many of all are left out of part between its first and its
// last one, and whether there is nothing else in it.
func gaps(all, part []string) (skipped int, same bool) {
	if len(part) == 0 {
		return 0, false
	}
	at := slices.Index(all, part[0])
	for _, sum := range part {
		n := slices.Index(all[max(at, 0):], sum)
		if at < 0 || n < 0 {
			return skipped, false
		}
		skipped += n
		at += n + 1
	}
	return skipped, true
}

// checkRises fails the test unless the camera's numbers rise and none comes
// twice. They begin anew with each time that the camera is opened.
func checkRises(t *testing.T, seen []int, opened int) {
	t.Helper()
	const begin = 30
	last, begins := -1, 1
	for i, n := range seen {
		switch {
		case n < 0:
			continue
		case n > last:
		case n < begin && begins < opened:
			begins++
		default:
			t.Errorf("picture %d has the number %d after %d; the camera was opened %d times", i, n, last, opened)
		}
		last = n
	}
	if last < 0 {
		t.Error("no picture has a number")
	}
}

// grows waits until a count of the box has grown by that many.
func grows(what string, by uint64, count func(status.Box) uint64) func(*testing.T, *box, status.Box) {
	return func(t *testing.T, b *box, before status.Box) {
		b.until(t, what, func(s status.Box) bool { return count(s) >= count(before)+by })
	}
}

func missed(s status.Box) uint64  { return s.Input.Missed }
func slates(s status.Box) uint64  { return s.Input.Slate }
func dropped(s status.Box) uint64 { return s.Renditions[0].Dropped }

// answers waits until a command in the guest ends well.
func answers(what, command string) func(*testing.T, *box, status.Box) {
	return func(t *testing.T, b *box, _ status.Box) {
		b.Sh(t, fmt.Sprintf("for i in $(seq 600); do if %s; then exit; fi; sleep 0.1; done; echo 'not within a minute: %s'; exit 1", command, what))
	}
}
