package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
)

// A notify is systemd's end of the notification socket.
type notify struct {
	tb   testing.TB
	conn *net.UnixConn
	path string
}

func listenNotify(tb testing.TB) *notify {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return &notify{tb, conn, path}
}

// next returns the next message, or "" if none comes within d.
func (n *notify) next(d time.Duration) string {
	n.tb.Helper()
	_ = n.conn.SetReadDeadline(time.Now().Add(d))
	buf := make([]byte, 4096)
	k, err := n.conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		n.tb.Fatal(err)
	}
	return string(buf[:k])
}

// await waits for a message that holds a word.
func (n *notify) await(word string) {
	n.tb.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if strings.Contains(n.next(time.Until(end)), word) {
			return
		}
	}
	n.tb.Fatalf("waited %v in vain for %s", patience, word)
}

func TestTheWatchdogIsFedWhileMediaFlowsAndStarvesWhenTheEncoderHangs(t *testing.T) {
	n := listenNotify(t)
	p := prepare(t, settings{})
	p.launch("NOTIFY_SOCKET="+n.path, "WATCHDOG_USEC=4000000")
	n.await("READY=1")
	if b := p.now(); b.Renditions[0].State != status.Live || b.Renditions[0].Frames == 0 {
		t.Errorf("ready before the first coded picture: %+v", b.Renditions[0])
	}
	for range 3 {
		n.await("WATCHDOG=1")
	}
	p.fault("encoder-hung", true)
	p.logged("no other is left") // the box has tried to help itself
	p.logged("no progress")
	for n.next(time.Second/2) != "" { // what was on its way
	}
	if m := n.next(3 * time.Second); m != "" {
		t.Errorf("the watchdog is fed though the encoder hangs: %q", m)
	}
	before := p.now() // the program itself is well
	if before.Sound.PeakDBFS < -119 || !before.Input.Signal {
		t.Errorf("input %+v, sound %+v", before.Input, before.Sound)
	}
	p.fault("encoder-hung", false)
	n.await("WATCHDOG=1")
	p.stop()
	n.await("STOPPING=1")
}
