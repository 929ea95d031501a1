//go:build board

// Tests on real kernel devices: the guest of the virtual board, with vivid as
// camera, vim2m as scaler and vh264enc as encoder.

package convert_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/convert"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
)

// patience is for emulated time, which is real time on a slow machine.
const patience = time.Minute

var root = os.DirFS("/")

func command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// scaler loads vim2m and finds it.
func scaler(t *testing.T) *convert.Device {
	t.Helper()
	command(t, "modprobe vim2m default_transtime=1")
	command(t, "udevadm settle")
	devices, err := convert.Finder{Root: root, Sys: v4l2.Kernel{}, Log: slog.New(slog.DiscardHandler)}.Scalers()
	if err != nil || len(devices) != 1 || devices[0].Name() != "v4l2:vim2m" {
		t.Fatalf("scalers: %v, %v; want vim2m alone", devices, err)
	}
	return devices[0]
}

// encoder finds vh264enc.
func encoder(t *testing.T) hw.EncoderDriver {
	t.Helper()
	drivers, err := m2m.Finder{Root: root, Sys: v4l2.Kernel{}, Log: slog.New(slog.DiscardHandler)}.Encoders()
	if err != nil || len(drivers) != 1 {
		t.Fatalf("encoders: %v, %v; want one", drivers, err)
	}
	return drivers[0]
}

// A receiver is vivid in the part of an HDMI receiver that gives RGB and
// converts nothing.
type receiver struct {
	dev    *v4l2.Device
	queue  *v4l2.Queue
	frames []*hw.Frame
}

const receiverPath = "/dev/video0"

var received = hw.Layout{Pixel: hw.RGB24, Width: 640, Height: 360}

func openReceiver(t *testing.T) *receiver {
	t.Helper()
	d, err := v4l2.OpenDevice(v4l2.Kernel{}, receiverPath)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{dev: d}
	t.Cleanup(func() { r.close(t) })
	if err := d.SetInput(0); err != nil {
		t.Fatal(err)
	}
	f := uapi.Format{Type: uapi.BufTypeVideoCapture}
	p := f.Pix()
	p.PixelFormat, p.Width, p.Height, p.Field = uint32(received.Pixel), uint32(received.Width), uint32(received.Height), uapi.FieldNone
	if err := v4l2.Ioctl(d, "set the format of", uapi.SetFmt, &f); err != nil {
		t.Fatal(err)
	}
	if p.PixelFormat != uint32(received.Pixel) || p.Width != uint32(received.Width) || p.Height != uint32(received.Height) {
		t.Fatalf("vivid gives %s %dx%d", hw.PixelFormat(p.PixelFormat), p.Width, p.Height)
	}
	stride := int(p.BytesPerLine)
	parm := uapi.StreamParm{Type: uapi.BufTypeVideoCapture, TimePerFrame: uapi.Fract{Num: 1, Den: 15}}
	if err := v4l2.Ioctl(d, "set the rate of", uapi.SetParm, &parm); err != nil {
		t.Fatal(err)
	}
	if r.queue, err = v4l2.NewQueue(d, uapi.BufTypeVideoCapture, 6, 0); err != nil {
		t.Fatal(err)
	}
	for i := range r.queue.Len() {
		fds, err := r.queue.Export(i)
		if err != nil {
			t.Fatal(err)
		}
		f := hw.NewFrame(func(*hw.Frame) {
			if err := r.queue.Enqueue(i); err != nil {
				t.Error(err)
			}
		})
		f.Mode = hw.Mode{Pixel: received.Pixel, Width: received.Width, Height: received.Height, FPS: hw.Rate{Num: 15, Den: 1}}
		f.Planes = []hw.Plane{{Data: r.queue.Memory(i)[0], Stride: stride, FD: fds[0]}}
		r.frames = append(r.frames, f)
		if err := r.queue.Enqueue(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.queue.StreamOn(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *receiver) read(t *testing.T) *hw.Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		d, err := r.queue.Dequeue()
		switch {
		case err == nil:
			f := r.frames[d.Index]
			f.Stamp, f.Seq = d.Stamp, d.Sequence
			return f.Lend()
		case !errors.Is(err, unix.EAGAIN):
			t.Fatal(err)
		}
		if _, err := r.dev.Wait(ctx, unix.POLLIN); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *receiver) close(t *testing.T) {
	t.Helper()
	var errs []error
	if r.queue != nil {
		errs = append(errs, r.queue.StreamOff())
		for i, f := range r.frames {
			errs = append(errs, r.queue.Unmap(i), v4l2.Kernel{}.Close(f.Planes[0].FD))
		}
		errs = append(errs, r.queue.Free())
	}
	if err := errors.Join(append(errs, r.dev.Close())...); err != nil {
		t.Error(err)
	}
}

func next(t *testing.T, c *convert.Converter) *hw.Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f, err := c.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func stop(t *testing.T, c *convert.Converter) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

var small = hw.Layout{Pixel: hw.YUYV, Width: 320, Height: 180}

func TestScalerTellsWhatItTakes(t *testing.T) {
	s := scaler(t)
	l, err := s.Layout(received)
	if err != nil || !l.Reads(l) || l.Planes[0].Stride != 3*640 || l.Sizes[0] != 3*640*360 {
		t.Errorf("vim2m reads %+v, %v", l, err)
	}
	if _, err := s.Layout(hw.Layout{Pixel: hw.RGB24, Width: 1920, Height: 1080}); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a picture larger than vim2m takes: %v", err)
	}
	if _, err := s.Open(received, hw.Layout{Pixel: hw.NV12, Width: 320, Height: 180}); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a format that vim2m does not give: %v", err)
	}
	p, err := s.Allocate(l, 4)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Buffers()); n != 4 || p.Buffers()[3].FDs[0] < 0 || len(p.Buffers()[3].Mem[0]) < 3*640*360 {
		t.Errorf("a pool of %d buffers, the last is %v", n, p.Buffers()[n-1].FDs)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// camera (RGB, exported) → scaler → encoder, all by dma-buf.
func TestPictureGoesThroughScalerToEncoderWithoutACopy(t *testing.T) {
	for name, into := range map[string]bool{"scaler's memory": false, "encoder's memory": true} {
		t.Run(name, func(t *testing.T) { chain(t, into) })
	}
}

func chain(t *testing.T, into bool) {
	t.Helper()
	const frames = 30
	s, d := scaler(t), encoder(t)
	l, err := d.Importer.Layout(small)
	if err != nil {
		t.Fatal(err)
	}
	c := openChain(t, s, d, l, into)
	enc, err := d.Open(hw.EncoderConfig{
		Codec: stream.H264, Width: 320, Height: 180, FPS: hw.Rate{Num: 15, Den: 1}, GOP: 10, Bitrate: 20e6, Input: c.Layout(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := enc.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := openReceiver(t)
	for i := range frames {
		src := r.read(t)
		if err := c.Submit(src); err != nil {
			t.Fatal(err)
		}
		f := next(t, c)
		if f.Stamp != src.Stamp || f.Seq != src.Seq || f.FPS != src.FPS || f.Planes[0].FD < 0 {
			t.Errorf("frame %d: stamp %v, number %d, rate %v, dma-buf %d of a source with %v, %d", i, f.Stamp, f.Seq, f.FPS, f.Planes[0].FD, src.Stamp, src.Seq)
		}
		compare(t, src, f)
		stamp := f.Stamp
		if err := enc.Submit(f); err != nil {
			t.Fatal(err)
		}
		f.Release()
		src.Release()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		u, err := enc.Next(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if u.PTS != stamp {
			t.Errorf("unit %d: stamp %v of a picture with %v", i, u.PTS, stamp)
		}
	}
	if st := c.Stats(); st != (convert.Stats{Submitted: frames, Converted: frames}) {
		t.Errorf("scaler: %+v (%s)", st, c.CopyReason())
	}
	if st := enc.Stats(); st.Coded != frames || st.CopiedBytes != 0 {
		t.Errorf("encoder: %+v", st)
	}
}

func openChain(t *testing.T, s *convert.Device, d hw.EncoderDriver, l hw.Layout, into bool) *convert.Converter {
	t.Helper()
	if !into {
		c, err := s.Open(received, l)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, c) })
		return c
	}
	pool, err := d.Importer.Allocate(l, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := s.OpenInto(received, pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, c) })
	return c
}

// compare holds the mean colours of a grid of areas against each other, the
// source's by the matrix that vim2m uses.
func compare(t *testing.T, rgb, yuyv *hw.Frame) {
	t.Helper()
	const columns, rows = 8, 4
	for i := range columns * rows {
		x, y := i%columns, i/columns
		r, g, b := meanRGB(rgb, x, y, columns, rows)
		want := [3]float64{16 + 0.258*r + 0.506*g + 0.098*b, 128 - 0.149*r - 0.292*g + 0.441*b, 128 + 0.441*r - 0.369*g - 0.072*b}
		got := meanYUYV(yuyv, x, y, columns, rows)
		for p := range want {
			if d := got[p] - want[p]; d < -4 || d > 4 {
				t.Fatalf("area %d,%d has mean %.0f, want %.0f", x, y, got, want)
			}
		}
	}
}

func meanRGB(f *hw.Frame, column, row, columns, rows int) (r, g, b float64) {
	w, h := f.Width/columns, f.Height/rows
	for y := row * h; y < (row+1)*h; y++ {
		line := f.Planes[0].Data[y*f.Planes[0].Stride:]
		for x := column * w; x < (column+1)*w; x++ {
			r += float64(line[3*x])
			g += float64(line[3*x+1])
			b += float64(line[3*x+2])
		}
	}
	n := float64(w * h)
	return r / n, g / n, b / n
}

func meanYUYV(f *hw.Frame, column, row, columns, rows int) (mean [3]float64) {
	w, h := f.Width/columns, f.Height/rows
	for y := row * h; y < (row+1)*h; y++ {
		line := f.Planes[0].Data[y*f.Planes[0].Stride:]
		for x := column * w; x < (column+1)*w; x += 2 {
			mean[0] += (float64(line[2*x]) + float64(line[2*x+2])) / 2
			mean[1] += float64(line[2*x+1])
			mean[2] += float64(line[2*x+3])
		}
	}
	for i := range mean {
		mean[i] /= float64(w * h / 2)
	}
	return mean
}

// A picture from the heap has no dma-buf: it is copied into memory of the
// scaler's, and counted.
func TestPictureOfTheHeapIsCopied(t *testing.T) {
	c, err := scaler(t).Open(received, small)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, c)
	f := hw.NewFrame(nil)
	f.Mode = hw.Mode{Pixel: hw.RGB24, Width: 640, Height: 360}
	const stride = 3*640 + 64
	f.Planes = []hw.Plane{{Data: make([]byte, stride*360), Stride: stride, FD: -1}}
	for i := range f.Planes[0].Data {
		f.Planes[0].Data[i] = byte(i / 7)
	}
	f.Lend()
	defer f.Release()
	for i := range 5 {
		f.Stamp = time.Duration(i+1) * time.Second
		if err := c.Submit(f); err != nil {
			t.Fatal(err)
		}
		out := next(t, c)
		compare(t, f, out)
		out.Release()
	}
	if st := c.Stats(); st.CopiedBytes != 5*3*640*360 || st.Converted != 5 {
		t.Errorf("%+v", st)
	}
}

// The same as the box does it: the encoder is opened for the receiver's
// pictures, and the scaler comes with it.
func TestEncoderWithAScalerAhead(t *testing.T) {
	const frames = 30
	s := scaler(t)
	d := convert.Ahead(encoder(t), func() ([]*convert.Device, error) { return []*convert.Device{s}, nil })
	l, name, err := d.Importer.(hw.ScalingImporter).Scaled(received, 320, 180)
	if err != nil || name != "v4l2:vim2m" {
		t.Fatalf("scaled: %q, %v", name, err)
	}
	enc, err := d.Open(hw.EncoderConfig{
		Codec: stream.H264, Width: 320, Height: 180, FPS: hw.Rate{Num: 15, Den: 1}, GOP: 10, Bitrate: 2e6, Input: l,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := openReceiver(t)
	for i := range frames {
		src := r.read(t)
		if err := enc.Submit(src); err != nil {
			t.Fatal(err)
		}
		stamp := src.Stamp
		src.Release()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		u, err := enc.Next(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if u.PTS != stamp || u.Key != (i%10 == 0) {
			t.Errorf("unit %d: stamp %v of a picture with %v, key %v", i, u.PTS, stamp, u.Key)
		}
	}
	if st := enc.Stats(); st != (hw.EncoderStats{Submitted: frames, Coded: frames}) {
		t.Errorf("%+v", st)
	}
	if err := enc.Close(); err != nil {
		t.Error(err)
	}
}

func bind(t *testing.T, what string) {
	t.Helper()
	if err := os.WriteFile("/sys/bus/platform/drivers/vim2m/"+what, []byte("vim2m.0"), 0); err != nil {
		t.Fatal(err)
	}
}

// The driver is taken away while the scaler is open.
func TestScalerIsTakenAway(t *testing.T) {
	s := scaler(t)
	c, err := s.Open(received, small)
	if err != nil {
		t.Fatal(err)
	}
	bind(t, "unbind")
	defer bind(t, "bind")
	f := hw.NewFrame(nil)
	f.Mode = hw.Mode{Pixel: hw.RGB24, Width: 640, Height: 360}
	f.Planes = []hw.Plane{{Data: make([]byte, 3*640*360), Stride: 3 * 640, FD: -1}}
	f.Lend()
	_ = c.Submit(f) // it may know already
	f.Release()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := c.Next(ctx); !errors.Is(err, hw.ErrGone) {
		t.Errorf("next: %v", err)
	}
	stop(t, c)
	if _, err := s.Open(received, small); !errors.Is(err, hw.ErrGone) {
		t.Errorf("open: %v", err)
	}
}
