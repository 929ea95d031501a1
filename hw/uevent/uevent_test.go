package uevent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plugged is what the kernel sends when a camera comes.
const plugged = "add@/devices/platform/vivid.0/video4linux/video0\x00ACTION=add\x00" +
	"DEVPATH=/devices/platform/vivid.0/video4linux/video0\x00SUBSYSTEM=video4linux\x00" +
	"MAJOR=81\x00MINOR=0\x00DEVNAME=video0\x00SEQNUM=1235\x00"

func TestParse(t *testing.T) {
	camera := Event{Action: "add", Path: "/devices/platform/vivid.0/video4linux/video0", Subsystem: "video4linux", Name: "video0"}
	tests := []struct {
		name, msg string
		want      Event
		bad       bool
	}{
		{"a camera comes", plugged, camera, false},
		{"no keys", "change@/devices/virtual/net/lo\x00", Event{Action: "change", Path: "/devices/virtual/net/lo"}, false},
		{"a value holds an equals sign", "add@/x\x00SUBSYSTEM=a=b\x00", Event{Action: "add", Path: "/x", Subsystem: "a=b"}, false},
		{"last string is not ended", "add@/x\x00SUBSYSTEM=sound", Event{Action: "add", Path: "/x", Subsystem: "sound"}, false},
		{"empty", "", Event{}, true},
		{"no zero byte at all", "add@/x", Event{}, true},
		{"udev's own format", "libudev\x00\xfe\xed\xca\xfe", Event{}, true},
		{"no action", "@/x\x00", Event{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.msg))
			if got != tt.want || errors.Is(err, errMalformed) != tt.bad {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(plugged))
	f.Add([]byte("remove@/devices/x\x00ACTION=remove\x00=\x00\x00SUBSYSTEM\x00"))
	f.Add([]byte("libudev\x00\xfe\xed\xca\xfe"))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		e, err := Parse(msg)
		if err != nil && e != (Event{}) {
			t.Errorf("an error beside %+v", e)
		}
		if strings.ContainsRune(e.Action+e.Path+e.Subsystem+e.Name, 0) {
			t.Errorf("a zero byte inside %+v", e)
		}
	})
}

func TestOnlyTheKernelIsTrusted(t *testing.T) {
	tests := []struct {
		name string
		from unix.Sockaddr
		want bool
	}{
		{"the kernel", &unix.SockaddrNetlink{Pid: 0, Groups: 1}, true},
		{"a process", &unix.SockaddrNetlink{Pid: 4711, Groups: 1}, false},
		{"no address", nil, false},
		{"another family", &unix.SockaddrUnix{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := fromKernel(tt.from); got != tt.want {
				t.Errorf("trusted: %v", got)
			}
		})
	}
}

// pair returns a socket to listen on and a descriptor to send from.
func pair(t *testing.T, trust func(unix.Sockaddr) bool) (*socket, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := newSocket(fds[0], trust)
	t.Cleanup(func() {
		s.close()
		_ = unix.Close(fds[1])
	})
	return s, fds[1]
}

func TestListenTellsOfTheSubsystemsAskedFor(t *testing.T) {
	trusted := true
	s, far := pair(t, func(unix.Sockaddr) bool { defer func() { trusted = true }(); return trusted })
	trusted = false // the first message comes from a stranger
	for _, msg := range []string{
		"add@/stranger\x00SUBSYSTEM=video4linux\x00",
		"add@/devices/net/lo\x00SUBSYSTEM=net\x00",
		"nonsense\x00",
		plugged,
		"remove@/devices/card1\x00SUBSYSTEM=sound\x00",
	} {
		if _, err := unix.Write(far, []byte(msg)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	err := s.listen(ctx, []string{"video4linux", "sound"}, func(e Event) {
		got = append(got, e.Action+" "+e.Subsystem)
		if len(got) == 2 {
			cancel()
		}
	})
	if want := []string{"add video4linux", "remove sound"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestListenReturnsWhenTheContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Listen(ctx, nil, func(Event) {}) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A kernel that drops events says so once, by ENOBUFS. A listener on a real
// socket with the smallest buffer is flooded by its own process: that needs no
// rights on a route socket, and the error is the same.
func TestLostEventsAreToldOf(t *testing.T) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	s := newSocket(fd, fromKernel)
	defer s.close()
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	); err != nil {
		t.Fatal(err)
	}
	flood(t, fd)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lost := false
	if err := s.listen(ctx, nil, func(e Event) { lost = e.Lost; cancel() }); err != nil || !lost {
		t.Errorf("lost %v, %v", lost, err)
	}
}

// flood asks the kernel for an answer again and again and reads none of them.
func flood(t *testing.T, fd int) {
	t.Helper()
	// struct nlmsghdr of a request (NLM_F_REQUEST|NLM_F_ACK) of type NLMSG_NOOP+8,
	// which route sockets refuse with an error message each.
	request := make([]byte, unix.NLMSG_HDRLEN)
	request[0], request[4], request[6] = unix.NLMSG_HDRLEN, 0xF0, unix.NLM_F_REQUEST|unix.NLM_F_ACK
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for range 1000 {
		if err := unix.Sendto(fd, request, 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
}

func TestABurstMakesTwoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan struct{})
		start := time.Now()
		var calls []time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			settle(ctx, events, func() { calls = append(calls, time.Since(start)) })
		}()
		for range 5 {
			events <- struct{}{}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		cancel()
		<-over
		last := 400 * time.Millisecond
		if want := []time.Duration{last + quiet, last + settled}; !slices.Equal(calls, want) {
			t.Errorf("called at %v, want %v", calls, want)
		}
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Watch(ctx, func() {}) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
