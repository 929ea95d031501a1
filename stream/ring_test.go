package stream_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/stream"
)

func ExampleRing() {
	ring := stream.NewRing[string](8)
	ring.Publish("P", false)
	ring.Publish("I", true)
	ring.Publish("p", false)
	late := ring.Reader() // starts at the key value, not in mid-GOP
	for range 2 {
		v, _ := late.Next(context.Background())
		fmt.Println(v)
	}
	// Output:
	// I
	// p
}

func TestSlowReaderGoesOnAtKey(t *testing.T) {
	tests := []struct {
		name      string
		published int
		keys      []int
		want      int // -1: waits
		lost      uint64
	}{
		{"keeps up", 8, []int{0}, 0, 0},
		{"overtaken", 20, []int{0, 14}, 14, 14},
		{"latest key wins", 20, []int{0, 14, 18}, 18, 18},
		{"key overwritten too", 20, []int{0, 3}, -1, 20},
		{"exactly full", 8, []int{0, 4}, 0, 0},
		{"one too many", 9, []int{0, 4}, 4, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ring := stream.NewRing[int](8)
				var rd *stream.Reader[int]
				for i := range tt.published {
					key := false
					for _, k := range tt.keys {
						key = key || k == i
					}
					ring.Publish(i, key)
					if i == 0 {
						rd = ring.Reader()
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				got, err := rd.Next(ctx)
				if err != nil {
					got = -1
				}
				if got != tt.want || rd.Lost() != tt.lost {
					t.Errorf("got %d, lost %d; want %d, lost %d", got, rd.Lost(), tt.want, tt.lost)
				}
			})
		})
	}
}

func TestReaderWaitsForFirstKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := stream.NewRing[int](8)
		rd := ring.Reader()
		go func() {
			for i := range 5 {
				time.Sleep(time.Second)
				ring.Publish(i, i == 3)
			}
		}()
		if v, err := rd.Next(t.Context()); v != 3 || err != nil {
			t.Fatalf("got %d, %v; want the key value 3", v, err)
		}
		if v, err := rd.Next(t.Context()); v != 4 || err != nil {
			t.Fatalf("got %d, %v; want 4", v, err)
		}
	})
}

func TestPublishNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := stream.NewRing[int](64)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 200 {
			rd := ring.Reader()
			wg.Go(func() {
				for {
					if _, err := rd.Next(ctx); err != nil {
						return
					}
					if i%10 == 0 {
						time.Sleep(time.Minute) // a dead phone
					}
				}
			})
		}
		start := time.Now()
		for i := range 1000 {
			ring.Publish(i, i%50 == 0)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("publishing waited %v for readers", d)
		}
		cancel()
		wg.Wait()
	})
}

func TestEveryReaderSeesTheSameOrder(t *testing.T) {
	ring := stream.NewRing[int](1024)
	ring.Publish(0, true)
	var wg sync.WaitGroup
	for range 20 {
		rd := ring.Reader()
		wg.Go(func() {
			for want := range 1000 {
				if v, err := rd.Next(t.Context()); v != want || err != nil {
					t.Errorf("got %d, %v; want %d", v, err, want)
					return
				}
			}
		})
	}
	for i := 1; i < 1000; i++ {
		ring.Publish(i, false)
	}
	wg.Wait()
}

func TestCloseDrains(t *testing.T) {
	ring := stream.NewRing[int](8)
	ring.Publish(1, true)
	rd := ring.Reader()
	ring.Close()
	if v, err := rd.Next(t.Context()); v != 1 || err != nil {
		t.Fatal(v, err)
	}
	if _, err := rd.Next(t.Context()); !errors.Is(err, stream.ErrClosed) {
		t.Fatal(err)
	}
}

func TestBehind(t *testing.T) {
	ring := stream.NewRing[int](64)
	rd := ring.Reader()
	for i := range 10 {
		ring.Publish(i, i == 0)
	}
	if got := rd.Behind(); got != 10 {
		t.Fatalf("behind %d, want 10", got)
	}
}

func TestResizeKeepsWhatFits(t *testing.T) {
	tests := []struct {
		name      string
		size      int
		wantFirst int // of a reader that stood at value 4
		lost      uint64
	}{
		{"larger", 32, 4, 0},
		{"smaller, place kept", 6, 4, 0},
		{"smaller, place gone, key kept", 4, 8, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ring := stream.NewRing[int](16)
			ring.Publish(0, true)
			rd := ring.Reader()
			for i := 1; i < 10; i++ {
				ring.Publish(i, i == 8)
			}
			for range 4 {
				if _, err := rd.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			ring.Resize(tt.size)
			got, err := rd.Next(t.Context())
			if err != nil || got != tt.wantFirst || rd.Lost() != tt.lost {
				t.Errorf("got %d, lost %d, %v; want %d, lost %d", got, rd.Lost(), err, tt.wantFirst, tt.lost)
			}
			for want := got + 1; want < 10; want++ {
				if v, err := rd.Next(t.Context()); v != want || err != nil {
					t.Errorf("got %d, %v; want %d", v, err, want)
				}
			}
			ring.Publish(10, false)
			if v, err := rd.Next(t.Context()); v != 10 || err != nil {
				t.Errorf("after the resize: got %d, %v", v, err)
			}
		})
	}
}

func TestHistoryBeginsAtTheOldestValueThatIsKept(t *testing.T) {
	ring := stream.NewRing[int](4)
	for i := range 7 {
		ring.Publish(i, i == 5)
	}
	rd := ring.History()
	for want := 3; want < 7; want++ {
		if got, err := rd.Next(t.Context()); got != want || err != nil {
			t.Fatalf("got %d, %v; want %d", got, err, want)
		}
	}
	if rd.Lost() != 0 {
		t.Errorf("%d lost", rd.Lost())
	}
}
