package convert

import (
	"testing"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/fakevb2"
)

// On a chip whose caches do not follow its devices, a picture that a camera has
// written is copied as the camera wrote it, and read by the scaler as it was
// copied. What is read and written in place needs no care.
func TestCopiesOfSharedMemoryAreNeverStale(t *testing.T) {
	for _, tt := range []struct {
		name     string
		stride   int
		noImport bool
		accesses int // of the CPU to dma-bufs, for each picture
	}{
		{"in place", 640, false, 0},
		{"in other lines, into the driver's memory", 704, false, 2},
		{"into a queue's own memory", 640, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := scalerNode()
			k := fakevb2.New(n)
			k.Incoherent = true
			d := find(t, k)
			f, seen := sharedFrame(t, k, tt.stride)
			k.Do(func() { n.NoImport = tt.noImport })
			c := open(t, d, large, small)
			for i := range byte(8) {
				mem := k.Look(f.Planes[0].FD)
				k.Do(func() { fakevb2.Paint(mem, i) })
				f.Stamp++
				if err := c.Submit(f.Lend()); err != nil {
					t.Fatal(err)
				}
				f.Release()
				out := take(t, c)
				if got := out.Planes[0].Data[0]; got != 16*i { // the fake adds up 16 bytes
					t.Errorf("picture %d holds %d, want %d", i, got, 16*i)
				}
				if out.Planes[0].Shared == nil || out.Planes[1].Shared != out.Planes[0].Shared {
					t.Error("what comes out is in a dma-buf, and readers are not told")
				}
				out.Release()
			}
			if begun, open := k.Syncs(); begun != 8*tt.accesses || open != 0 {
				t.Errorf("%d accesses to dma-bufs, %d without an end, want %d", begun, open, 8*tt.accesses)
			}
			shut(t, c)
			if err := k.Munmap(seen); err != nil {
				t.Error(err)
			}
			nothingLeft(t, k, 1)
		})
	}
}

// sharedFrame returns a frame like large in a dma-buf, and its mapping.
func sharedFrame(t *testing.T, k *fakevb2.Kernel, stride int) (*hw.Frame, []byte) {
	t.Helper()
	l := large
	l.Planes = [3]hw.PlaneLayout{{Stride: stride}, {Stride: stride, Offset: stride * 360}}
	l.Sizes[0] = stride * 540
	fd := k.DMABuf(l.Sizes[0])
	mem, err := k.Mmap(fd, 0, l.Sizes[0])
	if err != nil {
		t.Fatal(err)
	}
	b := hw.Buffer{FDs: [3]int{fd, -1, -1}, Mem: [3][]byte{mem}, Shared: [3]*hw.DMABuf{hw.NewDMABuf(fd, k)}}
	return hw.NewSharedFrame(l, b, hw.Rate{Num: 30, Den: 1}, nil), mem
}

// Of a coded picture the CPU reads the header, and then the whole.
func TestJPEGInSharedMemoryIsReadBetweenBeginAndEnd(t *testing.T) {
	k := fakevb2.New(decoderNode())
	k.Incoherent = true
	d := decoder(t, k)
	data := picture(t, 320, 240)
	fd := k.DMABuf(len(data))
	mem, err := k.Mmap(fd, 0, len(data))
	if err != nil {
		t.Fatal(err)
	}
	copy(k.Look(fd), data) // the CPU does not see it yet
	f := mjpeg(data, 1, 1)
	copy(k.Look(fd), f.Planes[0].Data)
	f.Planes[0].Data, f.Planes[0].Shared = mem, hw.NewDMABuf(fd, k)
	raw, err := d.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	if raw.Width != 320 || raw.Planes[0].Data[0] != 1 {
		t.Errorf("%s, %d", raw.Mode, raw.Planes[0].Data[0])
	}
	raw.Release()
	if begun, open := k.Syncs(); begun != 2 || open != 0 {
		t.Errorf("%d accesses, %d without an end", begun, open)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := k.Munmap(mem); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k, 1)
}
