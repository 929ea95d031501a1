package soft

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

func soundDrivers() []hw.AudioEncoderDriver { return []hw.AudioEncoderDriver{AAC(), VOAAC(), Opus()} }

func openSound(tb testing.TB, d hw.AudioEncoderDriver, bitrate int) hw.AudioEncoder {
	tb.Helper()
	e, err := d.Open(bitrate)
	if err != nil {
		tb.Fatalf("%v: install it, make test does", err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

// chirp is sound in which every place is different: a tone that rises, louder
// on the left.
func chirp(seconds float64) []int16 {
	pcm := make([]int16, 2*int(seconds*hw.SampleRate))
	for i := range len(pcm) / 2 {
		t := float64(i) / hw.SampleRate
		v := math.Sin(2 * math.Pi * (300*t + 400*t*t))
		pcm[2*i], pcm[2*i+1] = int16(12000*v), int16(6000*v)
	}
	return pcm
}

// codeSound feeds pcm in uneven pieces.
func codeSound(tb testing.TB, e hw.AudioEncoder, pcm []int16, stamp time.Duration) []*stream.Unit {
	tb.Helper()
	var units []*stream.Unit
	for n := 1; len(pcm) > 0; n = n*7%1999 + 1 {
		k := min(2*n, len(pcm))
		if err := e.Encode(pcm[:k], stamp, func(u *stream.Unit) { units = append(units, u) }); err != nil {
			tb.Fatal(err)
		}
		pcm, stamp = pcm[k:], 0 // later stamps do not count
	}
	return units
}

// playSound decodes units by ffmpeg to S16 stereo, nothing skipped.
func playSound(tb testing.TB, units []*stream.Unit) []int16 {
	tb.Helper()
	var file []byte
	args := []string{"-f", "aac"}
	if units[0].Track.Codec == stream.Opus {
		file, args = oggOpus(units), []string{"-f", "ogg"}
	} else {
		for _, u := range units {
			file = append(append(file, adts(len(u.Data))...), u.Data...)
		}
	}
	raw := peer(tb, file, "ffmpeg", append(args, "-flags2", "+skip_manual", "-i", "-", "-f", "s16le", "-ac", "2", "-ar", "48000", "-")...)
	pcm := make([]int16, len(raw)/2)
	for i := range pcm {
		pcm[i] = int16(uint16(raw[2*i]) | uint16(raw[2*i+1])<<8)
	}
	return pcm
}

// adts returns the header of an AAC-LC frame of n bytes, 48 kHz stereo (ISO/IEC
// 14496-3, 1.A.2.2).
func adts(n int) []byte {
	n += 7
	return []byte{0xff, 0xf1, 1<<6 | 3<<2, 2<<6 | byte(n>>11), byte(n >> 3), byte(n<<5) | 0x1f, 0xfc}
}

// oggOpus wraps packets for ffmpeg, with a pre-skip of zero so that it plays
// all of them (RFC 3533, RFC 7845).
func oggOpus(units []*stream.Unit) []byte {
	var file []byte
	page := func(flags byte, granule, number int, packet []byte) {
		lacing := append(bytes.Repeat([]byte{255}, len(packet)/255), byte(len(packet)%255))
		p := append([]byte("OggS\x00"), flags)
		for i := range 8 {
			p = append(p, byte(granule>>(8*i)))
		}
		p = append(p, 1, 0, 0, 0, byte(number), byte(number>>8), 0, 0, 0, 0, 0, 0, byte(len(lacing)))
		p = append(append(p, lacing...), packet...)
		sum := oggCRC(p)
		p[22], p[23], p[24], p[25] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		file = append(file, p...)
	}
	page(2, 0, 0, []byte("OpusHead\x01\x02\x00\x00\x80\xbb\x00\x00\x00\x00\x00"))
	page(0, 0, 1, []byte("OpusTags\x00\x00\x00\x00\x00\x00\x00\x00"))
	for i, u := range units {
		page(0, (i+1)*opusFrame, i+2, u.Data)
	}
	return file
}

func oggCRC(p []byte) uint32 {
	var sum uint32
	for _, b := range p {
		sum ^= uint32(b) << 24
		for range 8 {
			top := sum >> 31
			sum = sum<<1 ^ top*0x04c11db7
		}
	}
	return sum
}

// lag returns by how many samples got lies behind want, and the signal to
// noise ratio in dB after both are laid over one another.
func lag(got, want []int16) (shift int, snr float64) {
	const from, n = 24000, 9600
	best := math.Inf(-1)
	for s := range 4096 {
		var sum float64
		for i := from; i < from+n; i++ {
			sum += float64(got[2*(i+s)]) * float64(want[2*i])
		}
		if sum > best {
			best, shift = sum, s
		}
	}
	var signal, noise float64
	for i := from; i < from+n; i++ {
		d := float64(got[2*(i+shift)]) - float64(want[2*i])
		signal += float64(want[2*i]) * float64(want[2*i])
		noise += d * d
	}
	return shift, 10 * math.Log10(signal/noise)
}

func TestSoundIsHeardAtItsStamp(t *testing.T) {
	const start = 5 * time.Second
	for _, d := range soundDrivers() {
		t.Run(d.Name, func(t *testing.T) {
			e := openSound(t, d, 128_000)
			pcm := chirp(2)
			units := codeSound(t, e, pcm, start)
			shift, snr := lag(playSound(t, units), pcm)
			t.Logf("%d units, the decoder lags by %d samples, first unit at %s, %.1f dB", len(units), shift, units[0].PTS-start, snr)
			if snr < 20 {
				t.Errorf("signal to noise %.1f dB", snr)
			}
			heard := units[0].PTS + samples(int64(shift))
			if off := heard - start; off < -25*time.Microsecond || off > 25*time.Microsecond {
				t.Errorf("the first sample, stamped %s, is heard at %s", start, heard)
			}
		})
	}
}

func TestSoundUnitsFollowWithoutAGap(t *testing.T) {
	for _, d := range soundDrivers() {
		t.Run(d.Name, func(t *testing.T) {
			e := openSound(t, d, 0)
			units := codeSound(t, e, chirp(1), time.Second)
			if n := len(units); n < 44 || n > 50 {
				t.Errorf("%d units for one second", n)
			}
			for i, u := range units {
				if u.Track != e.Track() || u.Key || u.DTS != u.PTS {
					t.Errorf("unit %d: %+v", i, u)
				}
				if i == 0 {
					continue
				}
				if gap := u.PTS - units[i-1].PTS - units[i-1].Duration; gap < -1 || gap > 1 {
					t.Errorf("unit %d lies %s behind the end of the one before", i, gap)
				}
			}
		})
	}
}

func TestResetMakesTheStampCountAgain(t *testing.T) {
	for _, d := range soundDrivers() {
		t.Run(d.Name, func(t *testing.T) {
			e := openSound(t, d, 0)
			pcm := chirp(0.5)
			first := codeSound(t, e, pcm, time.Second)
			e.Reset()
			second := codeSound(t, e, pcm, time.Hour)
			if want := first[0].PTS - time.Second + time.Hour; second[0].PTS != want {
				t.Errorf("after reset the first unit is at %s, want %s", second[0].PTS, want)
			}
			if !bytes.Equal(first[3].Data, second[3].Data) {
				t.Error("the same sound is coded in another way after reset")
			}
		})
	}
}

func TestSoundTrackFitsTheCodec(t *testing.T) {
	for _, d := range soundDrivers() {
		t.Run(d.Name, func(t *testing.T) {
			track := openSound(t, d, 64_000).Track()
			setup := "1190" // AAC-LC, 48 kHz, 2 channels
			if d.Codec == stream.Opus {
				setup = ""
			}
			if fmt.Sprintf("%.4x", track.Setup) != setup || track.Codec != d.Codec || track.Rate != 48000 || track.Channels != 2 || track.Bitrate != 64_000 {
				t.Errorf("track %+v", track)
			}
		})
	}
}

func TestSoundRateIsWhatWasAsked(t *testing.T) {
	for _, d := range soundDrivers() {
		for _, want := range []int{64_000, 128_000} {
			t.Run(fmt.Sprintf("%s at %d", d.Name, want), func(t *testing.T) {
				units := codeSound(t, openSound(t, d, want), chirp(4), 0)
				n := 0
				for _, u := range units {
					n += len(u.Data)
				}
				got := int(float64(n*8) / (time.Duration(len(units)) * units[0].Duration).Seconds())
				t.Logf("%d bit/s", got)
				if got > want*125/100 || got < want/4 {
					t.Errorf("%d bit/s", got)
				}
			})
		}
	}
}

func TestBadSoundCallsAreRefused(t *testing.T) {
	for _, d := range soundDrivers() {
		t.Run(d.Name, func(t *testing.T) {
			for _, bps := range []int{-1, 1000, 10_000_000} {
				if _, err := d.Open(bps); !errors.Is(err, hw.ErrUnsupported) {
					t.Errorf("%d bit/s: %v", bps, err)
				}
			}
			e := openSound(t, d, 0)
			nothing := func(*stream.Unit) { t.Error("a unit came out") }
			if err := e.Encode(make([]int16, 3), 0, nothing); !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("half a sample frame: %v", err)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			if err := e.Encode(make([]int16, 4096), 0, nothing); !errors.Is(err, os.ErrClosed) {
				t.Errorf("after close: %v", err)
			}
		})
	}
}

func TestMissingSoundLibraryNamesThePackage(t *testing.T) {
	none := []string{"libnothing-here.so.0"}
	for pkg, d := range map[string]hw.AudioEncoderDriver{"libopus0": opusDriver(none), "libvo-aacenc0": voAACDriver(none)} {
		if _, err := d.Open(0); !errors.Is(err, hw.ErrMissing) || !strings.Contains(err.Error(), "apt-get install "+pkg) {
			t.Errorf("got %v", err)
		}
	}
	wrong := []string{"libm.so.6"}
	for _, d := range []hw.AudioEncoderDriver{opusDriver(wrong), voAACDriver(wrong)} {
		if _, err := d.Open(0); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("another library: got %v", err)
		}
	}
}

func TestTimeOfManySamplesDoesNotDriftOrOverflow(t *testing.T) {
	for n, want := range map[int64]time.Duration{
		0:                           0,
		-1024:                       -21333333,
		48000:                       time.Second,
		48000 * 3600 * 24 * 365 * 9: 9 * 365 * 24 * time.Hour,
	} {
		if got := samples(n); got != want {
			t.Errorf("%d samples last %s, want %s", n, got, want)
		}
	}
}

func BenchmarkSoundOfOneSecond(b *testing.B) {
	for _, d := range soundDrivers() {
		b.Run(d.Name, func(b *testing.B) {
			e := openSound(b, d, 128_000)
			pcm := chirp(1)
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Encode(pcm, 0, func(*stream.Unit) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
