package daemon

import (
	"context"
	"runtime"
	"runtime/metrics"
	"time"
)

const (
	// memoryCheck is the time between two looks at the heap.
	memoryCheck = 20 * time.Second
	// smallHeap is what need not be looked at, in bytes.
	smallHeap = 16 << 20
)

// tidyMemory gives back what a crowd has left behind, until ctx ends. The
// collector waits until the heap has doubled: after thousands of connections a
// box at its usual work takes many minutes for that, and what pools kept goes
// one collection later still. A heap that was not looked through since the last
// check is, now; the runtime then returns the memory to the system by itself.
func tidyMemory(ctx context.Context) {
	tick := time.NewTicker(memoryCheck)
	defer tick.Stop()
	for before := uint64(0); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		size, collected := heap()
		if collected == before && size > smallHeap {
			runtime.GC()
			_, collected = heap()
		}
		before = collected
	}
}

// heap returns the bytes of objects on it, dead ones too, and how many times
// it was collected.
func heap() (size, collected uint64) {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}
