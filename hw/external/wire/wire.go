// Package wire is the protocol between the box and a device program: a camera
// or an encoder that lives in a process of its own.
//
// Messages are fixed little-endian structures, one a datagram of a
// SOCK_SEQPACKET socket; picture memory travels beside them as descriptors
// (SCM_RIGHTS). docs/external-devices.md describes every message and its
// offsets; a test holds the two together.
//
// Whatever comes in is hostile until checked: [Decode] accepts a datagram only
// if it is exactly one message, and a [Conn] closes every descriptor that the
// message does not carry. What a message means in its place is for the reader
// to check.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Version is the version of the protocol that this package speaks.
const Version = 1

// Limits of the protocol.
const (
	MaxMessage = 4096 // bytes of a datagram
	MaxBuffers = 16   // of a camera, or attached to an encoder
	MaxFDs     = 3 * MaxBuffers
	MaxModes   = 64
	MaxFormats = 8
)

// FD is the descriptor number of the socket in a device program.
const FD = 3

// ErrProtocol says that the other side sent what it must not send.
var ErrProtocol = errors.New("broken protocol")

// A Type is the first word of a message.
type Type uint32

// The messages, by who sends them. Numbers are never used twice.
const (
	TypeHelloCamera   Type = 1 // device
	TypeHelloEncoder  Type = 2 // device
	TypeError         Type = 3 // device
	TypeStop          Type = 4 // box
	TypeBye           Type = 5 // device
	TypeOpenCamera    Type = 16
	TypeCameraOpened  Type = 17 // device
	TypeBuffers       Type = 18 // both, with descriptors
	TypeStart         Type = 19 // box
	TypeFrame         Type = 20 // device
	TypeRelease       Type = 21 // box
	TypeSignal        Type = 22 // device
	TypeOpenEncoder   Type = 32 // box, with a descriptor
	TypeEncoderOpened Type = 33 // device
	TypeAllocate      Type = 34 // box; answered by Buffers
	TypeAttach        Type = 35 // box, with descriptors
	TypeDetach        Type = 36 // box
	TypeSubmit        Type = 37 // box
	TypeReturned      Type = 38 // device
	TypeUnit          Type = 39 // device
	TypeTaken         Type = 40 // box
	TypeBitrate       Type = 41 // box
)

// A Message is one of the message structures of this package, by value.
type Message interface{ kind() Type }

// A Mode is a picture format, size and rate; see hw.Mode.
type Mode struct {
	Pixel, Width, Height uint32 // Pixel is a V4L2 four-character code
	RateNum, RateDen     uint32 // frames per second
	Flags                uint32 // FullRange
}

// FullRange in Mode.Flags says that luma uses 0–255.
const FullRange = 1

// A Layout says where the planes of a picture lie in its buffers; see
// hw.Layout. Of coded pictures only Pixel, Width, Height and Sizes[0], the
// most that a picture can have, count.
type Layout struct {
	Pixel, Width, Height uint32
	Planes               [3]Plane
	Sizes                [3]uint32
	_                    uint32
}

// A Plane is the place of one plane: index of Layout.Sizes, bytes from the
// buffer's start, bytes from line to line.
type Plane struct{ Buffer, Offset, Stride uint32 }

// HelloCamera is the first message of a camera.
type HelloCamera struct {
	Version, Flags, Modes, _ uint32
	Name                     [64]byte // for people; UTF-8, zero bytes at the end
	Mode                     [MaxModes]Mode
	Parent                   Parent
}

// A Parent is the folder below /sys/devices of the USB device that a device is
// a part of, as text. It may be left out of a message altogether.
type Parent [256]byte

// Flags of HelloCamera.
const (
	SignalInput = 1 // the input can be without a signal: Signal messages follow
	SignalThere = 2 // there is one now
)

// HelloEncoder is the first message of an encoder.
type HelloEncoder struct {
	Version, Flags      uint32
	Codecs              uint32 // bit mask
	Budget              uint32 // macroblocks a second, zero if not known
	MinWidth, MinHeight uint32
	MaxWidth, MaxHeight uint32
	Step                uint32 // width and height are multiples of it
	Formats, _, _       uint32
	Name                [64]byte
	Format              [MaxFormats]Format
	Parent              Parent
}

// Codecs and flags of HelloEncoder.
const (
	CodecH264   = 1
	ReadsShared = 1 // reads sealed memfds
	ReadsDMABuf = 2 // reads dma-bufs
	Allocates   = 4 // answers Allocate
)

// A Format is a pixel format that an encoder reads, and how: the stride of the
// first plane and the number of its lines are multiples, powers of two, of
// what stands here; the other planes follow without a gap, with half the
// stride and lines where their samples are half as many.
type Format struct {
	Pixel, StrideAlign, LinesAlign uint32
	Flags                          uint32 // AnyStride, AnyPlace
}

// Flags of Format.
const (
	AnyStride = 1 // any stride that is long enough and aligned, not the tightest only
	AnyPlace  = 2 // planes may lie anywhere, also in different buffers
)

// OpenCamera asks for a mode; zero fields leave the choice to the camera.
type OpenCamera struct {
	Mode    Mode
	Buffers uint32 // wanted
	_       uint32
}

// CameraOpened says what OpenCamera got.
type CameraOpened struct {
	Mode   Mode
	Flags  uint32 // Exports, Imports
	_      uint32
	Layout Layout
}

// Flags of CameraOpened.
const (
	Exports = 1 // the camera's own buffers are dma-bufs
	Imports = 2 // the camera writes into buffers of others
)

// Buffers carries the descriptors of picture buffers: Count times as many as
// the layout has, all of buffer 0 first.
type Buffers struct {
	Count, Flags uint32 // DMABuf
	Layout       Layout
}

// DMABuf says that descriptors are dma-bufs and not memfds.
const DMABuf = 1

// Start starts a camera.
type Start struct{ Flags, _ uint32 } // UseSent

// UseSent in Start.Flags: write into the buffers that the box has sent.
const UseSent = 1

// Frame lends a buffer to the box until Release.
type Frame struct {
	Index, Seq uint32
	Stamp      int64     // CLOCK_MONOTONIC, ns
	Used       [3]uint32 // bytes of each buffer of the picture, counted from its start
	Flags      uint32    // Damaged
}

// Damaged in Frame.Flags: the picture is broken.
const Damaged = 1

// Release gives a camera buffer back.
type Release struct{ Index, _ uint32 }

// Signal tells that the signal of an input is there (1) or lost (0).
type Signal struct{ There, _ uint32 }

// OpenEncoder opens an encoder; the descriptor is the ring of coded units.
type OpenEncoder struct {
	Codec, Width, Height uint32
	RateNum, RateDen     uint32
	GOP, Bitrate         uint32
	RingSize             uint32
	Profile              [16]byte // "", "baseline", "main", "high"
	Layout               Layout   // of all pictures that will come
}

// EncoderOpened says that the encoder is ready for pictures.
type EncoderOpened struct {
	Inflight, _ uint32 // how many pictures it holds at most before it returns one
}

// Allocate asks for buffers that the encoder reads.
type Allocate struct {
	Count, _ uint32
	Layout   Layout
}

// Attach gives a picture buffer an index, for good or until Detach.
type Attach struct{ Index, Flags uint32 } // DMABuf

// Detach ends what Attach began.
type Detach struct{ Index, _ uint32 }

// Submit lends a picture to the encoder until Returned.
type Submit struct {
	Index, Flags uint32 // KeyFrame
	Stamp        int64  // CLOCK_MONOTONIC, ns
}

// KeyFrame in Submit.Flags asks for a key frame.
const KeyFrame = 1

// Returned gives an attached buffer back.
type Returned struct{ Index, _ uint32 }

// Unit says that a coded picture lies in the ring.
type Unit struct {
	Position uint64 // bytes since the ring began; modulo the size it is the offset
	Stamp    int64  // of the picture it came from
	Length   uint32
	Flags    uint32
}

// Taken frees the ring up to Position.
type Taken struct{ Position uint64 }

// Bitrate sets the target from the next picture on.
type Bitrate struct{ BitsPerSecond, _ uint32 }

// Error ends a session from the device's side.
type Error struct {
	Code ErrorCode
	_    uint32
	Text [248]byte // for people
}

// An ErrorCode is the kind of an Error.
type ErrorCode uint32

// The error codes.
const (
	Failed      ErrorCode = 0
	Gone        ErrorCode = 1
	Busy        ErrorCode = 2
	NoSignal    ErrorCode = 3
	Unsupported ErrorCode = 4
	Missing     ErrorCode = 5
)

// Stop asks the device to finish and end.
type Stop struct{}

// Bye is the device's last message.
type Bye struct{}

func (HelloCamera) kind() Type   { return TypeHelloCamera }
func (HelloEncoder) kind() Type  { return TypeHelloEncoder }
func (Error) kind() Type         { return TypeError }
func (Stop) kind() Type          { return TypeStop }
func (Bye) kind() Type           { return TypeBye }
func (OpenCamera) kind() Type    { return TypeOpenCamera }
func (CameraOpened) kind() Type  { return TypeCameraOpened }
func (Buffers) kind() Type       { return TypeBuffers }
func (Start) kind() Type         { return TypeStart }
func (Frame) kind() Type         { return TypeFrame }
func (Release) kind() Type       { return TypeRelease }
func (Signal) kind() Type        { return TypeSignal }
func (OpenEncoder) kind() Type   { return TypeOpenEncoder }
func (EncoderOpened) kind() Type { return TypeEncoderOpened }
func (Allocate) kind() Type      { return TypeAllocate }
func (Attach) kind() Type        { return TypeAttach }
func (Detach) kind() Type        { return TypeDetach }
func (Submit) kind() Type        { return TypeSubmit }
func (Returned) kind() Type      { return TypeReturned }
func (Unit) kind() Type          { return TypeUnit }
func (Taken) kind() Type         { return TypeTaken }
func (Bitrate) kind() Type       { return TypeBitrate }

// A shape is what is known of one type of message.
type shape struct {
	name   string
	fds    int // most descriptors that may come with it
	empty  Message
	decode func(body []byte) (Message, error)
}

// shapes lists every message.
var shapes = map[Type]shape{
	TypeHelloCamera:   {"hello of a camera", 0, HelloCamera{}, decodeHello[HelloCamera]},
	TypeHelloEncoder:  {"hello of an encoder", 0, HelloEncoder{}, decodeHello[HelloEncoder]},
	TypeError:         {"error", 0, Error{}, decode[Error]},
	TypeStop:          {"stop", 0, Stop{}, decode[Stop]},
	TypeBye:           {"bye", 0, Bye{}, decode[Bye]},
	TypeOpenCamera:    {"open of a camera", 0, OpenCamera{}, decode[OpenCamera]},
	TypeCameraOpened:  {"camera opened", 0, CameraOpened{}, decode[CameraOpened]},
	TypeBuffers:       {"buffers", MaxFDs, Buffers{}, decode[Buffers]},
	TypeStart:         {"start", 0, Start{}, decode[Start]},
	TypeFrame:         {"frame", 0, Frame{}, decode[Frame]},
	TypeRelease:       {"release", 0, Release{}, decode[Release]},
	TypeSignal:        {"signal", 0, Signal{}, decode[Signal]},
	TypeOpenEncoder:   {"open of an encoder", 1, OpenEncoder{}, decode[OpenEncoder]},
	TypeEncoderOpened: {"encoder opened", 0, EncoderOpened{}, decode[EncoderOpened]},
	TypeAllocate:      {"allocate", 0, Allocate{}, decode[Allocate]},
	TypeAttach:        {"attach", 3, Attach{}, decode[Attach]},
	TypeDetach:        {"detach", 0, Detach{}, decode[Detach]},
	TypeSubmit:        {"submit", 0, Submit{}, decode[Submit]},
	TypeReturned:      {"returned", 0, Returned{}, decode[Returned]},
	TypeUnit:          {"unit", 0, Unit{}, decode[Unit]},
	TypeTaken:         {"taken", 0, Taken{}, decode[Taken]},
	TypeBitrate:       {"bit rate", 0, Bitrate{}, decode[Bitrate]},
}

func decode[M Message](body []byte) (Message, error) {
	var m M
	if want := binary.Size(m); len(body) != want {
		return nil, fmt.Errorf("%d bytes instead of %d", len(body), want)
	}
	_, err := binary.Decode(body, binary.LittleEndian, &m)
	return m, err
}

// decodeHello decodes a message with or without its Parent.
func decodeHello[M Message](body []byte) (Message, error) {
	var m M
	if len(body) == binary.Size(m)-len(Parent{}) {
		body = append(bytes.Clone(body), make([]byte, len(Parent{}))...)
	}
	return decode[M](body)
}

// Messages lists every message, empty, by its type.
func Messages() map[Type]Message {
	list := map[Type]Message{}
	for kind, s := range shapes {
		list[kind] = s.empty
	}
	return list
}

// headerSize is type and length, four bytes each.
const headerSize = 8

// Name returns what people call m, such as "frame".
func Name(m Message) string { return shapes[m.kind()].name }

// Append appends the datagram of m to b.
func Append(b []byte, m Message) []byte {
	size := binary.Size(m)
	b = binary.LittleEndian.AppendUint32(b, uint32(m.kind()))
	b = binary.LittleEndian.AppendUint32(b, uint32(headerSize+size))
	b, err := binary.Append(b, binary.LittleEndian, m)
	if err != nil {
		panic(err) // impossible: all messages are of fixed size
	}
	return b
}

// Decode reads a datagram. It fails with ErrProtocol if the datagram is not
// exactly one message. Nothing of it is kept.
func Decode(datagram []byte) (Message, error) {
	if len(datagram) < headerSize || len(datagram) > MaxMessage {
		return nil, fmt.Errorf("%w: a datagram of %d bytes", ErrProtocol, len(datagram))
	}
	kind := Type(binary.LittleEndian.Uint32(datagram))
	length := binary.LittleEndian.Uint32(datagram[4:])
	s, known := shapes[kind]
	switch {
	case !known:
		return nil, fmt.Errorf("%w: message type %d", ErrProtocol, kind)
	case uint64(length) != uint64(len(datagram)):
		return nil, fmt.Errorf("%w: %s says that it has %d bytes, it has %d", ErrProtocol, s.name, length, len(datagram))
	}
	m, err := s.decode(datagram[headerSize:])
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrProtocol, s.name, err)
	}
	return m, nil
}

// Text returns the text of a field of fixed size, made fit for a log: valid
// UTF-8 without control characters.
func Text(field []byte) string {
	if end := bytes.IndexByte(field, 0); end >= 0 {
		field = field[:end]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, string(field)))
}

// PutText writes text to a field of fixed size: as much as fits, whole
// characters only, zero bytes behind it.
func PutText(field []byte, text string) {
	for len(text) >= len(field) {
		_, last := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-last]
	}
	clear(field[copy(field, text):])
}
