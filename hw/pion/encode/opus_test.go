package encode

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/mediadevices/pkg/wave"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// A fakeVoice makes a unit of each 960 sample frames: the first sample of each
// channel.
type fakeVoice struct {
	pcm    []int16
	closes int
}

func (*fakeVoice) Track() *stream.Track { return nil }
func (*fakeVoice) Reset()               {}

func (v *fakeVoice) Encode(pcm []int16, _ time.Duration, emit func(*stream.Unit)) error {
	v.pcm = append(v.pcm, pcm...)
	for ; len(v.pcm) >= 2*960; v.pcm = v.pcm[2*960:] {
		emit(&stream.Unit{Data: []byte{byte(v.pcm[0]), byte(v.pcm[1])}})
	}
	return nil
}

func (v *fakeVoice) Close() error {
	v.closes++
	return nil
}

func (v *fakeVoice) driver() hw.AudioEncoderDriver {
	return hw.AudioEncoderDriver{Name: "fake", Codec: stream.Opus, Open: func(int) (hw.AudioEncoder, error) { return v, nil }}
}

// sound returns a reader of the chunks, then hw.ErrGone.
func sound(chunks ...wave.Audio) audio.Reader {
	return audio.ReaderFunc(func() (wave.Audio, func(), error) {
		if len(chunks) == 0 {
			return nil, nil, hw.ErrGone
		}
		c := chunks[0]
		chunks = chunks[1:]
		return c, func() {}, nil
	})
}

func chunkInfo(n, channels, rate int) wave.ChunkInfo {
	return wave.ChunkInfo{Len: n, Channels: channels, SamplingRate: rate}
}

func TestSoundOfAnyChunksBecomesPackets(t *testing.T) {
	stereo := wave.NewInt16Interleaved(chunkInfo(480, 2, 48000))
	for i := range stereo.Data {
		stereo.Data[i] = int16(5 + 2*(i%2))
	}
	mono := wave.NewInt16Interleaved(chunkInfo(960, 1, 48000))
	for i := range mono.Data {
		mono.Data[i] = 9
	}
	planar := wave.NewInt16NonInterleaved(chunkInfo(2*960, 2, 48000))
	for i := range planar.Data[0] {
		planar.Data[0][i], planar.Data[1][i] = 1, 2
	}
	loud := wave.NewFloat32Interleaved(chunkInfo(960, 2, 48000))
	for i := range loud.Data {
		loud.Data[i] = float32(2*(i%2)) - 1
	}
	tests := []struct {
		name   string
		chunks []wave.Audio
		want   [][2]int8
	}{
		{"the box's own", []wave.Audio{stereo, stereo, stereo, stereo}, [][2]int8{{5, 7}, {5, 7}}},
		{"one channel", []wave.Audio{mono}, [][2]int8{{9, 9}}},
		{"in planes, two packets a chunk", []wave.Audio{planar}, [][2]int8{{1, 2}, {1, 2}}},
		{"floats beyond the range", []wave.Audio{loud}, [][2]int8{{0, -1}}}, // the low bytes of -32768 and 32767
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake := &fakeVoice{}
			c, err := Opus{Driver: fake.driver()}.BuildAudioEncoder(sound(tt.chunks...), prop.Media{})
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range tt.want {
				p, release, err := c.Read()
				if err != nil {
					t.Fatal(err)
				}
				release()
				if int8(p[0]) != want[0] || int8(p[1]) != want[1] {
					t.Errorf("packet %d is %v, want %v", i, p, want)
				}
			}
			if _, _, err := c.Read(); !errors.Is(err, hw.ErrGone) {
				t.Errorf("at the end: %v", err)
			}
			for range 2 {
				if err := c.Close(); err != nil || fake.closes != 1 {
					t.Errorf("%v, closed %d times", err, fake.closes)
				}
			}
			if c.Controller() != nil {
				t.Error("there is a controller")
			}
		})
	}
}

func TestSoundThatCannotBeCoded(t *testing.T) {
	fake := &fakeVoice{}
	for _, info := range []wave.ChunkInfo{chunkInfo(441, 2, 44100), chunkInfo(480, 6, 48000)} {
		c, err := Opus{Driver: fake.driver()}.BuildAudioEncoder(sound(wave.NewInt16Interleaved(info)), prop.Media{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Read(); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%+v: %v", info, err)
		}
	}
	d := fake.driver()
	d.Codec = stream.AAC
	if _, err := (Opus{Driver: d}).BuildAudioEncoder(sound(), prop.Media{}); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a driver of AAC: %v", err)
	}
	closed, err := Opus{Driver: fake.driver()}.BuildAudioEncoder(sound(wave.NewInt16Interleaved(chunkInfo(480, 2, 48000))), prop.Media{})
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := closed.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("after Close: %v", err)
	}
}

func TestPacketsAreOfTwentyMilliseconds(t *testing.T) {
	if c := (Opus{}).RTPCodec(); c.Latency != 20*time.Millisecond || c.ClockRate != 48000 || c.Channels != 2 {
		t.Errorf("%+v", c)
	}
}
