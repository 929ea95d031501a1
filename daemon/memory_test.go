package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatACrowdLeavesBehindIsGivenBack(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // as if the heap were far from having doubled
	runtime.GC()
	before, _ := heap()
	crowd := make([][]byte, 64)
	for i := range crowd {
		crowd[i] = make([]byte, 1<<20)
	}
	if full, _ := heap(); full < before+uint64(len(crowd))<<20 {
		t.Fatalf("%d bytes, and before %d", full, before)
	}
	runtime.KeepAlive(crowd)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go tidyMemory(ctx)
		time.Sleep(2*memoryCheck + time.Second)
		synctest.Wait()
		if after, _ := heap(); after > before+8<<20 {
			t.Errorf("%d bytes are left of a crowd, before it %d", after, before)
		}
		cancel()
	})
}
