package fmp4

import (
	"fmt"

	"encoderd.example/stream"
)

// Brands (ISO/IEC 14496-12, E and 23000-19, 7.2). A CMAF track file holds one
// track; a file of more is plain fragmented MP4.
var (
	brandsCMAF  = []string{"cmfc", "iso6", "cmfc", "mp41", "dash"}
	brandsPlain = []string{"iso6", "iso6", "mp41"}
	brandsChunk = []string{"msdh", "msdh", "cmfs", "cmff", "cmfl"}
)

// Sample flags (ISO/IEC 14496-12, 8.8.3.1).
const (
	flagsKey   = 0x02000000 // depends on no other
	flagsOther = 0x01010000 // depends on others, is no sync sample
)

// AppendInit appends an init segment for tracks: ftyp and moov. The first track
// gets the number 1, the second 2. With a single track it is a CMAF header.
// The error wraps [ErrTrack].
func AppendInit(b []byte, tracks ...*stream.Track) ([]byte, error) {
	for _, t := range tracks {
		if err := check(t); err != nil {
			return b, err
		}
	}
	brands := brandsPlain
	if len(tracks) == 1 {
		brands = brandsCMAF
	}
	w := boxes(b)
	w.brands("ftyp", brands)
	w.box("moov", func() {
		w.movieHeader(len(tracks))
		for i, t := range tracks {
			w.track(uint32(i+1), t)
		}
		w.box("mvex", func() {
			for i, t := range tracks {
				w.trackExtends(uint32(i+1), t)
			}
		})
	})
	return w, nil
}

// AppendSegmentType appends the styp box that may stand before the first
// fragment of a segment.
func AppendSegmentType(b []byte) []byte {
	w := boxes(b)
	w.brands("styp", brandsChunk)
	return w
}

// check reports what would make a track's boxes useless.
func check(t *stream.Track) error {
	const longest = 64 // of an AudioSpecificConfig: one-byte lengths do around it
	if _, err := Codec(t); err != nil {
		return err
	}
	switch {
	case t.Codec.Video() && !fits(t.Width, t.Height):
		return fmt.Errorf("%w: %d×%d pixels", ErrTrack, t.Width, t.Height)
	case !t.Codec.Video() && !fits(t.Channels, t.Channels):
		return fmt.Errorf("%w: %d channels", ErrTrack, t.Channels)
	case t.Codec == stream.AAC && len(t.Setup) > longest:
		return fmt.Errorf("%w: AudioSpecificConfig of %d bytes", ErrTrack, len(t.Setup))
	}
	return nil
}

func fits(a, b int) bool { return a > 0 && b > 0 && a <= 0xffff && b <= 0xffff }

// brands appends a box of the major brand, version 0, and the others.
func (b *boxes) brands(kind string, brands []string) {
	b.box(kind, func() {
		b.text(brands[0])
		b.u32(0)
		for _, brand := range brands[1:] {
			b.text(brand)
		}
	})
}

func (b *boxes) matrix() { b.u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000) }

func (b *boxes) movieHeader(tracks int) {
	b.full("mvhd", 0, 0, func() {
		b.u32(0, 0, 1000, 0)       // times, scale, duration
		b.u32(0x10000, 0x01000000) // rate, volume
		b.zero(8)                  // reserved
		b.matrix()                 //
		b.zero(24)                 // pre-defined
		b.u32(uint32(tracks) + 1)  // next track
	})
}

func (b *boxes) track(id uint32, t *stream.Track) {
	b.box("trak", func() {
		b.trackHeader(id, t)
		b.box("mdia", func() {
			b.full("mdhd", 0, 0, func() {
				b.u32(0, 0, Scale(t), 0)
				b.u16(0x55c4, 0) // language "und"
			})
			b.handler(t)
			b.mediaInformation(t)
		})
	})
}

func (b *boxes) trackHeader(id uint32, t *stream.Track) {
	const enabledInMovie = 3
	b.full("tkhd", 0, enabledInMovie, func() {
		b.u32(0, 0, id, 0, 0) // times, number, reserved, duration
		b.zero(8)
		volume := 0x100
		if t.Codec.Video() {
			volume = 0
		}
		b.u16(0, 0, volume, 0) // layer, group
		b.matrix()
		b.u32(uint32(t.Width)<<16, uint32(t.Height)<<16)
	})
}

func (b *boxes) handler(t *stream.Track) {
	kind, name := "soun", "sound"
	if t.Codec.Video() {
		kind, name = "vide", "picture"
	}
	b.full("hdlr", 0, 0, func() {
		b.u32(0)
		b.text(kind)
		b.zero(12)
		b.text(name + "\x00")
	})
}

func (b *boxes) mediaInformation(t *stream.Track) {
	b.box("minf", func() {
		if t.Codec.Video() {
			b.full("vmhd", 0, 1, func() { b.zero(8) })
		} else {
			b.full("smhd", 0, 0, func() { b.zero(4) })
		}
		b.box("dinf", func() {
			b.full("dref", 0, 0, func() {
				b.u32(1)
				b.full("url ", 0, 1, func() {}) // in this file
			})
		})
		b.box("stbl", func() {
			b.full("stsd", 0, 0, func() {
				b.u32(1)
				b.sampleEntry(t)
			})
			for _, table := range []string{"stts", "stsc"} {
				b.full(table, 0, 0, func() { b.u32(0) })
			}
			b.full("stsz", 0, 0, func() { b.u32(0, 0) })
			b.full("stco", 0, 0, func() { b.u32(0) })
		})
	})
}

// sampleEntry follows ISO/IEC 14496-15 for pictures, 14496-14 for AAC and the
// Opus project's "Encapsulation of Opus in ISO Base Media File Format".
func (b *boxes) sampleEntry(t *stream.Track) {
	switch t.Codec {
	case stream.H264:
		b.picture("avc1", "avcC", t)
	case stream.H265:
		b.picture("hvc1", "hvcC", t)
	case stream.AAC:
		b.box("mp4a", func() {
			b.soundEntry(t)
			b.elementaryStream(t)
		})
	default:
		b.box("Opus", func() {
			b.soundEntry(t)
			b.box("dOps", func() {
				b.u8(0, byte(t.Channels))
				// No pre-skip: a reader comes in the middle, where there is nothing to skip.
				b.u16(0)
				b.u32(uint32(t.Rate))
				b.u16(0) // gain
				b.u8(0)  // mapping family: mono or stereo
			})
		})
	}
}

func (b *boxes) picture(kind, setup string, t *stream.Track) {
	const depth24, preDefined = 0x18, 0xffff
	b.box(kind, func() {
		b.zero(6)
		b.u16(1) // data reference
		b.zero(16)
		b.u16(t.Width, t.Height)
		b.u32(0x480000, 0x480000, 0) // 72 dpi
		b.u16(1)                     // frames a sample
		b.zero(32)                   // compressor's name
		b.u16(depth24, preDefined)
		b.box(setup, func() { b.bytes(t.Setup) })
	})
}

func (b *boxes) soundEntry(t *stream.Track) {
	rate := uint32(0) // where 16 bits do not hold it
	if s := Scale(t); s <= 0xffff {
		rate = s << 16
	}
	b.zero(6)
	b.u16(1) // data reference
	b.zero(8)
	b.u16(t.Channels, 16, 0, 0)
	b.u32(rate)
}

// elementaryStream follows ISO/IEC 14496-1, 7.2.6: an ES descriptor around a
// decoder's configuration.
func (b *boxes) elementaryStream(t *stream.Track) {
	const (
		esTag, configTag, setupTag, syncTag = 3, 4, 5, 6
		mpeg4Audio                          = 0x40
		audioStream                         = 0x15
	)
	setup := 2 + len(t.Setup)
	config := 13 + setup
	b.full("esds", 0, 0, func() {
		b.u8(esTag, byte(3+2+config+3), 0, 0, 0)
		b.u8(configTag, byte(config), mpeg4Audio, audioStream, 0, 0, 0)
		b.u32(uint32(t.Bitrate), uint32(t.Bitrate))
		b.u8(setupTag, byte(len(t.Setup)))
		b.bytes(t.Setup)
		b.u8(syncTag, 1, 2)
	})
}

func (b *boxes) trackExtends(id uint32, t *stream.Track) {
	flags := uint32(flagsKey)
	if t.Codec.Video() {
		flags = flagsOther
	}
	b.full("trex", 0, 0, func() { b.u32(id, 1, 0, 0, flags) })
}
