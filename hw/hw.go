// Package hw says what a box is made of: cameras, microphones, encoders, keys
// and lamps. Drivers below this folder implement its interfaces; the daemon
// uses nothing else.
//
// A raw picture is a [Frame]: borrowed memory that belongs to the driver. Who
// keeps a frame beyond the call that handed it over retains it and releases it
// once. Coded pictures leave this floor as [stream.Unit], which nobody owns.
package hw

import (
	"context"
	"errors"
	"fmt"
	"time"

	"encoderd.example/stream"
)

// Errors that drivers wrap, so that callers can tell what to do.
var (
	// ErrGone says that the device was unplugged. Look for it again.
	ErrGone = errors.New("device is gone")
	// ErrBusy says that another program holds the device, or, from
	// [Encoder.Submit], that the encoder has no room for a frame.
	ErrBusy = errors.New("device is busy")
	// ErrNoSignal says that the device is there but nothing comes in.
	ErrNoSignal = errors.New("no signal")
	// ErrUnsupported says that the device or driver cannot do what was asked.
	ErrUnsupported = errors.New("not supported")
	// ErrStuck says that a device did not stop within its deadline and was left
	// behind with what it holds: do not open it again. Close may be called again
	// and fails so until the device has stopped.
	ErrStuck = errors.New("device does not stop")
	// ErrMissing says that a library or driver is not installed.
	ErrMissing = errors.New("not installed")
)

// A PixelFormat is a V4L2 four-character code.
type PixelFormat uint32

// FourCC builds a code from its four letters.
func FourCC(s string) PixelFormat {
	return PixelFormat(s[0]) | PixelFormat(s[1])<<8 | PixelFormat(s[2])<<16 | PixelFormat(s[3])<<24
}

// The layouts that this box moves (Linux user-space API, part I, section 2).
const (
	NV12  PixelFormat = 'N' | 'V'<<8 | '1'<<16 | '2'<<24 // Y plane, then interleaved CbCr at half size
	I420  PixelFormat = 'Y' | 'U'<<8 | '1'<<16 | '2'<<24 // Y, Cb, Cr planes, chroma at half size
	YUYV  PixelFormat = 'Y' | 'U'<<8 | 'Y'<<16 | 'V'<<24 // packed 4:2:2
	UYVY  PixelFormat = 'U' | 'Y'<<8 | 'V'<<16 | 'Y'<<24 // the same with chroma first, as HDMI bridges send it
	NV16  PixelFormat = 'N' | 'V'<<8 | '1'<<16 | '6'<<24 // Y plane, then interleaved CbCr at half width
	I422  PixelFormat = '4' | '2'<<8 | '2'<<16 | 'P'<<24 // Y, Cb, Cr planes, chroma at half width
	NV24  PixelFormat = 'N' | 'V'<<8 | '2'<<16 | '4'<<24 // Y plane, then interleaved CbCr at full size
	MJPEG PixelFormat = 'M' | 'J'<<8 | 'P'<<16 | 'G'<<24 // one JPEG picture a frame
	H264  PixelFormat = 'H' | '2'<<8 | '6'<<16 | '4'<<24 // one access unit a frame, with start codes

	RGB24  PixelFormat = 'R' | 'G'<<8 | 'B'<<16 | '3'<<24 // packed, three bytes a pixel, red first
	BGR24  PixelFormat = 'B' | 'G'<<8 | 'R'<<16 | '3'<<24 // the same with blue first
	RGB565 PixelFormat = 'R' | 'G'<<8 | 'B'<<16 | 'P'<<24 // packed, little-endian words with red in the high five bits
)

// RGB reports whether pictures of p have red, green and blue instead of luma
// and chroma.
func (p PixelFormat) RGB() bool { return p == RGB24 || p == BGR24 || p == RGB565 }

// String returns the four letters.
func (p PixelFormat) String() string {
	return string([]byte{byte(p), byte(p >> 8), byte(p >> 16), byte(p >> 24)})
}

// A Rate is frames per second as a fraction.
type Rate struct{ Num, Den int }

// Float returns r in Hz, or zero for a zero Rate.
func (r Rate) Float() float64 {
	if r.Den == 0 {
		return 0
	}
	return float64(r.Num) / float64(r.Den)
}

// Period returns the time from frame to frame, or zero for a zero Rate.
func (r Rate) Period() time.Duration {
	if r.Num == 0 {
		return 0
	}
	return time.Second * time.Duration(r.Den) / time.Duration(r.Num)
}

// A Mode is what a camera can be asked for, and what it grants.
type Mode struct {
	Pixel         PixelFormat
	Width, Height int
	FPS           Rate
	// FullRange says that luma, or RGB, uses 0–255 instead of 16–235.
	FullRange bool
	// Matrix says how luma and chroma are made of RGB; it means nothing for
	// formats that are RGB.
	Matrix Matrix
}

// A Matrix is a way to make luma and chroma of red, green and blue.
type Matrix uint8

// The matrices. A picture whose source does not say is by custom of BT.601
// below 720 lines, else of BT.709: see [Mode.Colors].
const (
	MatrixUnsaid Matrix = iota
	BT601               // ITU-R BT.601: JPEG, USB cameras, standard definition
	BT709               // ITU-R BT.709: high definition
)

// String returns "BT.601", "BT.709" or "unsaid".
func (m Matrix) String() string {
	switch m {
	case BT601:
		return "BT.601"
	case BT709:
		return "BT.709"
	case MatrixUnsaid:
	}
	return "unsaid"
}

// Colors returns m.Matrix, or where that is unsaid the one that players assume
// for pictures of m's height.
func (m Mode) Colors() Matrix {
	switch {
	case m.Matrix != MatrixUnsaid:
		return m.Matrix
	case m.Height < 720:
		return BT601
	default:
		return BT709
	}
}

// String returns, for example, "1920x1080 30 fps NV12".
func (m Mode) String() string {
	return fmt.Sprintf("%dx%d %.4g fps %s", m.Width, m.Height, m.FPS.Float(), m.Pixel)
}

// A Camera is a source of pictures that is plugged in now.
type Camera interface {
	// ID is the stable name: the same device in the same socket has it again
	// after a restart. It is what the config holds.
	ID() string
	// Name is for people.
	Name() string
	// Modes lists what the camera offers, best first. It may open the device
	// for a moment and fails with ErrBusy while somebody else holds it.
	Modes() ([]Mode, error)
	// Open starts capture in the mode nearest to want. A zero field of want
	// leaves the choice to the driver.
	Open(ctx context.Context, want Mode) (CameraStream, error)
}

// A CameraStream is a running capture. Read is for one goroutine; the others
// may be called from any.
type CameraStream interface {
	// Mode is what was granted.
	Mode() Mode
	// Read returns the next good frame; the caller releases it. It fails with
	// ErrGone, ErrNoSignal or the driver's words; after an error only Close
	// may follow.
	Read(ctx context.Context) (*Frame, error)
	// Stats may be read at any time.
	Stats() CameraStats
	// Close stops capture. Frames still retained stay readable until their
	// last Release.
	Close() error
}

// CameraStats counts since Open.
type CameraStats struct {
	Frames  uint64 // good frames read
	Missed  uint64 // frames that the sequence numbers say were lost before us
	Damaged uint64 // frames dropped: error flag, zero bytes, short, bad stamp
}

// Sound in the box is interleaved S16 in host byte order, 48 kHz, two channels.
const (
	SampleRate = 48000
	Channels   = 2
)

// A Mic is a source of sound that is plugged in now.
type Mic interface {
	ID() string   // stable name, as for Camera
	Name() string // for people
	// Open starts capture. Whatever the card delivers, the stream gives
	// SampleRate and Channels.
	Open(ctx context.Context) (MicStream, error)
}

// A MicStream is a running sound capture. Read is for one goroutine.
type MicStream interface {
	// Read fills pcm, interleaved S16, with whole sample frames (at least one)
	// and returns how many it wrote and the CLOCK_MONOTONIC stamp of the first
	// one. Samples lost in an overrun show as a jump of the stamp.
	Read(ctx context.Context, pcm []int16) (frames int, stamp time.Duration, err error)
	Stats() MicStats
	Close() error
}

// A RatedMicStream is a capture whose card can be wrong about its rate: that of
// an HDMI input is set to one rate, and delivers what the source sends.
type RatedMicStream interface {
	MicStream
	// TrueRate says how many sample frames a second really come, as a
	// [SoundCamera] knows; zero says nothing. It may be called from any
	// goroutine, again and again: only a rate other than the one told before
	// counts, from the next Read on.
	TrueRate(hz int)
}

// A PickingMicStream is a capture from a card with more inputs than two.
type PickingMicStream interface {
	MicStream
	// Pick says which of the card's input channels, counted from 1, are heard
	// left and right from the next Read on; at first they are 1 and 2, and with
	// a card of one channel both are that one. It fails with ErrUnsupported if
	// the card has no such channel; then only Close may follow. It is for the
	// goroutine of Read.
	Pick(left, right int) error
}

// An Attached device is a part of a larger one, as a microphone in a camera.
type Attached interface {
	// Parent is the folder below /sys/devices of the USB device that it is a
	// part of, or "". Parts of one device have the same.
	Parent() string
}

// An Instanced camera can be told from another that had its ID before it.
type Instanced interface {
	// Instance is a number that the device has until it is pulled out or its
	// driver goes; zero if nobody can tell.
	Instance() uint64
}

// MicStats counts since Open.
type MicStats struct {
	Frames uint64 // sample frames read
	Xruns  uint64 // overruns
}

// An EncoderConfig is everything about an encoder that cannot change while it
// runs, and the first bit rate.
type EncoderConfig struct {
	Codec         stream.Codec
	Width, Height int // of the coded picture, even
	FPS           Rate
	GOP           int    // frames from key to key
	Bitrate       int    // bit/s
	Profile       string // "" = high, of H.265 main
	Preset        string // of software encoders, "" = their default
	Threads       int    // of software encoders, 0 = their default
	// Input is the layout of the pictures that will mostly be submitted, as
	// [Importer].Layout returned it; the zero Layout leaves it to the encoder.
	// Pictures of other layouts are copied, converted and scaled.
	Input Layout
}

// An Encoder codes pictures. Submit and Next may be called from different
// goroutines, one each; the others from any.
type Encoder interface {
	// Submit hands over a raw frame of any [Mode] but MJPEG; the encoder scales
	// and converts to its own size where the hardware cannot, and counts the
	// bytes it copied. It never blocks: it retains f for as long as it needs
	// it, or returns ErrBusy, counts the drop, and leaves f alone. Stamps must
	// rise from frame to frame.
	Submit(f *Frame) error
	// Next returns the next coded unit in decoding order. The PTS is the stamp
	// of the frame that it came from. Frames that the encoder swallows are
	// counted in Stats, never guessed.
	Next(ctx context.Context) (*stream.Unit, error)
	// SetBitrate changes the target (bit/s) from the next frames on.
	SetBitrate(bps int) error
	// ForceKey makes the next submitted frame a key frame.
	ForceKey()
	Stats() EncoderStats
	// Close gives up frames that are still inside.
	Close() error
}

// EncoderStats counts since the encoder was opened.
type EncoderStats struct {
	Submitted uint64
	Coded     uint64
	Dropped   uint64 // by us: no room
	Swallowed uint64 // by the encoder: went in, never came out
	// CopiedBytes counts bytes of raw pictures that this program's CPU wrote
	// between the frame submitted and the memory that the encoder reads: copies,
	// conversions and scalings, each pass by itself. What a frame cost before it
	// came, coded bytes, and copies inside a library do not count: libx264 makes
	// one of each picture.
	CopiedBytes uint64
}

// An EncoderDriver opens encoders of one kind.
type EncoderDriver struct {
	Name     string // "libx264", "v4l2:vh264enc"
	Hardware bool
	Codecs   []stream.Codec
	// Open fails with an error that wraps ErrMissing if the library or device
	// is not there.
	Open func(EncoderConfig) (Encoder, error)
	// Importer is nil for software.
	Importer Importer
	// LiveRate says that its encoders can be told another frame rate while they
	// run, up to the one that they were opened for.
	LiveRate bool
	// Budget is how many macroblocks (16×16 pixels) a second all encoders of
	// this driver code together; zero if it is not known.
	Budget int
	// Instance tells a device that was plugged in anew, or whose driver was,
	// from the one before that had its name; zero if nobody can tell.
	Instance uint64
}

// Macroblocks returns what a picture of that size costs of an encoder's budget
// each second.
func (c EncoderConfig) Macroblocks() int {
	perPicture := ((c.Width + 15) / 16) * ((c.Height + 15) / 16)
	return int(float64(perPicture)*c.FPS.Float() + 0.5)
}

// An AudioEncoder codes sound. It is for one goroutine.
type AudioEncoder interface {
	Track() *stream.Track
	// Encode takes interleaved S16 in SampleRate and Channels, any number of
	// sample frames, that follow without a gap on those before. stamp is the
	// CLOCK_MONOTONIC time of pcm's first sample; it counts at the first call
	// and after Reset only, from there on time is the count of samples. pcm is
	// not kept. emit gets each finished unit.
	Encode(pcm []int16, stamp time.Duration, emit func(*stream.Unit)) error
	// Reset forgets buffered samples, so that the next stamp counts again.
	Reset()
	Close() error
}

// An AudioEncoderDriver opens sound encoders of one codec.
type AudioEncoderDriver struct {
	Name  string
	Codec stream.Codec
	Open  func(bitrate int) (AudioEncoder, error)
}

// A Board is everything that differs from box to box. It is data: literals
// stand in hw/boards.
type Board struct {
	Name string // for --board
	// Title is for people.
	Title string
	// Compatible lists device-tree names that this board answers to.
	Compatible []string
	// MaxPixels is how many pixels a second, blanking aside, its inputs for
	// digital signals take; zero for those of 1920x1080 at 60 Hz.
	MaxPixels int
	// Cameras and Mics list what is plugged in now.
	Cameras func() ([]Camera, error)
	Mics    func() ([]Mic, error)
	// FindCamera and FindMic, if set, return the device that an ID names in a
	// way that the lists do not, such as a second capture device of a card.
	// They fail with ErrGone while it is not plugged in.
	FindCamera func(id string) (Camera, error)
	FindMic    func(id string) (Mic, error)
	// Watch calls changed whenever Cameras or Mics may answer differently,
	// until ctx ends. changed must not block.
	Watch func(ctx context.Context, changed func()) error
	// TestCamera and TestMic are what the source "test" means.
	TestCamera Camera
	TestMic    Mic
	// FindEncoders lists the hardware encoders that are there now, best first;
	// nil if the board has none. They come before Encoders.
	FindEncoders func() ([]EncoderDriver, error)
	// Encoders are those that need no hardware, in order of preference.
	Encoders      []EncoderDriver
	AudioEncoders []AudioEncoderDriver
	// Keys and Lamps are the board's own face; a config may wire another.
	Keys  []KeyWire
	Lamps []LampWire
	// OpenPanel joins keys and lamps. It fails if two keys or two lamps have one
	// name. A wire that leads nowhere hinders no other: it shows in the key's
	// edges, and when the lamp is lit. The caller closes the panel. It is nil if
	// the board can have no panel.
	OpenPanel func(keys []KeyWire, lamps []LampWire) (Panel, error)
	// Darken makes lamps dark and opens contacts, for when nobody runs the panel:
	// a lamp whose line another program holds makes an error that wraps ErrBusy.
	// It does all it can and returns what it could not. It is nil if OpenPanel is.
	Darken func(lamps []LampWire) error
	// Faults lets a software board break on demand; nil on real ones. The
	// names are documented in hw/sim.
	Faults func(name string, on bool) error
}
