package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"encoderd.example/stream/streamtest/peer"
)

// Elsewhere is another machine as far as the network can tell: a namespace
// with a line to this one, that can be cut.
type elsewhere struct {
	space, near, far string // names of the namespace and of the line's ends
	address          string // of the machine elsewhere
}

// newElsewhere needs [peer.Root], and ip of iproute2.
func newElsewhere(t *testing.T) elsewhere {
	t.Helper()
	id := os.Getpid() & 0x3fff
	e := elsewhere{space: fmt.Sprintf("encoderd-%d", id), near: fmt.Sprintf("ve%dn", id), far: fmt.Sprintf("ve%df", id)}
	// A network of four addresses, of those for tests of networks (RFC 2544).
	subnet := fmt.Sprintf("198.18.%d.", id>>6)
	here := subnet + fmt.Sprint(id&63<<2|1)
	e.address = subnet + fmt.Sprint(id&63<<2|2)
	ip(t, "netns", "add", e.space)
	t.Cleanup(func() { ip(t, "netns", "del", e.space) }) // and the line with it
	ip(t, "link", "add", e.near, "type", "veth", "peer", "name", e.far, "netns", e.space)
	ip(t, "address", "add", here+"/30", "dev", e.near)
	ip(t, "link", "set", e.near, "up")
	ip(t, "-n", e.space, "address", "add", e.address+"/30", "dev", e.far)
	ip(t, "-n", e.space, "link", "set", e.far, "up")
	ip(t, "-n", e.space, "route", "add", "default", "via", here)
	return e
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	peer.Output(t, "ip", args...)
}

// crowd starts n players that sit elsewhere.
func (e elsewhere) crowd(t *testing.T, p *process, n int) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread, which is elsewhere, ends with the goroutine
		done <- e.enter(func() error {
			_, err := gather(t, p, n, false)
			return err
		})
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// enter takes the calling thread elsewhere, where sockets stay that do opens.
func (e elsewhere) enter(do func() error) error {
	f, err := os.Open(filepath.Join("/run/netns", e.space))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", e.space, err)
	}
	return do()
}

// cut cuts the line.
func (e elsewhere) cut(t *testing.T) {
	t.Helper()
	ip(t, "-n", e.space, "link", "set", e.far, "down")
}

// holds reports whether a peer's address is elsewhere.
func (e elsewhere) holds(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && host == e.address
}
