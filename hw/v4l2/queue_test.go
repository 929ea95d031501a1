package v4l2_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

// codec is an encoder that speaks the single-planar API, or the other.
func codec(multi bool) *fakevb2.Node {
	n := &fakevb2.Node{
		Path: "/dev/video2", Driver: "fakeenc", Card: "Fake encoder", BusInfo: "platform:fakeenc",
		Caps: uapi.CapVideoM2M | uapi.CapStreaming, Type: uapi.BufTypeVideoCapture,
		Encoder: &fakevb2.Encoder{
			Most: [2]int{1920, 1088},
			Raw: []fakevb2.Format{
				{Code: code("NV12"), BytesPerPixel: 1.5, Align: 32, AlignLines: 16, AnyStride: true},
				{Code: code("YUYV"), BytesPerPixel: 2},
			},
		},
		Controls: []fakevb2.Control{
			{ID: uapi.CIDBitrate, Name: "Video Bitrate", Min: 25_000, Max: 25_000_000, Step: 25_000, Default: 2_000_000},
			{ID: uapi.CIDForceKeyFrame, Name: "Force Key Frame", Type: uapi.CtrlTypeButton, Flags: uapi.CtrlFlagWriteOnly | uapi.CtrlFlagExecuteOnWrite},
		},
	}
	if multi {
		n.Caps, n.Type = uapi.CapVideoM2MMplane|uapi.CapStreaming, uapi.BufTypeVideoCaptureMplane
	}
	return n
}

// A bench is an encoder that runs: what the tests of the floor need of one.
type bench struct {
	*v4l2.Device
	in, out *v4l2.Queue
	planes  int
	free    []int // of in
}

func openDevice(t *testing.T, sys v4l2.Sys, path string) *v4l2.Device {
	t.Helper()
	d, err := v4l2.OpenDevice(sys, path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// setFormat sets a format and returns what was granted.
func setFormat(t *testing.T, d *v4l2.Device, typ, pixel uint32, width, height int) *uapi.Format {
	t.Helper()
	f := &uapi.Format{Type: typ}
	f.Pix().PixelFormat, f.Pix().Width, f.Pix().Height, f.Pix().Field = pixel, uint32(width), uint32(height), uapi.FieldNone
	if typ > uapi.BufTypeVideoOutput {
		*f = uapi.Format{Type: typ}
		f.PixMP().PixelFormat, f.PixMP().Width, f.PixMP().Height, f.PixMP().Field = pixel, uint32(width), uint32(height), uapi.FieldNone
	}
	if err := v4l2.Ioctl(d, "set the format of", uapi.SetFmt, f); err != nil {
		t.Fatal(err)
	}
	return f
}

// bring makes an encoder of the fake kernel run: count buffers on each side,
// those of the output queue the driver's or, imported, others'.
func bring(t *testing.T, sys v4l2.Sys, multi, imports bool, count int) *bench {
	t.Helper()
	return bringUp(t, openDevice(t, sys, "/dev/video2"), multi, imports, count, 64, 48)
}

func bringUp(t *testing.T, d *v4l2.Device, multi, imports bool, count, width, height int) *bench {
	t.Helper()
	b := &bench{Device: d}
	inType, outType := uint32(uapi.BufTypeVideoOutput), uint32(uapi.BufTypeVideoCapture)
	if multi {
		inType, outType, b.planes = uapi.BufTypeVideoOutputMplane, uapi.BufTypeVideoCaptureMplane, 1
	}
	setFormat(t, b.Device, outType, code("H264"), width, height)
	setFormat(t, b.Device, inType, code("NV12"), width, height)
	newIn := v4l2.NewQueue
	if imports {
		newIn = v4l2.NewImportQueue
	}
	var err error
	if b.in, err = newIn(b.Device, inType, count, b.planes); err != nil {
		t.Fatal(err)
	}
	if b.out, err = v4l2.NewQueue(b.Device, outType, count, b.planes); err != nil {
		t.Fatal(err)
	}
	for i := range b.out.Len() {
		if err := b.out.Enqueue(i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range b.in.Len() {
		b.free = append(b.free, i)
	}
	for _, q := range []*v4l2.Queue{b.in, b.out} {
		if err := q.StreamOn(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// end takes the encoder apart in the order that frees everything.
func (b *bench) end(t *testing.T) {
	t.Helper()
	for _, q := range []*v4l2.Queue{b.in, b.out} {
		if err := errors.Join(q.StreamOff(), q.Discard()); err != nil {
			t.Error(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// give hands a picture over; the encoder must have room.
func (b *bench) give(t *testing.T, stamp time.Duration, p v4l2.PlaneData) {
	t.Helper()
	if err := b.in.EnqueueData(b.free[0], stamp, []v4l2.PlaneData{p}); err != nil {
		t.Fatal(err)
	}
	b.free = b.free[1:]
}

// turn waits once and returns what came out, with copies of the bytes.
func (b *bench) turn(t *testing.T) (coded []unit) {
	t.Helper()
	if _, err := b.Wait(t.Context(), unix.POLLIN|unix.POLLOUT|unix.POLLPRI); err != nil {
		t.Fatal(err)
	}
	for {
		d, err := b.in.Dequeue()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b.free = append(b.free, d.Index)
	}
	for {
		d, err := b.out.Dequeue()
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EPIPE):
			return coded
		case err != nil:
			t.Fatal(err)
		}
		coded = append(coded, unit{d, append([]byte(nil), b.out.Memory(d.Index)[0][:d.Used[0]]...)})
		if d.Last {
			return coded
		}
		if err := b.out.Enqueue(d.Index); err != nil {
			t.Fatal(err)
		}
	}
}

// A unit is a coded buffer.
type unit struct {
	v4l2.Done
	data []byte
}

// whole is a picture of 64×48 in NV12 as the encoder keeps it.
var whole = v4l2.PlaneData{Used: 64 * 48 * 3 / 2}

func TestAnEncoderCodesWhatItsOutputQueueGets(t *testing.T) {
	for _, tt := range []struct {
		name  string
		multi bool
	}{{"single-planar API", false}, {"multi-planar API", true}} {
		t.Run(tt.name, func(t *testing.T) {
			k := fakevb2.New(codec(tt.multi))
			b := bring(t, k, tt.multi, false, 3)
			var got []unit
			for i := range 40 {
				b.give(t, time.Hour+time.Duration(i)*33333*time.Microsecond+999, whole)
				got = append(got, b.turn(t)...)
			}
			b.end(t)
			nothingLeft(t, k)
			if len(got) != 40 {
				t.Fatalf("%d pictures came out", len(got))
			}
			for i, u := range got {
				key := i%30 == 0
				if u.Stamp != time.Hour+time.Duration(i)*33333*time.Microsecond {
					t.Errorf("picture %d: stamp %v, want that of the picture in whole microseconds", i, u.Stamp)
				}
				if (u.Flags&uapi.BufFlagKeyFrame != 0) != key || u.Sequence != uint32(i) {
					t.Errorf("picture %d: flags %#x, number %d", i, u.Flags, u.Sequence)
				}
			}
		})
	}
}

func TestADrainEndsWithTheLastBuffer(t *testing.T) {
	for _, onPicture := range []bool{false, true} {
		n := codec(true)
		n.Encoder.Latency, n.Encoder.LastOnPicture = 2, onPicture
		k := fakevb2.New(n)
		b := bring(t, k, true, false, 4)
		for i := range 3 {
			b.give(t, time.Duration(i+1)*time.Second, whole)
		}
		got := b.turn(t)
		if len(got) != 1 {
			t.Fatalf("%d pictures came out of an encoder that keeps two of three", len(got))
		}
		if err := b.Subscribe(uapi.EventEOS, 0); err != nil {
			t.Fatal(err)
		}
		if err := b.EncoderStop(); err != nil {
			t.Fatal(err)
		}
		if err := b.EncoderStop(); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("a second stop: %v", err)
		}
		for len(got) == 0 || !got[len(got)-1].Last {
			got = append(got, b.turn(t)...)
		}
		want := 4
		if onPicture {
			want = 3
		}
		if len(got) != want || len(got[want-1].data) == 0 != !onPicture {
			t.Errorf("%d buffers, the last with %d bytes", len(got), len(got[len(got)-1].data))
		}
		if e, err := b.DequeueEvent(); err != nil || e.Type != uapi.EventEOS {
			t.Errorf("got event %+v, %v", e, err)
		}
		if _, err := b.out.Dequeue(); !errors.Is(err, unix.EPIPE) {
			t.Errorf("after the last: %v", err)
		}
		b.restart(t)
		for range 3 {
			b.give(t, time.Minute, whole)
		}
		if got := b.turn(t); len(got) != 1 || got[0].Flags&uapi.BufFlagKeyFrame == 0 {
			t.Errorf("after a restart came %d pictures, want a key picture", len(got))
		}
		b.end(t)
		nothingLeft(t, k)
	}
}

// restart starts the coded side anew, as after a drain.
func (b *bench) restart(t *testing.T) {
	t.Helper()
	if err := errors.Join(b.out.StreamOff(), b.out.StreamOn()); err != nil {
		t.Fatal(err)
	}
	for i := range b.out.Len() {
		if err := b.out.Enqueue(i); err != nil {
			t.Fatal(err)
		}
	}
}

// size asks how large a dma-buf is.
func size(t *testing.T, k *fakevb2.Kernel, fd int) int {
	t.Helper()
	n, err := k.Size(fd)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

func TestAnImportQueueReadsOthersMemory(t *testing.T) {
	for _, multi := range []bool{false, true} {
		n := codec(multi)
		var seen []byte
		n.Encoder.Code = func(p fakevb2.Picture) []byte {
			seen = append(seen, p.Planes[0][0])
			return []byte{1}
		}
		k := fakevb2.New(n)
		b := bring(t, k, multi, true, 2)
		if !b.in.Imports() || b.in.Memory(0) != nil || b.out.Imports() {
			t.Error("the queues do not know whose their memory is")
		}
		var memory []v4l2.PlaneData
		for i := range 2 {
			fd := k.DMABuf(whole.Used)
			picture := k.Look(fd)
			k.Do(func() { picture[0] = byte(40 + i) })
			memory = append(memory, v4l2.PlaneData{FD: fd, Length: size(t, k, fd), Used: whole.Used})
		}
		for i := range 6 {
			b.give(t, time.Duration(i), memory[b.free[0]])
			if len(b.turn(t)) != 1 {
				t.Fatalf("picture %d did not come out", i)
			}
		}
		if string(seen) != "()()()" {
			t.Errorf("coded %q", seen)
		}
		if k.Attached() != 2 {
			t.Errorf("two dma-bufs were attached %d times", k.Attached())
		}
		b.end(t)
		for _, m := range memory {
			if err := k.Close(m.FD); err != nil {
				t.Error(err)
			}
		}
		nothingLeft(t, k)
	}
}

func TestMemoryThatDoesNotFitIsRefused(t *testing.T) {
	tests := []struct {
		name  string
		multi bool
		spoil func(*v4l2.PlaneData)
		want  error
	}{
		{"no dma-buf", true, func(p *v4l2.PlaneData) { p.FD = 5 }, unix.EINVAL},
		{"the picture's length instead of the memory's", false, func(p *v4l2.PlaneData) { p.Length = 10 }, unix.EINVAL},
		{"longer than it is", true, func(p *v4l2.PlaneData) { p.Length += 4096 }, unix.EFAULT},
		{"more used than there is", false, func(p *v4l2.PlaneData) { p.Used = p.Length + 1 }, unix.EINVAL},
		{"data that begin behind their end", true, func(p *v4l2.PlaneData) { p.Offset = p.Used }, unix.EINVAL},
		{"data that begin later, single-planar API", false, func(p *v4l2.PlaneData) { p.Offset = 64 }, hw.ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := fakevb2.New(codec(tt.multi))
			b := bring(t, k, tt.multi, true, 1)
			fd := k.DMABuf(whole.Used)
			p := v4l2.PlaneData{FD: fd, Length: size(t, k, fd), Used: whole.Used}
			spoiled := p
			tt.spoil(&spoiled)
			if err := b.in.EnqueueData(0, 0, []v4l2.PlaneData{spoiled}); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err := b.in.EnqueueData(0, 0, []v4l2.PlaneData{p, p}); err == nil {
				t.Error("two planes of memory pass for one")
			}
			b.give(t, 0, p) // the buffer is still ours
			if len(b.turn(t)) != 1 {
				t.Error("nothing came out")
			}
			b.end(t)
			if err := k.Close(fd); err != nil {
				t.Error(err)
			}
			nothingLeft(t, k)
		})
	}
}

func TestADriverThatTakesNoDMABufsSaysSo(t *testing.T) {
	n := codec(false)
	n.NoImport = true
	d := openDevice(t, fakevb2.New(n), n.Path)
	if _, err := v4l2.NewImportQueue(d, uapi.BufTypeVideoOutput, 2, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// A camera writes into memory that it was lent by an encoder, and an encoder
// reads what a camera owns.
func TestPicturesPassWithoutACopy(t *testing.T) {
	tests := []struct {
		name    string
		exports bool // the camera owns the memory
	}{{"the camera exports", true}, {"the camera imports", false}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cam, enc := bridge(), codec(true)
			var seen []byte
			enc.Encoder.Code = func(p fakevb2.Picture) []byte {
				seen = append(seen, p.Planes[0][0], p.Planes[0][len(p.Planes[0])-1])
				return []byte{1}
			}
			k := fakevb2.New(cam, enc)
			c := openDevice(t, k, cam.Path)
			setFormat(t, c, cam.Type, code("NV12"), 64, 48)
			b := bring(t, k, true, tt.exports, 3)
			newQueue, owner := v4l2.NewQueue, (*v4l2.Queue)(nil)
			if !tt.exports {
				newQueue, owner = v4l2.NewImportQueue, b.in
			}
			shots, err := newQueue(c, cam.Type, 3, 1)
			if err != nil {
				t.Fatal(err)
			}
			if tt.exports {
				owner = shots
			}
			var memory []v4l2.PlaneData
			for i := range 3 {
				fds, err := owner.Export(i)
				if err != nil || len(fds) != 1 {
					t.Fatalf("%d descriptors, %v", len(fds), err)
				}
				memory = append(memory, v4l2.PlaneData{FD: fds[0], Length: size(t, k, fds[0]), Used: whole.Used})
			}
			arm := func(i int) {
				if tt.exports {
					err = shots.Enqueue(i)
				} else {
					err = shots.EnqueueImport(i, memory[i:i+1])
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for i := range 3 {
				arm(i)
			}
			if err := shots.StreamOn(); err != nil {
				t.Fatal(err)
			}
			for i := range 9 {
				if _, err := c.Wait(t.Context(), unix.POLLIN); err != nil {
					t.Fatal(err)
				}
				d, err := shots.Dequeue()
				if err != nil {
					t.Fatal(err)
				}
				if err := b.in.EnqueueData(d.Index, d.Stamp, memory[d.Index:d.Index+1]); err != nil {
					t.Fatal(err)
				}
				got := b.turn(t)
				if len(got) != 1 || got[0].Stamp != d.Stamp || seen[2*i] != byte(i) || seen[2*i+1] != byte(i) {
					t.Errorf("picture %d: %d came out, with % x", i, len(got), seen)
				}
				arm(d.Index)
			}
			if k.Attached() != 3 {
				t.Errorf("three dma-bufs were attached %d times", k.Attached())
			}
			if err := errors.Join(shots.StreamOff(), shots.Discard(), c.Close()); err != nil {
				t.Error(err)
			}
			b.end(t)
			for _, m := range memory {
				if err := k.Close(m.FD); err != nil {
					t.Error(err)
				}
			}
			nothingLeft(t, k)
		})
	}
}

func TestAnExportThatBreaksOffLeavesNothing(t *testing.T) {
	open := func(k *fakevb2.Kernel) (*v4l2.Device, *v4l2.Queue) {
		d := openDevice(t, k, "/dev/video1")
		setFormat(t, d, uapi.BufTypeVideoCaptureMplane, code("YM12"), 100, 50)
		q, err := v4l2.NewQueue(d, uapi.BufTypeVideoCaptureMplane, 1, 3)
		if err != nil {
			t.Fatal(err)
		}
		return d, q
	}
	k := fakevb2.New(bridge())
	d, q := open(k)
	fds, err := q.Export(0)
	if err != nil || len(fds) != 3 {
		t.Fatalf("%d descriptors, %v", len(fds), err)
	}
	third := len(k.Calls())
	for _, fd := range fds {
		err = errors.Join(err, k.Close(fd))
	}
	if err := errors.Join(err, q.Discard(), d.Close()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k)

	k = fakevb2.New(bridge())
	k.FailAt, k.FailWith = third, unix.EMFILE
	d, q = open(k)
	if _, err := q.Export(0); !errors.Is(err, unix.EMFILE) {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(q.Discard(), d.Close()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k)
}

func TestAnEncoderReportsAnErrorWhileAllBuffersAreOurs(t *testing.T) {
	k := fakevb2.New(codec(true))
	b := bring(t, k, true, false, 1)
	b.give(t, 0, whole)
	b.turn(t)
	if err := b.out.StreamOff(); err != nil {
		t.Fatal(err)
	}
	if came, err := b.Wait(t.Context(), unix.POLLIN|unix.POLLOUT); err != nil || came != unix.POLLERR {
		t.Errorf("got %#x, %v; want POLLERR as nothing is queued", came, err)
	}
	b.Interrupt()
	if came, err := b.Wait(t.Context(), unix.POLLPRI); err != nil || came != 0 {
		t.Errorf("got %#x, %v; want nothing, as only events were asked for", came, err)
	}
	b.end(t)
	nothingLeft(t, k)
}

func TestAFormatStandsWhileThereAreBuffers(t *testing.T) {
	k := fakevb2.New(codec(false))
	b := bring(t, k, false, false, 2)
	f := &uapi.Format{Type: uapi.BufTypeVideoOutput}
	if err := v4l2.Ioctl(b.Device, "set the format of", uapi.SetFmt, f); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("got %v", err)
	}
	b.end(t)
}

func TestWhatEncodersDoToPictures(t *testing.T) {
	type f = fakevb2.CodingFault
	tests := []struct {
		name  string
		fault f
		want  string
	}{
		{"nothing", f{}, "hKey P"},
		{"a dropped picture", f{Dropped: true}, "P"},
		{"a split picture", f{Split: true}, "hK ey P"},
		{"parameter sets by themselves", f{HeaderOnly: true}, "h Key P"},
		{"parameter sets and no picture", f{HeaderOnly: true, Dropped: true}, "h P"},
		{"an empty access unit", f{Empty: true}, "- P"},
		{"a wrong flag", f{WrongKey: true}, "hKey/wrong P"},
		{"no stamp", f{NoStamp: true}, "hKey/0s P"},
		{"garbage before it", f{Garbage: true}, "g/2160h29m37s hKey P"},
		{"an error", f{Error: true}, "hKey/error P"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := codec(true)
			n.Encoder.Script = []f{tt.fault}
			n.Encoder.Code = func(p fakevb2.Picture) []byte {
				switch {
				case p.Headers:
					return []byte("hKey")
				case p.Key:
					return []byte("Key")
				default:
					return []byte("P")
				}
			}
			k := fakevb2.New(n)
			b := bring(t, k, true, false, 3)
			for range 2 {
				b.give(t, time.Second, whole)
			}
			b.give(t, time.Hour, whole)
			var got []string
			for over := false; !over; {
				for _, u := range b.turn(t) {
					if over = u.Stamp == time.Hour; !over {
						got = append(got, shape(u))
					}
				}
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
			b.end(t)
			nothingLeft(t, k)
		})
	}
}

// shape tells a coded buffer of the test above in short.
func shape(u unit) string {
	s := string(u.data)
	switch {
	case s == "":
		s = "-"
	case s == string(fakevb2.Headers(64, 48)):
		s = "h"
	case strings.Contains(s, "garbage"):
		s = "g"
	case strings.Contains(s, "K") && u.Flags&uapi.BufFlagPFrame != 0, s == "P" && u.Flags&uapi.BufFlagKeyFrame != 0:
		s += "/wrong"
	}
	if u.Flags&uapi.BufFlagError != 0 {
		s += "/error"
	}
	if u.Stamp != time.Second {
		s += "/" + u.Stamp.String()
	}
	return s
}

func TestAFatalErrorStopsBothQueues(t *testing.T) {
	n := codec(true)
	n.Encoder.Script = []fakevb2.CodingFault{{Fatal: true}}
	k := fakevb2.New(n)
	b := bring(t, k, true, false, 2)
	b.give(t, 0, whole)
	if came, err := b.Wait(t.Context(), unix.POLLIN|unix.POLLOUT); err != nil || came != unix.POLLERR {
		t.Errorf("got %#x, %v", came, err)
	}
	for _, q := range []*v4l2.Queue{b.in, b.out} {
		if _, err := q.Dequeue(); !errors.Is(err, unix.EIO) {
			t.Errorf("got %v", err)
		}
	}
	b.end(t)
	nothingLeft(t, k)
}

func TestACodedPictureThatIsTooLargeGoesOnInTheNextBuffer(t *testing.T) {
	n := codec(false)
	n.Encoder.SizeImage = 4
	n.Encoder.Code = func(fakevb2.Picture) []byte { return []byte("0123456789") }
	k := fakevb2.New(n)
	b := bring(t, k, false, false, 2)
	b.give(t, time.Second, whole)
	var got []string
	for len(got) < 3 {
		for _, u := range b.turn(t) {
			got = append(got, string(u.data)+u.Stamp.String())
		}
	}
	if diff := cmp.Diff([]string{"01231s", "45671s", "891s"}, got); diff != "" {
		t.Error(diff)
	}
	b.end(t)
	nothingLeft(t, k)
}

func TestEncodersRunOutOfInstances(t *testing.T) {
	n := codec(false)
	n.Encoder.Instances = 1
	k := fakevb2.New(n)
	b := bring(t, k, false, false, 1)
	d := openDevice(t, k, n.Path)
	setFormat(t, d, uapi.BufTypeVideoOutput, code("NV12"), 64, 48)
	q, err := v4l2.NewQueue(d, uapi.BufTypeVideoOutput, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.StreamOn(); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("got %v", err)
	}
	b.end(t)
	if err := errors.Join(q.StreamOn(), q.StreamOff(), q.Discard(), d.Close()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k)
}

func TestAStreamOffHangsUntilItIsReleased(t *testing.T) {
	n := codec(false)
	k := fakevb2.New(n)
	b := bring(t, k, false, false, 1)
	k.Do(func() { n.HangStreamOff = true })
	off := make(chan error)
	go func() { off <- b.out.StreamOff() }()
	k.AwaitHang()
	select {
	case err := <-off:
		t.Errorf("came back: %v", err)
	default:
	}
	k.Do(func() { n.HangStreamOff = false })
	if err := <-off; err != nil {
		t.Error(err)
	}
	b.end(t)
	nothingLeft(t, k)
}

// The V4L2 core makes all calls on a device under one lock.
func TestACallWaitsForTheOneThatHangsOnItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := codec(false)
		n.LocksOpen = true
		k := fakevb2.New(n)
		b := bring(t, k, false, false, 1)
		k.Do(func() { n.HangStreamOff = true })
		came := make(chan string, 3)
		call := func(what string, f func() error) {
			go func() {
				if err := f(); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				came <- what
			}()
			synctest.Wait()
		}
		call("streamoff", b.out.StreamOff)
		call("querycap", func() error { _, err := b.Info(); return err })
		call("open", func() error {
			d, err := v4l2.OpenDevice(k, n.Path)
			if err != nil {
				return err
			}
			return d.Close()
		})
		if len(came) > 0 {
			t.Errorf("%s came back", <-came)
		}
		k.Do(func() { n.HangStreamOff = false })
		for range cap(came) {
			<-came
		}
		b.end(t)
		nothingLeft(t, k)
	})
}

// life is that of an encoder whose input is another's memory, whatever fails.
func life(k *fakevb2.Kernel) (err error) {
	d, err := v4l2.OpenDevice(k, "/dev/video2")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if _, err := d.Controls(); err != nil {
		return err
	}
	if err := errors.Join(d.SetControl(uapi.CIDBitrate, 1e6), d.Subscribe(uapi.EventEOS, 0)); err != nil {
		return err
	}
	f := uapi.Format{Type: uapi.BufTypeVideoOutput}
	if err := v4l2.Ioctl(d, "set the format of", uapi.SetFmt, &f); err != nil {
		return err
	}
	if _, err := d.SetCrop(f.Type, v4l2.Rect{Width: 32, Height: 32}); err != nil {
		return err
	}
	if _, err := d.SetOutputRate(f.Type, hw.Rate{Num: 25, Den: 1}); err != nil {
		return err
	}
	own, err := v4l2.NewQueue(d, uapi.BufTypeVideoCapture, 2, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, own.StreamOff(), own.Discard()) }()
	in, err := v4l2.NewImportQueue(d, uapi.BufTypeVideoOutput, 1, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.StreamOff(), in.Discard()) }()
	fds, err := own.Export(1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close(fds[0])) }()
	n, err := k.Size(fds[0])
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		in.StreamOn, own.StreamOn,
		func() error { return own.Enqueue(0) },
		func() error {
			return in.EnqueueData(0, 0, []v4l2.PlaneData{{FD: fds[0], Length: int(n), Used: int(n)}})
		},
		func() error { _, err := d.Wait(context.Background(), unix.POLLIN); return err },
		func() error { _, err := own.Dequeue(); return err },
		func() error { _, err := in.Dequeue(); return err },
		d.EncoderStop,
		func() error { return own.Enqueue(0) },
		func() error { _, err := d.Wait(context.Background(), unix.POLLIN|unix.POLLPRI); return err },
		func() error { _, err := d.DequeueEvent(); return err },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func TestNothingOfAnEncoderLeaksWhicheverCallFails(t *testing.T) {
	whole := fakevb2.New(codec(false))
	if err := life(whole); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, whole)
	for i, name := range whole.Calls() {
		for _, errno := range []unix.Errno{unix.EIO, unix.EBUSY, unix.ENODEV} {
			k := fakevb2.New(codec(false))
			k.FailAt, k.FailWith = i+1, errno
			if err := life(k); !errors.Is(err, errno) {
				t.Errorf("call %d (%s) fails with %v, and life with %v", i+1, name, errno, err)
			}
			if d, m := k.Left(); d != 0 || m != 0 {
				t.Errorf("call %d (%s) fails with %v: %d descriptors, %d mappings left", i+1, name, errno, d, m)
			}
		}
		k := fakevb2.New(codec(false))
		k.UnplugAt = i + 1
		err := life(k)
		if d, m := k.Left(); d != 0 || m != 0 {
			t.Errorf("unplugged at call %d (%s): %d descriptors, %d mappings left", i+1, name, d, m)
		}
		if err != nil && !errors.Is(err, hw.ErrGone) {
			t.Errorf("unplugged at call %d (%s): %v", i+1, name, err)
		}
	}
	t.Logf("%d calls", len(whole.Calls()))
}
