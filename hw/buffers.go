package hw

import (
	"context"
	"fmt"
)

// A Layout says where the planes of a raw picture lie in memory that devices
// share. Layouts compare with ==: pictures of equal layouts may be exchanged
// without a copy.
type Layout struct {
	Pixel         PixelFormat // never MJPEG or H264
	Width, Height int         // of the picture in pixels; buffers may hold more lines
	// Planes: as many as the pixel format has, see [Frame.Planes].
	Planes [3]PlaneLayout
	// Sizes are the bytes of each buffer that a picture needs: one buffer with
	// all planes in it, or one a plane; the rest is zero.
	Sizes [3]int
}

// A PlaneLayout is the place of one plane.
type PlaneLayout struct {
	Buffer int // index of Sizes
	Offset int // bytes from the buffer's start
	Stride int // bytes from line to line
}

// Buffers returns how many buffers a picture needs.
func (l Layout) Buffers() int {
	n := 0
	for n < len(l.Sizes) && l.Sizes[n] > 0 {
		n++
	}
	return n
}

// Lines returns how many lines the first plane has room for, as far as the
// place of the second one tells; else Height.
func (l Layout) Lines() int {
	first, second := l.Planes[0], l.Planes[1]
	if second.Buffer != first.Buffer || first.Stride == 0 {
		return l.Height
	}
	return max((second.Offset-first.Offset)/first.Stride, l.Height)
}

// Reads reports whether a device that expects pictures in l can read those of
// src in place: the same picture, planes at the same places, and no less
// memory behind them. A format whose planes follow from one stride and offset
// must agree in all of them (NV12's chroma stands at stride × lines).
func (l Layout) Reads(src Layout) bool {
	if l.Pixel != src.Pixel || l.Width != src.Width || l.Height != src.Height || l.Planes != src.Planes {
		return false
	}
	for i, size := range l.Sizes {
		if src.Sizes[i] < size {
			return false
		}
	}
	return l.Buffers() == src.Buffers()
}

// String returns, for example, "1920x1080 NV12, 1920 bytes a line", and how
// many lines there are in memory if that is more than in the picture.
func (l Layout) String() string {
	s := fmt.Sprintf("%dx%d %s, %d bytes a line", l.Width, l.Height, l.Pixel, l.Planes[0].Stride)
	if n := l.Lines(); n > l.Height {
		s += fmt.Sprintf(", %d lines", n)
	}
	return s
}

// A Buffer is memory of one picture that devices share.
type Buffer struct {
	FDs [3]int    // dma-buf descriptors, as many as the layout has buffers, the rest -1
	Mem [3][]byte // the same memory, mapped; nil where it is not
	// Shared are the dma-bufs of Mem, for [BeginAccess]; nil where Mem is, and for
	// memory of a kind that needs no care, such as memfds.
	Shared [3]*DMABuf
}

// A Pool is a set of buffers of one layout. Its descriptors and mappings stay
// good until Close.
type Pool interface {
	Layout() Layout
	Buffers() []Buffer
	Close() error
}

// An Importer is the input side of a hardware encoder, or of another device
// that reads pictures of somebody else's memory. All methods may be called
// from any goroutine.
type Importer interface {
	// Takes lists the pixel formats of the input, best first.
	Takes() []PixelFormat
	// Layout returns the layout nearest to src that the device reads: src
	// itself if it can be read in place. Only Pixel, Width and Height of src
	// must be set. It fails with ErrUnsupported if the format or size is none
	// for the device.
	Layout(src Layout) (Layout, error)
	// Allocate makes count buffers of a layout that Layout returned, in memory
	// that the device can read. The caller closes the pool.
	Allocate(l Layout, count int) (Pool, error)
}

// A ScalingImporter is the input of an encoder with a scaler of hardware before
// it, which turns pictures of other sizes and formats into those that it codes.
type ScalingImporter interface {
	Importer
	// Scaled returns the layout nearest to src that the scaler reads and makes
	// pictures of width × height of, and the scaler's name. It fails with
	// ErrUnsupported if there is no scaler for that. An encoder that is opened
	// with such an [EncoderConfig].Input uses the scaler.
	Scaled(src Layout, width, height int) (Layout, string, error)
}

// A Way is how pictures get from a source to an encoder.
type Way string

// The ways, best first.
const (
	Export  Way = "export"  // the source owns the memory, the encoder reads it: no copy
	Import  Way = "import"  // the encoder owns the memory, the source writes into it: no copy
	Copy    Way = "copy"    // the CPU copies into the encoder's memory
	Convert Way = "convert" // the CPU scales or converts into the encoder's memory
	Decode  Way = "decode"  // the CPU decodes JPEG
	Through Way = "through" // the source's own H.264, no encoder
	Heap    Way = "heap"    // both sides are software: pictures are passed by reference
)

// A BufferPlan is a way and its reason, for probe, status and page.
type BufferPlan struct {
	Way    Way
	Reason string
	// Pool is the memory that a source shall write into: of Import only.
	Pool Pool
}

// String returns, for example, "export: v4l2:vh264enc reads the camera's memory".
func (p BufferPlan) String() string { return string(p.Way) + ": " + p.Reason }

// A BufferSource is what a source says of its memory once its mode is granted.
type BufferSource struct {
	Driver string // "uvcvideo", "vivid"
	Layout Layout // as granted; zero for coded pictures
	Mode   Mode
	// Exports says that the source makes buffers that other devices can read;
	// if not, Private says why, in words for people.
	Exports bool
	Private string
	// Imports says that the source writes into dma-bufs of others.
	Imports bool
}

// A SharingCamera shares its buffers with an encoder.
type SharingCamera interface {
	Camera
	// OpenShared is Open; decide is called once, in between, when the mode is
	// granted and before buffers are made. A pool in its answer stays the
	// caller's, who closes it after the last frame has been released. If the
	// way turns out to be impossible the stream goes on with copies, and its
	// Plan says why.
	OpenShared(ctx context.Context, want Mode, decide func(BufferSource) BufferPlan) (SharedStream, error)
}

// A PreferringCamera chooses its mode with what comes after it in mind.
type PreferringCamera interface {
	Camera
	// Preferring returns the same camera that, among modes that serve a wish
	// equally well, opens one of these pixel formats, the first ones rather,
	// so that nothing must be converted. None means no preference. H264 is
	// never chosen by preference, only if it is wished.
	Preferring(takes []PixelFormat) Camera
}

// A SharedStream is a capture whose frames carry dma-bufs.
type SharedStream interface {
	CameraStream
	// Plan says how the frames are shared in the end.
	Plan() BufferPlan
}

// A SignalCamera has an input that can be without a signal, such as HDMI.
type SignalCamera interface {
	Camera
	// AwaitSignal returns nil once the input may have a signal that can be
	// opened, or the camera may be another one; else ctx's error, or why the input
	// cannot be asked: then wait a moment before the next call.
	AwaitSignal(ctx context.Context) error
}

// A SoundCamera knows the sample rate of the sound that comes with its
// picture: sound cards behind an HDMI bridge claim 48 kHz whatever comes in.
type SoundCamera interface {
	Camera
	// SoundRate returns samples a second, zero if there is no sound, or
	// ErrUnsupported.
	SoundRate() (int, error)
}
