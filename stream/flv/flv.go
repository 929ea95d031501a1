// Package flv writes coded units as FLV tags, the form in which RTMP and
// HTTP-FLV carry H.264 and AAC (Adobe Flash Video File Format Specification
// 10.1, annex E) and, to who knows it, H.265 (Enhanced RTMP v1, Veovera 2023).
//
//	stream.Unit ─► Muxer ─► Tag{Head, Data} ─┬─► RTMP message
//	                                         └─► AppendFrame: FLV file, HTTP-FLV
//
// No media is copied: Tag.Data is the unit's own memory, which is immutable.
// Tag.Head belongs to the muxer and is good until its next call.
package flv

import (
	"encoding/binary"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/flv/amf0"
)

// Kind is a tag type (E.4.1), at the same time an RTMP message type.
type Kind byte

// The tag types.
const (
	Audio  Kind = 8
	Video  Kind = 9
	Script Kind = 18
)

// Codec ids (E.4.2.1, E.4.3.1).
const (
	codecAVC = 7
	codecAAC = 10
)

// FourCCHEVC names H.265 in Enhanced RTMP; it stands where older tags have a
// codec id, and in the metadata as a number.
const FourCCHEVC = "hvc1"

const fourCCHEVC = 'h'<<24 | 'v'<<16 | 'c'<<8 | '1'

// soundAAC is the first byte of every AAC tag: the format, then "44 kHz, 16
// bit, stereo", which the specification fixes whatever the sound is.
const soundAAC = codecAAC<<4 | 0x0f

// Packet types of AVC and AAC tags (E.4.2.1, E.4.3.1).
const (
	packetConfig = 0
	packetMedia  = 1
)

// Packet types of Enhanced RTMP's video tags ("VideoPacketType").
const (
	packetStart = 0
	packetCoded = 1
)

// VideoHead, EnhancedHead and AudioHead are the bytes before the media in a
// tag of H.264, H.265 and AAC.
const (
	VideoHead    = 5
	EnhancedHead = 8
	AudioHead    = 2
)

// AppendVideo appends the [VideoHead] bytes that stand before a unit of H.264
// in length-prefixed form. cts is PTS − DTS; it is written in milliseconds as
// 24 bits with sign.
func AppendVideo(b []byte, key bool, cts time.Duration) []byte {
	return appendVideo(b, key, packetMedia, int32(milliseconds(cts)))
}

func appendVideo(b []byte, key bool, packet byte, cts int32) []byte {
	return append(b, frameType(key)|codecAVC, packet, byte(cts>>16), byte(cts>>8), byte(cts))
}

func frameType(key bool) byte {
	if key {
		return 1 << 4
	}
	return 2 << 4
}

// AppendEnhanced appends the [EnhancedHead] bytes that stand before a unit of
// H.265 in length-prefixed form; cts is as for [AppendVideo].
func AppendEnhanced(b []byte, key bool, cts time.Duration) []byte {
	ms := int32(milliseconds(cts))
	b = append(appendEnhanced(b, key, packetCoded), FourCCHEVC...)
	return append(b, byte(ms>>16), byte(ms>>8), byte(ms))
}

func appendEnhanced(b []byte, key bool, packet byte) []byte {
	const isExHeader = 0x80
	return append(b, isExHeader|frameType(key)|packet)
}

// AppendHead appends the bytes that stand before u's data in a tag: those of
// [AppendVideo], [AppendEnhanced] or [AppendAudio]. u is H.264, H.265 or AAC.
func AppendHead(b []byte, u *stream.Unit) []byte {
	switch u.Track.Codec {
	case stream.H264:
		return AppendVideo(b, u.Key, u.PTS-u.DTS)
	case stream.H265:
		return AppendEnhanced(b, u.Key, u.PTS-u.DTS)
	default:
		return AppendAudio(b)
	}
}

// KindOf returns the kind of u's tag.
func KindOf(u *stream.Unit) Kind {
	if u.Track.Codec.Video() {
		return Video
	}
	return Audio
}

// AppendVideoConfig appends the body of the sequence header tag of a track of
// H.264 or H.265.
func AppendVideoConfig(b []byte, t *stream.Track) []byte {
	if t.Codec == stream.H265 {
		b = append(appendEnhanced(b, true, packetStart), FourCCHEVC...)
		return append(b, t.Setup...)
	}
	return append(appendVideo(b, true, packetConfig, 0), t.Setup...)
}

// AppendAudio appends the [AudioHead] bytes that stand before a raw AAC frame.
func AppendAudio(b []byte) []byte { return append(b, soundAAC, packetMedia) }

// AppendAudioConfig appends the body of the AAC sequence header tag of an AAC
// track.
func AppendAudioConfig(b []byte, t *stream.Track) []byte {
	return append(append(b, soundAAC, packetConfig), t.Setup...)
}

// AppendMetadata appends the body of an onMetaData script tag (E.5). audio may
// be nil.
func AppendMetadata(b []byte, video, audio *stream.Track, encoder string) []byte {
	m := amf0.Array{
		{Name: "duration", Value: amf0.Number(0)}, // live: unknown
		{Name: "width", Value: amf0.Number(video.Width)},
		{Name: "height", Value: amf0.Number(video.Height)},
		{Name: "framerate", Value: amf0.Number(video.FPS)},
		{Name: "videodatarate", Value: amf0.Number(float64(video.Bitrate) / 1000)},
		{Name: "videocodecid", Value: videoCodecID(video)},
	}
	if audio != nil {
		m = append(m,
			amf0.Property{Name: "audiodatarate", Value: amf0.Number(float64(audio.Bitrate) / 1000)},
			amf0.Property{Name: "audiosamplerate", Value: amf0.Number(audio.Rate)},
			amf0.Property{Name: "audiosamplesize", Value: amf0.Number(16)},
			amf0.Property{Name: "audiochannels", Value: amf0.Number(audio.Channels)},
			amf0.Property{Name: "stereo", Value: amf0.Bool(audio.Channels > 1)},
			amf0.Property{Name: "audiocodecid", Value: amf0.Number(codecAAC)},
		)
	}
	m = append(m, amf0.Property{Name: "encoder", Value: amf0.String(encoder)})
	return amf0.Append(b, amf0.String("onMetaData"), m)
}

func videoCodecID(t *stream.Track) amf0.Number {
	if t.Codec == stream.H265 {
		return fourCCHEVC
	}
	return codecAVC
}

// AppendFileHeader appends the FLV header and the first, empty, back pointer
// (E.2, E.3).
func AppendFileHeader(b []byte, audio bool) []byte {
	flags := byte(1)
	if audio {
		flags |= 4
	}
	return append(b, 'F', 'L', 'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0)
}

// FrameHead and FrameTail are the bytes around a tag's body in a file.
const (
	FrameHead = 11
	FrameTail = 4
)

// AppendFrameHead appends the tag header (E.4.1) of a tag.
func AppendFrameHead(b []byte, tag Tag) []byte {
	n := len(tag.Head) + len(tag.Data)
	return append(b, byte(tag.Kind), byte(n>>16), byte(n>>8), byte(n),
		byte(tag.Time>>16), byte(tag.Time>>8), byte(tag.Time), byte(tag.Time>>24), 0, 0, 0)
}

// PutTime sets the time in a tag header.
func PutTime(head []byte, at uint32) {
	head[4], head[5], head[6], head[7] = byte(at>>16), byte(at>>8), byte(at), byte(at>>24)
}

// AppendFrameTail appends the back pointer (E.3) that follows a tag.
func AppendFrameTail(b []byte, tag Tag) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(FrameHead+len(tag.Head)+len(tag.Data)))
}

// AppendFrame appends a whole tag as it stands in a file. It copies the media.
func AppendFrame(b []byte, tag Tag) []byte {
	b = append(AppendFrameHead(b, tag), tag.Head...)
	return AppendFrameTail(append(b, tag.Data...), tag)
}

// milliseconds rounds to the nearest.
func milliseconds(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }
