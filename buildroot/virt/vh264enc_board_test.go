//go:build board && (arm64 || amd64)

package virt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linux/videodev2.h, 64-bit layout.
const (
	reqBufs    = 0xc0145608
	qBuf       = 0xc058560f
	dqBuf      = 0xc0585611
	streamOn   = 0x40045612
	streamOff  = 0x40045613
	sParm      = 0xc0cc5616
	encoderCmd = 0xc028564d

	es, raw         = 9, 10 // V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE, …_OUTPUT_MPLANE
	cmdStart, stop  = 0, 1
	flagLast        = 0x00100000
	memoryMmap      = 1
	encoderNodePath = "/dev/v4l/by-path/platform-vh264enc.0-video-index0"
)

type v4l2Plane struct {
	bytesused uint32
	_         [60]byte
}

type v4l2Buffer struct {
	_                      uint32 // index
	kind, bytesused, flags uint32
	_                      [11]uint32 // field, timestamp, timecode, sequence
	memory                 uint32
	planes                 *v4l2Plane
	length                 uint32
	_                      [3]uint32
}

var _ [88]byte = [unsafe.Sizeof(v4l2Buffer{})]byte{}

func call[T any](fd int, request uintptr, arg *T) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return errno
	}
	return nil
}

func buffer(fd int, request uintptr, kind uint32) (v4l2Buffer, error) {
	plane := new(v4l2Plane)
	var pin runtime.Pinner
	pin.Pin(plane)
	defer pin.Unpin()
	b := v4l2Buffer{kind: kind, memory: memoryMmap, planes: plane, length: 1}
	err := call(fd, request, &b)
	b.bytesused = plane.bytesused
	return b, err
}

func command(fd int, c uint32) error { return call(fd, encoderCmd, &[10]uint32{c}) }

func stream(fd int, request uintptr, kind int32) error { return call(fd, request, &kind) }

// openEncoder gives an encoder with both sides streaming and no buffer queued.
func openEncoder(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(encoderNodePath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open the encoder: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, side := range []uint32{raw, es} {
		if err := errors.Join(call(fd, reqBufs, &[5]uint32{2, side, memoryMmap}), stream(fd, streamOn, int32(side))); err != nil {
			t.Fatalf("start side %d: %v", side, err)
		}
	}
	return fd
}

func waitForPicture(t *testing.T, fd int) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 60_000)
		if n > 0 {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatalf("no picture within a minute: %v", err)
		}
	}
}

func TestNoCommandDuringADrain(t *testing.T) {
	fd := openEncoder(t)
	if err := command(fd, stop); err != nil {
		t.Fatalf("begin the drain: %v", err)
	}
	for name, c := range map[string]uint32{"START": cmdStart, "STOP": stop} {
		if err := command(fd, c); !errors.Is(err, unix.EBUSY) {
			t.Errorf("%s during a drain gives %v, want EBUSY", name, err)
		}
	}
	if _, err := buffer(fd, qBuf, es); err != nil {
		t.Fatal(err)
	}
	if b, err := buffer(fd, dqBuf, es); err != nil || b.flags&flagLast == 0 || b.bytesused != 0 {
		t.Fatalf("the drain ends with flags %#x, %d bytes, %v; want LAST and none", b.flags, b.bytesused, err)
	}
	if err := command(fd, cmdStart); err != nil {
		t.Errorf("START after the drain: %v", err)
	}
	if _, err := buffer(fd, dqBuf, es); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("DQBUF after START gives %v, want EAGAIN", err)
	}
}

func TestRestartOfTheRawSideResumesAfterADrain(t *testing.T) {
	fd := openEncoder(t)
	if _, err := buffer(fd, qBuf, es); err != nil {
		t.Fatal(err)
	}
	if err := command(fd, stop); err != nil {
		t.Fatalf("drain: %v", err)
	}
	if b, err := buffer(fd, dqBuf, es); err != nil || b.flags&flagLast == 0 {
		t.Fatalf("the drain ends with flags %#x, %v; want LAST", b.flags, err)
	}
	if _, err := buffer(fd, dqBuf, es); !errors.Is(err, unix.EPIPE) {
		t.Errorf("DQBUF after the drain gives %v, want EPIPE", err)
	}
	if err := errors.Join(stream(fd, streamOff, raw), stream(fd, streamOn, raw)); err != nil {
		t.Fatal(err)
	}
	for _, side := range []uint32{es, raw} {
		if _, err := buffer(fd, qBuf, side); err != nil {
			t.Fatal(err)
		}
	}
	waitForPicture(t, fd)
	if b, err := buffer(fd, dqBuf, es); err != nil || b.flags&flagLast != 0 || b.bytesused == 0 {
		t.Errorf("after the restart a picture has flags %#x, %d bytes, %v", b.flags, b.bytesused, err)
	}
}

// TestAbsurdFrameIntervalIsSurvived encodes at an interval whose denominator
// times 8 is 0 in 32 bits.
func TestAbsurdFrameIntervalIsSurvived(t *testing.T) {
	fd := openEncoder(t)
	parm := [51]uint32{0: raw, 3: 1 << 29, 4: 1 << 30} // type, capability, outputmode, numerator, denominator
	if err := call(fd, sParm, &parm); err != nil {
		t.Fatal(err)
	}
	if parm[3] == 0 || parm[4] == 0 {
		t.Errorf("the interval became %d/%d", parm[3], parm[4])
	}
	for _, side := range []uint32{es, raw} {
		if _, err := buffer(fd, qBuf, side); err != nil {
			t.Fatal(err)
		}
	}
	waitForPicture(t, fd)
	if b, err := buffer(fd, dqBuf, es); err != nil || b.bytesused == 0 {
		t.Errorf("the picture has %d bytes, %v", b.bytesused, err)
	}
}

// hangStop holds every STREAMOFF of the encoder, or lets them go.
func hangStop(t *testing.T, on string) {
	t.Helper()
	if err := os.WriteFile("/sys/module/vh264enc/parameters/hang_stop", []byte(on), 0o600); err != nil {
		t.Fatal(err)
	}
}

// untilHeld waits until a thread of a process waits in STREAMOFF.
func untilHeld(t *testing.T, pid int) {
	t.Helper()
	call := fmt.Appendf(nil, " %#x ", streamOff)
	for over := time.Now().Add(time.Minute); time.Now().Before(over); <-time.After(10 * time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid)) // number, arguments
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range threads {
			if waits, err := os.ReadFile(file); err == nil && bytes.Contains(waits, call) {
				return
			}
		}
	}
	t.Fatal("no thread is held")
}

func TestAStopHangsUntilItIsLetGo(t *testing.T) {
	fd := openEncoder(t)
	hangStop(t, "1")
	defer hangStop(t, "0")
	stopped := make(chan error)
	go func() { stopped <- stream(fd, streamOff, raw) }()
	untilHeld(t, os.Getpid())
	select {
	case err := <-stopped:
		t.Errorf("STREAMOFF came back with %v", err)
	default:
	}
	hangStop(t, "0")
	if err := <-stopped; err != nil {
		t.Errorf("STREAMOFF says %v", err)
	}
	if err := errors.Join(stream(fd, streamOn, raw), stream(fd, streamOff, raw)); err != nil {
		t.Errorf("the encoder is not whole after that: %v", err)
	}
}

func TestAStopThatHangsEndsWithItsProcess(t *testing.T) {
	hangStop(t, "1")
	defer hangStop(t, "0")
	c := exec.Command("v4l2-ctl", "-d", encoderNodePath, "--stream-mmap", "--stream-out-mmap", "--stream-count=3")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	untilHeld(t, c.Process.Pid)
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil {
		t.Error("the process ended well, it should have been killed")
	}
	openEncoder(t)
	hangStop(t, "0")
}
