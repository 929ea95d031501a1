//go:build box

// Package virt starts the virtual board for tests: an arm64 machine of QEMU
// and Debian packages whose camera, encoder, sound card and front panel are
// real kernel devices. See README.md for what is in it.
//
//	Start ──► build.sh (nothing to do if the cache is good)
//	      └─► vm.py up: restores the snapshot, answers with ports
//	              │  2222  Sh, Try: a script in, its output and exit code back
//	              │  2223  Put: files into /run/work
//	              └─ ends with the test: standard input is closed
//
// A guest belongs to the test that started it. Its methods may be called from
// several goroutines, those that take a testing.TB only from the test's own.
package virt

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec" //nolint:depguard // test infrastructure: it starts the emulator
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long one script or one transfer may take. Emulation is
// slow and the host may be busy; a test that hangs is all it has to catch.
const patience = 10 * time.Minute

// Guest is a running virtual board.
type Guest struct {
	ports   map[string]int
	console string // the serial console's file, there while the guest runs
}

// Start restores a board from the snapshot and stops it when the test ends.
// It builds the board first where the cache lacks it, which takes about a
// minute. Any number of guests may run side by side: each has its own copy of
// the disk and free ports. If the test fails, the ends of console and journal
// go to its log, and both as a whole to its artifact directory.
func Start(tb testing.TB) *Guest {
	tb.Helper()
	kit := filepath.Join(Root(tb), "buildroot", "virt")
	work := cmp.Or(os.Getenv("VIRT_WORK"), filepath.Join(Root(tb), ".cache", "virt"))
	build := exec.CommandContext(tb.Context(), filepath.Join(kit, "build.sh"), work) //nolint:gosec // our own script
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("build the virtual board: %v\n%s", err, out)
	}

	// tb.Context ends before the cleanup, which still asks the guest for its journal.
	ctx := context.WithoutCancel(tb.Context())
	vm := exec.CommandContext(ctx, "python3", filepath.Join(kit, "vm.py"), work, "up") //nolint:gosec // our own script
	var said bytes.Buffer
	vm.Stderr = &said
	stdin, err := vm.StdinPipe()
	if err != nil {
		tb.Fatalf("start the virtual board: %v", err)
	}
	stdout, err := vm.StdoutPipe()
	if err != nil {
		tb.Fatalf("start the virtual board: %v", err)
	}
	if err := vm.Start(); err != nil {
		tb.Fatalf("start the virtual board: %v", err)
	}
	g := new(Guest)
	tb.Cleanup(func() {
		if tb.Failed() && g.console != "" {
			g.keep(tb)
		}
		if err := errors.Join(stdin.Close(), vm.Wait()); err != nil {
			tb.Errorf("stop the virtual board: %v\n%s", err, &said)
		}
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		tb.Fatalf("start the virtual board: no answer (%v)", err)
	}
	var up struct {
		Ports   map[string]int `json:"ports"`
		Console string         `json:"console"`
	}
	if err := json.Unmarshal(line, &up); err != nil {
		tb.Fatalf("start the virtual board: %q: %v", line, err)
	}
	g.ports, g.console = up.Ports, up.Console
	return g
}

// Port returns the port on 127.0.0.1 that leads to a service of the guest: sh
// (2222), put (2223), rtsp (8554), web (8080) or rtmp (1935). All are TCP. In
// the other direction the guest reaches the host's servers at 10.0.2.2. An
// unknown name is 0.
func (g *Guest) Port(name string) int { return g.ports[name] }

// Sh runs a bash script as root in the guest and returns what it wrote to
// standard output and standard error. An exit code other than 0 ends the test.
func (g *Guest) Sh(tb testing.TB, script string) string {
	tb.Helper()
	out, rc, err := g.Try(script)
	if err != nil {
		tb.Fatalf("guest: %v\n%s\n%s", err, script, out)
	}
	if rc != 0 {
		tb.Fatalf("guest: exit code %d of\n%s\n%s", rc, script, out)
	}
	return out
}

// lastLine is what the guest's ports answer at the end: the exit code.
var lastLine = regexp.MustCompile(`@@rc=(\d+)\n$`)

// Try is Sh for scripts that may fail: it returns the exit code too. The
// error is for a guest that could not be reached or that broke off.
func (g *Guest) Try(script string) (out string, rc int, err error) {
	return g.talk("sh", func(w io.Writer) error {
		_, err := io.WriteString(w, script+"\n")
		return err
	})
}

// Put copies files of the host into the guest: target, relative to /run/work,
// to path on the host. Modes are kept, the owner is root.
func (g *Guest) Put(tb testing.TB, files map[string]string) {
	tb.Helper()
	out, rc, err := g.talk("put", func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for target, path := range files {
			if err := add(tw, target, path); err != nil {
				return err
			}
		}
		return tw.Close()
	})
	if err != nil || rc != 0 {
		tb.Fatalf("put files into the guest: exit code %d, %v\n%s", rc, err, out)
	}
}

func add(tw *tar.Writer, target, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: target, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// talk has one conversation with a port of the guest: send, half-close, read
// to the end.
func (g *Guest) talk(port string, send func(io.Writer) error) (string, int, error) {
	conn, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: g.Port(port)})
	if err != nil {
		return "", 0, err
	}
	defer conn.Close() //nolint:errcheck // all is read by then
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", 0, err
	}
	if err := errors.Join(send(conn), conn.CloseWrite()); err != nil {
		return "", 0, fmt.Errorf("send to %s: %w", port, err)
	}
	all, err := io.ReadAll(conn)
	if err != nil {
		return string(all), 0, fmt.Errorf("read from %s: %w", port, err)
	}
	end := lastLine.FindSubmatchIndex(all)
	if end == nil {
		return string(all), 0, fmt.Errorf("read from %s: the guest broke off", port)
	}
	rc, err := strconv.Atoi(string(all[end[2]:end[3]]))
	return string(all[:end[0]]), rc, err
}

// keep saves what a person needs to understand a failure.
func (g *Guest) keep(tb testing.TB) {
	tb.Helper()
	console, err := os.ReadFile(g.console)
	if err != nil {
		tb.Logf("the guest's console: %v", err)
	}
	journal, _, err := g.Try("journalctl -b --no-pager -o short-monotonic")
	if err != nil {
		tb.Logf("the guest's journal: %v", err)
	}
	for name, text := range map[string]string{"console.log": string(console), "journal.log": journal} {
		path := filepath.Join(tb.ArtifactDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Logf("keep %s: %v", name, err)
		}
		lines := strings.Split(strings.TrimSpace(text), "\n")
		tb.Logf("the guest's %s, last lines:\n%s", name, strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

// Until waits until done holds, asking ten times a second, and ends the test
// with what if that takes longer than deadline.
func Until(tb testing.TB, deadline time.Duration, what string, done func() bool) {
	tb.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); !done(); {
		if time.Now().After(end) {
			tb.Fatalf("%s: not within %v", what, deadline)
		}
		select {
		case <-tick.C:
		case <-tb.Context().Done():
			tb.Fatalf("%s: %v", what, context.Cause(tb.Context()))
		}
	}
}

// Root returns the folder of the repository, found from the package's folder,
// in which go test runs.
func Root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	tb.Fatal("no go.mod above the test's folder: run it inside the repository")
	return ""
}
