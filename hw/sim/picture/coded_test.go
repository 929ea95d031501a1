package picture_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
)

func run(t *testing.T, in []byte, args string) []byte {
	t.Helper()
	program, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatal("ffmpeg is missing: install it, make test does")
	}
	cmd := exec.CommandContext(t.Context(), program, strings.Fields("-hide_banner -loglevel error "+args)...)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ffmpeg %s: %v\n%s", args, err, errs.String())
	}
	return out
}

func TestCodeSurvivesCodingAndScaling(t *testing.T) {
	tests := []struct {
		name       string
		in         hw.Mode
		bitrate    string
		outW, outH int
		frames     int
	}{
		{"320x180 at 100 kbit/s", mode(hw.NV12, 320, 180), "100k", 320, 180, 120},
		{"1080p scaled to 360p", mode(hw.I420, 1920, 1080), "800k", 640, 360, 30},
		{"1080p scaled to 320x180 at 100 kbit/s", mode(hw.NV12, 1920, 1080), "100k", 320, 180, 30},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw := paint(t, tt.in, tt.frames)
			pixel := "nv12"
			if tt.in.Pixel == hw.I420 {
				pixel = "yuv420p"
			}
			coded := run(t, raw, fmt.Sprintf(
				"-f rawvideo -pix_fmt %s -s %dx%d -r 30 -i - -vf scale=%d:%d:flags=fast_bilinear,format=yuv420p"+
					" -c:v libx264 -threads 1 -preset veryfast -tune zerolatency -b:v %s -maxrate %[6]s -bufsize %[6]s -g 60 -f h264 -",
				pixel, tt.in.Width, tt.in.Height, tt.outW, tt.outH, tt.bitrate))
			gray := run(t, coded, "-f h264 -r 30 -i - -vf extractplanes=y -f rawvideo -pix_fmt gray -")
			size := tt.outW * tt.outH
			if len(gray) != tt.frames*size {
				t.Fatalf("%d bytes decoded, want %d frames", len(gray), tt.frames)
			}
			for i := range tt.frames {
				stamp := time.Duration(i) * time.Second / 30
				want := picture.Code{Counter: uint32(i), ClockMS: uint32(stamp.Milliseconds()), Flash: picture.Flashing(stamp)}
				got, ok := picture.Read(gray[i*size:(i+1)*size], tt.outW, tt.outW, tt.outH)
				if !ok || got != want {
					t.Errorf("frame %d: read %+v, %v; want %+v", i, got, ok, want)
				}
			}
			t.Logf("%d frames, %d bytes coded (%d kbit/s)", tt.frames, len(coded), len(coded)*8*30/tt.frames/1000)
		})
	}
}

func paint(t *testing.T, m hw.Mode, frames int) []byte {
	t.Helper()
	p := newPattern(t, m)
	var raw []byte
	for i := range frames {
		f := p.Frame(uint32(i), time.Duration(i)*time.Second/30, time.Hour)
		for _, plane := range f.Planes {
			raw = append(raw, plane.Data...)
		}
		f.Release()
	}
	return raw
}

func TestBeepsSurviveAAC(t *testing.T) {
	pcm := sound(700*time.Millisecond, 4)
	raw := make([]byte, 0, 2*len(pcm))
	for _, v := range pcm {
		raw = append(raw, byte(v), byte(uint16(v)>>8))
	}
	const priming = 1024 // silent samples that this encoder sends ahead
	coded := run(t, raw, "-f s16le -ar 48000 -ac 2 -i - -c:a aac -b:a 64k -f adts -")
	decoded := run(t, coded, "-f aac -i - -f s16le -ar 48000 -ac 2 -")
	back := make([]int16, len(decoded)/2)
	for i := range back {
		back[i] = int16(uint16(decoded[2*i]) | uint16(decoded[2*i+1])<<8)
	}
	got := picture.FindBeeps(back)
	if len(got) != 4 {
		t.Fatalf("onsets %v, want four", got)
	}
	for i, n := range got {
		if off := n - (priming + 14400 + i*48000); off < -47 || off > 47 {
			t.Errorf("beep %d is %d samples off, allowed is less than 1 ms", i, off)
		}
	}
	t.Logf("onsets %v", got)
}
