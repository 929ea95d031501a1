package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
)

// seconds is how long the material is: the time after which the moving part of
// the test picture is where it was.
const seconds = 4

// A material is the test picture and sound as files of raw samples, for
// programs that cannot paint it. Frame n is what the software board's camera
// gives at n/fps seconds.
type material struct {
	pixel          string // ffmpeg's name
	picture, sound string // files
}

var pixels = []struct {
	name   string
	format hw.PixelFormat
}{
	{"yuv420p", hw.I420},
	{"nv12", hw.NV12},
}

// makeMaterial renders the material in the format that costs ffmpeg less.
func (b *bench) makeMaterial(ctx context.Context) (material, error) {
	var best material
	var least time.Duration
	for _, p := range pixels {
		m := material{pixel: p.name, picture: filepath.Join(b.dir, p.name), sound: filepath.Join(b.dir, "sound.s16")}
		if err := m.render(p.format); err != nil {
			return m, fmt.Errorf("render the test picture: %w", err)
		}
		args := append(m.pictureArgs(), "-t", strconv.Itoa(2*seconds))
		_, state, err := output(ctx, "ffmpeg", append(append([]string{"-v", "error", "-nostdin"}, args...), append(videoArgs(kbps), "-f", "null", "-")...)...)
		if err != nil {
			return m, err
		}
		took := state.UserTime() + state.SystemTime()
		if best.pixel == "" || took < least {
			best, least = m, took
		}
	}
	b.table.note("ffmpeg reads the test picture that the software board paints as raw %s, of two formats the cheaper, at its rate (-re), from files in the page cache: no filter, no conversion", best.pixel)
	return best, nil
}

// pictureArgs makes ffmpeg read the picture again and again.
func (m material) pictureArgs() []string {
	return []string{
		"-stream_loop", "-1", "-f", "rawvideo", "-pix_fmt", m.pixel, "-s", fmt.Sprintf("%dx%d", width, height),
		"-framerate", strconv.Itoa(fps), "-i", m.picture,
	}
}

func (m material) soundArgs() []string {
	return []string{"-stream_loop", "-1", "-f", "s16le", "-ar", strconv.Itoa(soundRate), "-ac", "2", "-i", m.sound}
}

func (m material) render(format hw.PixelFormat) (err error) {
	pattern, err := newPattern(format)
	if err != nil {
		return err
	}
	f, err := os.Create(m.picture)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	for n := range seconds * fps {
		frame := paint(pattern, n)
		for _, p := range frame.Planes {
			_, _ = w.Write(p.Data) // Flush tells
		}
		frame.Release()
	}
	if err := w.Flush(); err != nil {
		return err
	}
	pcm := make([]int16, seconds*soundRate*hw.Channels)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range pcm {
		pcm[i] = int16(random.IntN(3)) - 1 // the software board's microphone hisses too
	}
	picture.Sound(pcm, 0)
	raw, err := binary.Append(nil, binary.LittleEndian, pcm)
	if err != nil {
		return err
	}
	return os.WriteFile(m.sound, raw, 0o600)
}

func newPattern(format hw.PixelFormat) (*picture.Pattern, error) {
	return picture.NewPattern(hw.Mode{Pixel: format, Width: width, Height: height, FPS: hw.Rate{Num: fps, Den: 1}}, "encoderd")
}

// paint returns frame n of the grid of instants; the caller releases it.
func paint(p *picture.Pattern, n int) *hw.Frame {
	at := time.Duration(n/fps)*time.Second + time.Duration(n%fps)*time.Second/fps
	return p.Frame(uint32(n), at, at)
}
