package v4l2_test

import (
	"testing"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/fakevb2"
)

// allEqual reports whether the bytes of all planes are v.
func allEqual(f *hw.Frame, v byte) bool {
	for _, p := range f.Planes {
		for _, b := range p.Data {
			if b != v {
				return false
			}
		}
	}
	return true
}

// On a chip whose caches do not follow its devices, what a camera writes into
// memory of somebody else is seen once the access has begun, and not before.
func TestImportedFramesAreReadBetweenBeginAndEnd(t *testing.T) {
	n := bridge()
	k := fakevb2.New(n)
	k.Incoherent = true
	pool := newHeap(t, k, nv12(100, 200), 4, true)
	s := openShared(t, k, n, hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, hw.BufferPlan{Way: hw.Import, Pool: pool})
	for i := range 12 {
		f := read(t, s)
		if i > 0 && allEqual(f, byte(i)) {
			t.Fatal("the model is coherent, and the test shows nothing")
		}
		hw.BeginAccess(f.Planes, hw.Reading)
		if !allEqual(f, byte(i)) {
			t.Errorf("frame %d is stale", i)
		}
		hw.EndAccess(f.Planes, hw.Reading)
		f.Release()
	}
	if begun, open := k.Syncs(); begun != 12 || open != 0 {
		t.Errorf("%d accesses of 12 frames in one dma-buf each, %d without an end", begun, open)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k)
}

// Only who touches pixels pays for it: not who hands descriptors on, nor who
// reads memory that is the driver's alone.
func TestFramesThatNobodyTouchesCostNoAccess(t *testing.T) {
	for _, way := range []hw.Way{hw.Export, hw.Import, hw.Copy} {
		t.Run(string(way), func(t *testing.T) {
			n := bridge()
			k := fakevb2.New(n)
			k.Incoherent = true
			pool, plan := &heap{k: k}, hw.BufferPlan{Way: way}
			if way == hw.Import {
				pool = newHeap(t, k, nv12(100, 200), 4, true)
				plan.Pool = pool
			}
			s := openShared(t, k, n, hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, plan)
			for i := range 12 {
				f := read(t, s)
				if shared := f.Planes[0].Shared != nil; shared != (way != hw.Copy) || f.Planes[1].Shared != f.Planes[0].Shared {
					t.Errorf("frame %d lies in a dma-buf: %t", i, shared)
				}
				if way == hw.Copy {
					hw.BeginAccess(f.Planes, hw.Reading)
					if !allEqual(f, byte(i)) {
						t.Errorf("frame %d is stale", i)
					}
					hw.EndAccess(f.Planes, hw.Reading)
				}
				f.Release()
			}
			if begun, _ := k.Syncs(); begun != 0 {
				t.Errorf("%d accesses", begun)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := pool.Close(); err != nil {
				t.Error(err)
			}
			nothingLeft(t, k)
		})
	}
}
