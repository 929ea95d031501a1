// Package convert drives hardware that makes pictures of pictures: scalers,
// colour converters and JPEG decoders that Linux shows as V4L2
// memory-to-memory nodes.
//
//	frame ──Submit──► OUTPUT queue ─► hardware ─► CAPTURE queue ──Next──► frame
//	  dma-buf: read in place                        exported, or in a pool of
//	  else:    copied and counted                   whoever reads it next
//
// (In V4L2's words a memory-to-memory device takes pictures on its OUTPUT queue
// and gives them on its CAPTURE queue.)
//
// Memory: a frame that goes in is retained until the hardware has read it. A
// frame that comes out is lent as in package hw; its last Release gives the
// buffer back to the hardware, and after Close frees it.
package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

// A Finder lists converters.
type Finder struct {
	// Root is the file system with /sys, os.DirFS("/") on a box.
	Root fs.FS
	// Sys is how devices are reached, v4l2.Kernel{} on a box.
	Sys v4l2.Sys
	Log *slog.Logger
	// Known is what nodes have answered before; nil asks all of them each time.
	Known *Known
}

// Known is what video nodes have answered to a [Finder], each until it goes: to
// ask a device that hangs may take for ever. The zero value knows nothing; all
// methods may be called from any goroutine.
type Known struct {
	mu      sync.Mutex
	answers map[string]answer // by the node's name
}

// An answer is the device behind a node, nil if that converts nothing.
type answer struct {
	since  uint64 // v4l2.Instance of the node
	device *Device
}

// of returns what the node has answered that is there since then.
func (k *Known) of(name string, since uint64) (*Device, bool) {
	if k == nil || since == 0 {
		return nil, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.answers[name]
	return a.device, ok && a.since == since
}

func (k *Known) keep(name string, a answer) {
	if k == nil || a.since == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.answers == nil {
		k.answers = map[string]answer{}
	}
	k.answers[name] = a
}

// Scalers returns the nodes that are there now and turn raw pictures into raw
// pictures of another size or format, in the order of their numbers. Nodes that
// cannot be asked make an error beside the list of the others. Opening a
// memory-to-memory node disturbs nobody, and none is kept open. With Known, nodes
// are asked once for as long as they are there.
func (f Finder) Scalers() ([]*Device, error) {
	all, err := f.devices()
	return slices.DeleteFunc(all, func(d *Device) bool { return !d.scales() }), err
}

// Decoders returns the nodes that are there now and decode JPEG; errors are as
// those of Scalers.
func (f Finder) Decoders() ([]*Device, error) {
	all, err := f.devices()
	return slices.DeleteFunc(all, func(d *Device) bool { return !d.decodes() }), err
}

func (f Finder) devices() ([]*Device, error) {
	names, err := v4l2.Nodes(f.Root)
	if err != nil {
		return nil, err
	}
	var devices []*Device
	var errs []error
	for _, name := range names {
		d, err := f.ask(name)
		switch {
		case errors.Is(err, hw.ErrGone): // unplugged since
		case err != nil:
			errs = append(errs, err)
		case d != nil:
			devices = append(devices, d)
		}
	}
	return devices, errors.Join(errs...)
}

// ask returns what is behind a node, from memory if it has answered before.
func (f Finder) ask(name string) (*Device, error) {
	since := v4l2.Instance(f.Root, name)
	if d, ok := f.Known.of(name, since); ok {
		return d, nil
	}
	d, err := f.device("/dev/" + name)
	if err == nil {
		f.Known.keep(name, answer{since, d})
	}
	return d, err
}

// device returns what is behind a node, or nil if that converts nothing.
func (f Finder) device(path string) (_ *Device, err error) {
	node, err := v4l2.OpenDevice(f.Sys, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	info, err := node.Info()
	if err != nil {
		return nil, err
	}
	in, out, ok := bufferTypes(info.Caps)
	if !ok {
		return nil, nil
	}
	d := &Device{sys: f.Sys, log: f.Log, path: path, info: info, trait: traits[info.Driver], in: side{typ: in}, out: side{typ: out}}
	for _, s := range []*side{&d.in, &d.out} {
		if s.formats, err = listFormats(node, s.typ); err != nil {
			return nil, err
		}
	}
	if !d.scales() && !d.decodes() {
		return nil, nil
	}
	return d, nil
}

// bufferTypes says by which types a memory-to-memory node with these
// capabilities takes and gives.
func bufferTypes(caps uint32) (in, out uint32, ok bool) {
	switch {
	case caps&uapi.CapStreaming == 0:
		return 0, 0, false
	case caps&uapi.CapVideoM2MMplane != 0:
		return uapi.BufTypeVideoOutputMplane, uapi.BufTypeVideoCaptureMplane, true
	case caps&uapi.CapVideoM2M != 0:
		return uapi.BufTypeVideoOutput, uapi.BufTypeVideoCapture, true
	default:
		return 0, 0, false
	}
}

// A Device is a converter that is plugged in now. It holds no descriptor
// between calls and may be used from any goroutine. As an [hw.Importer] it is
// the input side of a scaler.
type Device struct {
	sys     v4l2.Sys
	log     *slog.Logger
	path    string
	info    v4l2.Info
	trait   trait
	in, out side
	behind  atomic.Pointer[Converter] // the last one that did not end in time
}

// A side is one of the two queues.
type side struct {
	typ     uint32
	formats []v4l2.Format // those that this box can use, in order of preference
}

// Name returns "v4l2:" and the driver's name.
func (d *Device) Name() string { return "v4l2:" + d.info.Driver }

// Card returns what the driver calls the device, for people. Drivers with
// several nodes tell them apart here.
func (d *Device) Card() string { return d.info.Card }

// Path returns the device node, such as /dev/video0. Numbers are given out anew
// at every boot.
func (d *Device) Path() string { return d.path }

// secondLook is how long what was left behind at a device may take to end
// before the device hangs for whoever comes next.
const secondLook = time.Second

// ready fails with ErrStuck while a call that was left behind keeps the device:
// the kernel would have the next one wait for it.
func (d *Device) ready() error {
	c := d.behind.Load()
	if c == nil {
		return nil
	}
	timer := time.NewTimer(secondLook)
	defer timer.Stop()
	select {
	case <-c.left:
		return nil
	case <-timer.C:
		return fmt.Errorf("open %s: %w", d.Name(), ErrStuck)
	}
}

// Takes implements [hw.Importer]: the formats of raw pictures that go in.
func (d *Device) Takes() []hw.PixelFormat { return pixels(d.in.formats) }

// Gives lists the formats of pictures that come out, best first. Which of them
// a decoder gives may depend on the picture.
func (d *Device) Gives() []hw.PixelFormat { return pixels(d.out.formats) }

func (d *Device) scales() bool { return len(d.Takes()) > 0 && len(d.Gives()) > 0 }

func (d *Device) decodes() bool {
	return slices.ContainsFunc(d.in.formats, coded) && len(d.Gives()) > 0
}

// pixels returns the raw formats of a list, each once.
func pixels(formats []v4l2.Format) []hw.PixelFormat {
	var list []hw.PixelFormat
	for _, f := range formats {
		if !coded(f) && !slices.Contains(list, f.Pixel()) {
			list = append(list, f.Pixel())
		}
	}
	return list
}
