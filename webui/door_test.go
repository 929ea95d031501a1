package webui

import (
	"net"
	"net/http"
	"testing"
	"time"
)

func TestTheDoorIsNeverWider(t *testing.T) {
	d := newDoor()
	open := func() net.Conn {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
		d.note(ours, http.StateNew)
		return ours
	}
	isOpen := func(c net.Conn) bool { return c.SetDeadline(time.Time{}) == nil }
	var inside []net.Conn
	for range maxConnsEach { // all pipes have one address
		inside = append(inside, open())
	}
	if c := inside[maxConnsEach-1]; !isOpen(c) {
		t.Error("closed before the door was full")
	}
	if c := open(); isOpen(c) {
		t.Error("one too many came in")
	}
	d.note(inside[0], http.StateClosed)
	d.note(inside[0], http.StateClosed)
	d.note(inside[1], http.StateHijacked)
	for range 2 {
		if c := open(); !isOpen(c) {
			t.Error("a free place stays empty")
		}
	}
	if c := open(); isOpen(c) {
		t.Error("one too many came in after others left")
	}
}
