//go:build board

// Tests on a real kernel, as root: the guest of the virtual board.

package uevent

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

const loopback = "/sys/class/net/lo/uevent"

func TestBoardHearsTheKernelAndNobodyElse(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []Event
	heard := make(chan struct{}, 1)
	over := make(chan error)
	go func() {
		over <- Listen(ctx, []string{"net"}, func(e Event) {
			got = append(got, e)
			select {
			case heard <- struct{}{}:
			default:
			}
		})
	}()
	// Nothing says when the socket is bound: ask until it answers.
	for len(heard) == 0 {
		change(t)
	}
	<-heard
	speak(t, "add@/forged\x00ACTION=add\x00SUBSYSTEM=net\x00")
	change(t)
	<-heard
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	for _, e := range got {
		if want := (Event{Action: "change", Path: "/devices/virtual/net/lo", Subsystem: "net"}); e != want {
			t.Errorf("got %+v", e)
		}
	}
	t.Logf("%d events", len(got))
}

// change has the kernel tell of a change of the loopback interface.
func change(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(loopback, []byte("change"), 0); err != nil {
		t.Fatal(err)
	}
}

// speak sends a message to everybody who listens to the kernel.
func speak(t *testing.T, msg string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte(msg), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		t.Fatal(err)
	}
}
