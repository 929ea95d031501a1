package stream

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A fakeSink keeps what it takes. While it is full nothing goes out.
type fakeSink struct {
	waits bool

	mu      sync.Mutex
	full    bool
	broken  error
	taken   []int
	out     int // of them
	flushed bool
	shared  int // plates that another had laid out
	wrong   int // plates of another value
}

func (s *fakeSink) Take(v int, plate *Plate) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = append(s.taken, v)
	s.print(byte(v), plate)
	return 10, nil
}

func (s *fakeSink) print(v byte, plate *Plate) {
	switch {
	case plate == nil:
	case plate.Blank():
		plate.Lay(0, []byte{v})
	case plate.bytes[0] != v:
		s.wrong++
	default:
		s.shared++
	}
}

func (s *fakeSink) Push() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full || s.broken != nil {
		return false, s.broken
	}
	s.out = len(s.taken)
	return true, nil
}

func (s *fakeSink) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushed = s.out < len(s.taken)
	s.out = len(s.taken)
	return nil
}

func (s *fakeSink) Waits() bool { return s.waits }

func (s *fakeSink) Hold(serve func()) error {
	serve()
	return nil
}

func (s *fakeSink) set(change func(*fakeSink)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *fakeSink) got() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.taken[:s.out])
}

// A party is many readers of one ring in a bubble of synctest.
type party struct {
	ring    *Ring[int]
	fan     Fanout[int]
	sinks   []*fakeSink
	viewers []*Viewer
	errs    []error
	wg      sync.WaitGroup
}

func newParty(ctx context.Context, readers int) *party {
	p := &party{ring: NewRing[int](8), fan: Fanout[int]{At: func(v int) time.Duration { return time.Duration(v) }}}
	p.ring.Publish(0, true)
	p.errs = make([]error, readers)
	for i := range readers {
		sink, viewer := &fakeSink{waits: i%7 == 3}, &Viewer{}
		p.sinks, p.viewers = append(p.sinks, sink), append(p.viewers, viewer)
		p.wg.Go(func() { p.errs[i] = p.fan.Serve(ctx, p.ring.Reader(), viewer, sink) })
	}
	return p
}

func upTo(n int) (numbers []int) {
	for i := range n {
		numbers = append(numbers, i)
	}
	return numbers
}

func TestEveryReaderGetsEverythingFromAFewGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const readers = 3 * laneSeats
		p := newParty(t.Context(), readers)
		synctest.Wait()
		if n := len(p.fan.lanes[p.ring]); n > 3 || n < 2 {
			t.Errorf("%d lanes for %d readers", n, readers)
		}
		for i := 1; i < 100; i++ {
			p.ring.Publish(i, i%4 == 0)
			synctest.Wait()
		}
		p.ring.Close()
		p.wg.Wait()
		for i, s := range p.sinks {
			if !slices.Equal(s.got(), upTo(100)) || !errors.Is(p.errs[i], ErrClosed) {
				t.Fatalf("reader %d got %v, %v", i, s.got(), p.errs[i])
			}
			if v := p.viewers[i]; v.Bytes.Load() != 1000 || v.Lost.Load() != 0 || v.Lag.Load() != 0 {
				t.Errorf("reader %d: %d bytes, %d lost, lag %d", i, v.Bytes.Load(), v.Lost.Load(), v.Lag.Load())
			}
		}
		if len(p.fan.lanes) > 0 {
			t.Errorf("lanes are left: %v", p.fan.lanes)
		}
	})
}

func TestReadersOfAValueShareItsPlate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		const readers, values = 3, 50
		p := newParty(ctx, readers+1) // the fourth has a goroutine of its own
		synctest.Wait()
		p.sinks[0].set(func(s *fakeSink) { s.full = true })
		for i := 1; i < values; i++ {
			if i == values/2 {
				p.sinks[0].set(func(s *fakeSink) { s.full = false }) // it is some values behind for a while
			}
			p.ring.Publish(i, i%4 == 0)
			synctest.Wait()
		}
		cancel()
		p.wg.Wait()
		shared := 0
		for i, s := range p.sinks {
			if shared += s.shared; s.wrong > 0 {
				t.Errorf("reader %d got %d plates of other values", i, s.wrong)
			}
		}
		if got := len(p.sinks[0].got()); got == values || got < 3 {
			t.Fatalf("the slow reader got %d of %d values", got, values)
		}
		if shared < (readers-2)*(values-1) || p.sinks[readers].shared > 0 {
			t.Errorf("%d plates were shared, %d by who is alone", shared, p.sinks[readers].shared)
		}
	})
}

func TestAFullReaderDelaysNobodyAndGoesOnAtAKeyValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newParty(ctx, 2)
		synctest.Wait()
		slow, quick := p.sinks[0], p.sinks[1]
		slow.set(func(s *fakeSink) { s.full = true })
		for i := 1; i < 30; i++ {
			p.ring.Publish(i, i%4 == 0)
			synctest.Wait()
			if n := len(quick.got()); n != i+1 {
				t.Fatalf("the other reader has %d of %d values", n, i+1)
			}
		}
		if !slices.Equal(slow.got(), upTo(1)) || p.viewers[0].Lag.Load() == 0 {
			t.Errorf("got %v, lag %d", slow.got(), p.viewers[0].Lag.Load())
		}
		slow.set(func(s *fakeSink) { s.full = false })
		time.Sleep(fullPause) // nothing is published
		synctest.Wait()
		if got := slow.got(); !slices.Equal(got, []int{0, 1, 28, 29}) {
			t.Errorf("got %v", got)
		}
		if n := p.viewers[0].Lost.Load(); n != 26 {
			t.Errorf("%d are told as lost", n)
		}
		cancel()
		p.wg.Wait()
	})
}

func TestWhoWaitsForAKeyValueDoesNotLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newParty(ctx, 1)
		synctest.Wait()
		p.sinks[0].set(func(s *fakeSink) { s.full = true })
		for i := 1; i < 20; i++ { // no key value is left
			p.ring.Publish(i, false)
			synctest.Wait()
		}
		if p.viewers[0].Lag.Load() == 0 {
			t.Fatal("a full reader does not lag")
		}
		p.sinks[0].set(func(s *fakeSink) { s.full = false })
		time.Sleep(fullPause)
		synctest.Wait()
		if got, lag := p.sinks[0].got(), p.viewers[0].Lag.Load(); !slices.Equal(got, upTo(2)) || lag != 0 {
			t.Errorf("got %v, lag %d", got, lag)
		}
		cancel()
		p.wg.Wait()
	})
}

func TestWhatIsOnItsWayIsFlushedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := errors.New("over")
		ctx, cancel := context.WithCancelCause(t.Context())
		p := newParty(ctx, 2)
		synctest.Wait()
		p.sinks[0].set(func(s *fakeSink) { s.full = true })
		p.ring.Publish(1, false)
		synctest.Wait()
		cancel(over)
		p.wg.Wait()
		for i, s := range p.sinks {
			if !slices.Equal(s.got(), upTo(2)) || s.flushed != (i == 0) || !errors.Is(p.errs[i], over) {
				t.Errorf("reader %d: %v, flushed %v, %v", i, s.got(), s.flushed, p.errs[i])
			}
		}
	})
}

func TestABrokenReaderLeavesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		ctx, cancel := context.WithCancel(t.Context())
		p := newParty(ctx, 5) // the fourth has a goroutine of its own
		synctest.Wait()
		for _, i := range []int{1, 3} {
			p.sinks[i].set(func(s *fakeSink) { s.broken = broken })
		}
		p.ring.Publish(1, false)
		synctest.Wait()
		p.ring.Publish(2, false)
		synctest.Wait()
		cancel()
		p.wg.Wait()
		for i, s := range p.sinks {
			want, why := upTo(3), context.Canceled
			if i == 1 || i == 3 {
				want, why = upTo(1), broken
			}
			if !slices.Equal(s.got(), want) || !errors.Is(p.errs[i], why) {
				t.Errorf("reader %d: %v, %v", i, s.got(), p.errs[i])
			}
		}
	})
}

func TestWhoComesLaterIsSeatedWhereThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newParty(ctx, 1)
		synctest.Wait()
		own, leave := context.WithCancel(ctx)
		late := &fakeSink{}
		p.wg.Go(func() { _ = p.fan.Serve(own, p.ring.Reader(), &Viewer{}, late) })
		synctest.Wait()
		if n := len(p.fan.lanes[p.ring]); n != 1 {
			t.Errorf("%d lanes for two", n)
		}
		leave()
		synctest.Wait()
		p.ring.Publish(1, false)
		synctest.Wait()
		if !slices.Equal(late.got(), upTo(1)) || !slices.Equal(p.sinks[0].got(), upTo(2)) {
			t.Errorf("who left has %v, who stays %v", late.got(), p.sinks[0].got())
		}
		cancel()
		p.wg.Wait()
	})
}
