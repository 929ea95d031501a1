package stream_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"encoderd.example/stream"
)

// BenchmarkPublish measures the time that the encoder's goroutine spends in
// Publish while readers wait, which is the cost of waking them.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{0, 1, 20, 200} {
		b.Run(fmt.Sprintf("%d readers parked", n), func(b *testing.B) {
			ring := stream.NewRing[*stream.Unit](512)
			ctx, cancel := context.WithCancel(b.Context())
			var got atomic.Int64
			var wg sync.WaitGroup
			ring.Publish(&stream.Unit{}, true)
			for range n {
				rd := ring.Reader()
				wg.Go(func() {
					for {
						if _, err := rd.Next(ctx); err != nil {
							return
						}
						got.Add(1)
					}
				})
			}
			b.ReportAllocs()
			var inside time.Duration
			units := int64(1)
			for b.Loop() {
				for got.Load() < units*int64(n) {
					runtime.Gosched()
				}
				start := time.Now()
				ring.Publish(&stream.Unit{}, false)
				inside += time.Since(start)
				units++
			}
			b.ReportMetric(float64(inside.Nanoseconds())/float64(b.N), "ns/publish")
			cancel()
			wg.Wait()
		})
	}
}
