package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"testing"

	"encoderd.example/stream"
)

func TestGate(t *testing.T) {
	g := stream.Gate{Limits: stream.Limits{Total: 4, Each: 2}}
	enter := func(peer string, want bool) func() {
		t.Helper()
		leave, ok := g.Enter(peer)
		if ok != want {
			t.Errorf("%s: let in is %v, want %v", peer, ok, want)
		}
		return leave
	}
	leave := enter("192.0.2.1:1", true)
	enter("192.0.2.1:2", true)
	enter("[::ffff:192.0.2.1]:3", false) // the same address
	enter("[2001:db8::1]:1", true)
	enter("[2001:db8::2%eth0]:1", true)
	enter("[2001:db8::3]:1", false) // the same /64
	enter("192.0.2.9:1", false)     // full
	leave()
	enter("192.0.2.9:1", true)
}

func TestAFairGateKeepsPlacesForOthers(t *testing.T) {
	g := stream.Gate{Limits: stream.Limits{Total: 64, Each: 16}, Fair: true}
	var counts []int
	for host := range 8 {
		n := 0
		for {
			if _, ok := g.Enter(fmt.Sprintf("192.0.2.%d:5000", host)); !ok {
				break
			}
			n++
		}
		counts = append(counts, n)
	}
	if want := []int{16, 16, 16, 8, 4, 2, 1, 1}; !slices.Equal(counts, want) {
		t.Errorf("one origin after the other gets %v, want %v", counts, want)
	}
}

// A hall is a gate and who was displaced from it.
type hall struct {
	stream.Gate
	displaced []string
}

// wait lets peer in and wants it to cost so many their place.
func (h *hall) wait(t *testing.T, peer string, losers ...string) *stream.Place {
	t.Helper()
	before := len(h.displaced)
	p := h.Wait(peer, func() { h.displaced = append(h.displaced, peer) })
	if p == nil {
		t.Fatalf("%s is not let in", peer)
	}
	if got := h.displaced[before:]; !slices.Equal(got, losers) {
		t.Errorf("%s displaces %v, want %v", peer, got, losers)
	}
	return p
}

func TestWhoHasMostWaitingMakesRoomTheOldestFirst(t *testing.T) {
	h := hall{Gate: stream.Gate{Waiting: 4}}
	h.wait(t, "192.0.2.1:1")
	h.wait(t, "192.0.2.2:1")
	h.wait(t, "192.0.2.2:2")
	h.wait(t, "192.0.2.2:3")
	h.wait(t, "192.0.2.3:1", "192.0.2.2:1")
	h.wait(t, "192.0.2.2:4", "192.0.2.2:2") // it would have most
	h.wait(t, "192.0.2.3:2", "192.0.2.2:3")
	h.wait(t, "192.0.2.4:1", "192.0.2.3:1") // of two with as many, who came first
}

func TestOneAddressThatIsFullMakesRoomByItself(t *testing.T) {
	h := hall{Gate: stream.Gate{Limits: stream.Limits{Each: 2}}}
	h.wait(t, "192.0.2.2:1")
	h.wait(t, "192.0.2.1:1").Keep()
	h.wait(t, "192.0.2.1:2")
	h.wait(t, "192.0.2.1:3", "192.0.2.1:2")
}

func TestAKeptPlaceIsGivenToNobody(t *testing.T) {
	h := hall{Gate: stream.Gate{Limits: stream.Limits{Total: 2}}}
	first, second := h.wait(t, "192.0.2.1:1"), h.wait(t, "192.0.2.1:2")
	first.Keep()
	first.Keep()
	second.Keep()
	if h.Wait("192.0.2.3:1", func() {}) != nil {
		t.Error("a place was given away that is kept")
	}
	second.Yield()
	second.Yield()
	third := h.wait(t, "192.0.2.3:1", "192.0.2.1:2")
	second.Keep() // has none any more
	second.Leave()
	if h.Wait("192.0.2.4:1", func() {}) == nil {
		t.Error("nobody makes room")
	}
	third.Leave() // displaced
	first.Leave()
	first.Leave()
	h.wait(t, "192.0.2.5:1")
}

func TestFourAddressesCannotShutTheGate(t *testing.T) {
	for _, kept := range []bool{false, true} {
		g := stream.Gate{Limits: stream.Limits{Total: 64, Each: 16}, Waiting: 32, Fair: true}
		for i := range 1000 {
			if p := g.Wait(fmt.Sprintf("192.0.2.%d:%d", i%4, i), func() {}); kept {
				p.Keep()
			}
		}
		for host := range 8 {
			p := g.Wait(fmt.Sprintf("198.51.100.%d:1", host), func() { t.Errorf("host %d loses its place", host) })
			if p == nil {
				t.Errorf("kept %t: host %d is not let in", kept, host)
			}
		}
	}
}

func TestNoPlaceTakesAllCalls(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	p := stream.PlaceOf(a)
	p.Keep()
	p.Yield()
	p.Leave()
	if p != nil {
		t.Error("a connection of no gate has a place")
	}
}

func TestADisplacedCallerIsHungUpOn(t *testing.T) {
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	gate := stream.Gate{Limits: stream.Limits{Total: 1}}
	inside, done := make(chan net.Conn), make(chan error, 1)
	go func() {
		done <- gate.Accept(ctx, l, slog.New(slog.DiscardHandler), func(_ context.Context, nc net.Conn, _ *stream.Place) {
			inside <- nc
			if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the server reads %v", err)
			}
		})
	}()
	first := call(t, l)
	<-inside
	call(t, l)
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("who was displaced gets %v", err)
	}
	(<-inside).Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
