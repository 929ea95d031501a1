package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/status"
)

// patience is for what is certain to come.
const patience = time.Minute

// A cable is the far side of a serial port that the box opens at path.
type cable struct {
	*os.File
	path string
}

func newCable(t *testing.T) cable {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	err = conn.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			n, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return cable{f, "/dev/pts/" + strconv.Itoa(n)}
}

// until reads packets that end says are whole until want comes, or, if that is
// nil, until the box closes the port. It returns the last one. answer is sent
// for each.
func (l cable) until(t *testing.T, whole func([]byte) bool, answer string, want []byte) (last []byte) {
	t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var have []byte
	for b := make([]byte, 1); ; {
		_, err := l.Read(b)
		if err != nil && want == nil && !os.IsTimeout(err) {
			return last
		}
		if err != nil {
			t.Fatalf("%v after % X", err, last)
		}
		if have = append(have, b[0]); !whole(have) {
			continue
		}
		last, have = have, nil
		_, _ = io.WriteString(l, answer) // the port may be closed
		if want != nil && bytes.Equal(last, want) {
			return last
		}
	}
}

// Whoever stands in the light must not believe to be on air when the box has
// stopped.
func TestTheLastPacketOnASerialLineIsDark(t *testing.T) {
	const took = "\x90\x41\xFF\x90\x51\xFF"
	visca := func(p []byte) bool { return p[len(p)-1] == 0xFF }
	umd := func(p []byte) bool { return len(p) == 18 }
	display := func(tally byte) []byte {
		return append([]byte{0x83, tally | 0x30}, "Hall            "...)
	}
	camera := func(d *Daemon, path string) run {
		return d.driveCamera(config.PTZ{Port: "serial:" + path, Baud: 9600, Camera: 1, Model: "sony"})
	}
	for _, tt := range []struct {
		name      string
		service   func(d *Daemon, path string) run
		whole     func([]byte) bool
		answer    string
		red, dark []byte
	}{
		{"a camera", camera, visca, took, []byte("\x81\x01\x7E\x01\x0A\x00\x02\xFF"), []byte("\x81\x01\x7E\x01\x0A\x00\x03\xFF")},
		{"a camera that says nothing", camera, visca, "", []byte("\x81\x01\x7E\x01\x0A\x00\x02\xFF"), []byte("\x81\x01\x7E\x01\x0A\x00\x03\xFF")},
		{"a display", func(d *Daemon, path string) run {
			return d.showTally(tallyOutConfig{Address: "serial:" + path, Input: 3, Text: "Hall"})
		}, umd, "", display(2), display(0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &Daemon{Options: Options{Log: slog.New(slog.DiscardHandler)}}
			state := t.TempDir()
			d.lit = newLitFile(state, d.Log)
			d.cell.Update(func(b *status.Box) { b.Tally.State = status.Program })
			far := newCable(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- tt.service(d, far.path)(ctx, func() {}) }()
			far.until(t, tt.whole, tt.answer, tt.red)
			if l, ok := ReadLit(state); !ok || len(l.Cameras)+len(l.Displays) != 1 {
				t.Errorf("of what is lit there is %+v, %t", l, ok)
			}
			cancel()
			if last := far.until(t, tt.whole, tt.answer, nil); !bytes.Equal(last, tt.dark) {
				t.Errorf("the last packet is % X, want % X", last, tt.dark)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if d.camera.Load() != nil {
				t.Error("the camera is still there")
			}
			if l, ok := ReadLit(state); !ok || len(l.Cameras)+len(l.Displays) != 0 {
				t.Errorf("of what is dark there is %+v, %t", l, ok)
			}
		})
	}
}

func TestADisplayThatHangsIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		began := time.Now()
		err := inTime(t.Context(), "display 7", func(context.Context) error { <-free; return nil })
		if err == nil || err.Error() != "darken display 7: it does not answer" || time.Since(began) != 4*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		close(free)
	})
}
