package tsl

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/daemon/tally"
	"encoderd.example/daemon/tally/tallytest"
)

// background runs an Out until the returned function is called, which returns
// what it ended by.
func background(t *testing.T, o *Out) func() error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- o.Run(ctx, func() {}) }()
	stop := func() error {
		cancel()
		return <-over
	}
	t.Cleanup(cancel)
	return stop
}

// packets tells the tally of every display that comes.
func packets(r io.Reader) <-chan Display31 {
	all := make(chan Display31, 100)
	go func() {
		defer close(all)
		for b := make([]byte, size31); ; {
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			if d, err := ParseDisplay31(b); err == nil {
				all <- d
			}
		}
	}()
	return all
}

func TestOutSaysItAtOnceAndEverySecondAndGoesDarkAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		out := NewOut(opens(near), Channel{7, 1, 2}, "HALL")
		stop := background(t, out)
		heard := packets(far)
		dark := Display31{Address: 7, Brightness: 3, Text: "HALL"}
		red, green := dark, dark
		red.Tally[1], green.Tally[0] = true, true
		want := func(d Display31, after time.Duration) {
			t.Helper()
			begin := time.Now()
			if got := <-heard; got != d || time.Since(begin) != after {
				t.Errorf("%+v after %v", got, time.Since(begin))
			}
		}
		want(dark, 0)
		want(dark, Refresh)
		time.Sleep(Refresh / 4)
		out.Show(status.Program)
		want(red, 0)
		want(red, Refresh*3/4)
		want(red, Refresh)
		out.Show(status.Preview)
		want(green, 0)
		out.Show(status.Unknown) // never red because of what nobody knows
		want(dark, 0)
		out.Show(status.Program)
		want(red, 0)
		if err := stop(); err != nil {
			t.Error(err)
		}
		want(dark, 0)
		if _, more := <-heard; more {
			t.Error("says more after the end")
		}
	})
}

func TestOutSaysWhatIsSoOnceItIsConnectedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		out := NewOut(func(context.Context) (io.ReadWriteCloser, error) { return near, nil }, Channel{7, 1, 2}, "HALL")
		far.Close()
		if err := out.Run(t.Context(), func() { t.Error("is live") }); err == nil {
			t.Error("ended well")
		}
		out.Show(status.Program)
		near, far = net.Pipe()
		stop := background(t, out)
		if d := <-packets(far); !d.Tally[1] {
			t.Errorf("says %+v", d)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestADisplayThatTakesNothingIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		begin := time.Now()
		err := NewOut(opens(near), Channel{}, "").Run(t.Context(), func() { t.Error("is live") })
		if err == nil || time.Since(begin) != sendPatience {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestAPortThatCannotBeOpened(t *testing.T) {
	busy := errors.New("port is in use")
	out := NewOut(func(context.Context) (io.ReadWriteCloser, error) { return nil, busy }, Channel{}, "")
	if err := out.Run(t.Context(), func() { t.Error("is live") }); !errors.Is(err, busy) {
		t.Error(err)
	}
}

func TestADisplayIsDarkenedAfterARunThatCouldNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		heard := packets(far)
		ended := make(chan error, 1)
		go func() { ended <- NewOut(opens(near), Channel{7, 1, 2}, "HALL").Darken(t.Context()) }()
		for range darkTimes {
			if d := <-heard; d != (Display31{Address: 7, Brightness: 3, Text: "HALL"}) {
				t.Errorf("says %+v", d)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, more := <-heard; more {
			t.Error("says more after the end")
		}
	})
}

func TestADisplayThatIsNotThereKeepsNobodyDarkeningIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // which takes nothing
		defer far.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := NewOut(opens(near), Channel{}, "").Darken(ctx); err == nil || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		gone := errors.New("no route to host")
		err := NewOut(func(context.Context) (io.ReadWriteCloser, error) { return nil, gone }, Channel{}, "").Darken(ctx)
		if !errors.Is(err, gone) {
			t.Error(err)
		}
	})
}

// What one box says, another follows: by every way there is.
func TestOutLightsAnotherBox(t *testing.T) {
	udp, openUDP := listenPackets(t)
	tcp, openTCP := listen(t)
	port, far := openPty(t)
	tests := []struct {
		name string
		out  tally.Opener
		in   tally.Link
	}{
		{"udp", tally.Dial("udp", udp), Packets{Dialect: follow31, Open: openUDP}},
		{"tcp", tally.Dial("tcp", tcp), Listener{Dialect: follow31, Open: openTCP}},
		{"serial", opens(far), Stream{Dialect: follow31, Open: opens(port)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			room := tallytest.New(t, "cam", "other")
			room.Start(tt.in)
			out := NewOut(tt.out, Channel{4, 1, 2}, "CAM 4")
			stop := background(t, out)
			for _, state := range slices.Repeat([]string{status.Program, status.Preview, status.Off}, 3) {
				out.Show(state)
				room.Await("cam=" + state + " other=unknown")
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A deaf display is switched off: the network says so at the next write.
type deaf struct {
	io.ReadWriteCloser
	refusals int
}

func (d *deaf) Write(b []byte) (int, error) {
	if d.refusals == 0 {
		return d.ReadWriteCloser.Write(b)
	}
	d.refusals--
	return 0, &net.OpError{Op: "write", Err: syscall.ECONNREFUSED}
}

func TestADisplayThatIsSwitchedOffIsTriedEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		out := NewOut(opens(&deaf{near, 3}), Channel{4, 1, 2}, "CAM 4")
		out.Show(status.Program)
		stop := background(t, out)
		heard := packets(far)
		if d := <-heard; !d.Tally[1] {
			t.Errorf("says %+v", d)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
