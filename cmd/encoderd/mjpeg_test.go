package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"image/jpeg"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/hw/soft"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/streamtest/peer"
)

// A codingCamera gives the pictures of another as H.264, as many USB cameras
// do: two key pictures a second.
type codingCamera struct{ hw.Camera }

func (c codingCamera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	s, err := c.Camera.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	m := s.Mode()
	enc, err := soft.X264().Open(hw.EncoderConfig{
		Codec: stream.H264, Width: m.Width, Height: m.Height, FPS: m.FPS, GOP: int(m.FPS.Float() / 2), Bitrate: 500_000, Preset: "ultrafast", Threads: 1,
	})
	return &codingStream{s, enc}, err
}

type codingStream struct {
	hw.CameraStream
	encoder hw.Encoder
}

func (s *codingStream) Mode() hw.Mode {
	m := s.CameraStream.Mode()
	m.Pixel = hw.H264
	return m
}

func (s *codingStream) Read(ctx context.Context) (*hw.Frame, error) {
	f, err := s.CameraStream.Read(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	if err := s.encoder.Submit(f); err != nil {
		return nil, err
	}
	u, err := s.encoder.Next(ctx)
	if err != nil {
		return nil, err
	}
	out := hw.NewFrame(nil)
	out.Mode, out.Stamp, out.Seq = s.Mode(), f.Stamp, f.Seq
	out.Planes = []hw.Plane{{Data: startCodes(u), FD: -1}}
	return out.Lend(), nil
}

func (s *codingStream) Close() error {
	_ = s.encoder.Close()
	return s.CameraStream.Close()
}

// startCodes returns a unit as devices write it, each key with its parameter
// sets.
func startCodes(u *stream.Unit) (data []byte) {
	add := func(nal []byte) { data = append(append(data, 0, 0, 0, 1), nal...) }
	if u.Key {
		sps, pps, _ := h264.ParameterSets(u.Track.Setup)
		add(sps)
		add(pps)
	}
	for nal := range h264.NALs(u.Data) {
		if k := h264.Type(nal); k != h264.TypeSPS && k != h264.TypePPS {
			add(nal)
		}
	}
	return data
}

// codingBoard is the software board whose camera codes by itself.
func codingBoard(t *testing.T) hw.Board {
	t.Helper()
	b := softwareBoard(t)
	cameras := b.Cameras
	b.Cameras = func() ([]hw.Camera, error) {
		list, err := cameras()
		for i, c := range list {
			list[i] = codingCamera{c}
		}
		return list, err
	}
	return b
}

func TestStillsAndMovingStillsOfEveryCamera(t *testing.T) {
	for name, c := range map[string]struct {
		board   hw.Board
		encoder string
		age     time.Duration // of a picture at most, on a machine that is not busy
		least   int           // pictures that players wait for
	}{
		"raw picture":            {softwareBoard(t), "", time.Second, 6},
		"camera codes by itself": {codingBoard(t), "encoder = \"camera\"\n", time.Second, 4},
	} {
		t.Run(name, func(t *testing.T) {
			v := open(t, settings{rendition: c.encoder})
			v.runInside(c.board)
			v.until("the camera's picture", onDuty)
			v.frames(30)
			v.still(t, c.age)
			v.film(t, c.least)
		})
	}
}

// busy is how much later than on a quiet machine things may be.
const busy = 5 * time.Second

// still wants a snapshot to be of now, as Go and ffmpeg read it.
func (v venue) still(t *testing.T, age time.Duration) {
	t.Helper()
	const path = "/live/main.jpg"
	asked := stream.Monotonic()
	code, body := v.overTCP(http.MethodGet, path)
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	img, err := jpeg.Decode(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for what, luma := range map[string][]byte{"Go": gray(img), "ffmpeg": luma(t, "-i", "http://"+v.web+path)} {
		codes := codesOf(t, luma)
		if len(codes) != 1 {
			t.Fatalf("%s reads %d pictures", what, len(codes))
		}
		now := stream.Monotonic()
		taken := codes[0].Clock(now)
		t.Logf("%s: picture %d, taken %v after it was asked for", what, codes[0].Counter, (taken - asked).Round(time.Millisecond))
		if taken < asked-age-busy || taken > now {
			t.Errorf("%s reads a picture that is %v old", what, now-taken)
		}
	}
}

// film wants moving pictures in order and none twice, by ffmpeg, GStreamer and
// Chromium at the same time.
func (v venue) film(t *testing.T, least int) {
	t.Helper()
	url := "http://" + v.web + "/live/main.mjpeg"
	dir := t.TempDir()
	files := map[string]string{"ffmpeg": filepath.Join(dir, "ffmpeg"), "GStreamer": filepath.Join(dir, "gst")}
	ffmpeg := peer.Start(t, "ffmpeg", "-v", "error", "-f", "mpjpeg", "-i", url, "-frames:v", strconv.Itoa(least), "-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", files["ffmpeg"])
	command := append(lasting("60"), "gst-launch-1.0", "-q", "souphttpsrc", "location="+url, "!", "multipartdemux", "!", "identity", "eos-after="+strconv.Itoa(least+1), "!", "jpegdec", "!",
		"videoconvert", "!", "video/x-raw,format=GRAY8", "!", "filesink", "location="+files["GStreamer"])
	gst := peer.Start(t, command[0], command[1:]...)
	p := newPage(t)
	p.Show(p.url)
	var seen []picture.Code
	for _, text := range evaluate[[]string](t, p, fmt.Sprintf("(%s)(%q, %d)", sampleImage, url, least)) {
		luma, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, codesOf(t, luma)...)
	}
	rise(t, "Chromium", seen, least)
	for name, pl := range map[string]*peer.Process{"ffmpeg": ffmpeg, "GStreamer": gst} {
		_ = pl.Wait(t) // what it left in the file counts
		luma, err := os.ReadFile(files[name])
		if err != nil {
			t.Fatalf("%v\n%s", err, pl.Log())
		}
		codes := codesOf(t, luma)
		if len(codes) < least {
			t.Logf("%s leaves %d bytes, and says:\n%s", name, len(luma), pl.Log())
		}
		rise(t, name, codes, least)
	}
	v.until("nobody to look any more", watched(0))
}

// sampleImage looks at an <img> of moving pictures until it has changed some
// times, or half a minute is over, and returns the luma that it saw.
var sampleImage = strings.TrimSpace(`
async (url, changes) => {
  const img = new Image();
  img.crossOrigin = 'anonymous';
  img.src = url;
  await new Promise((done, fail) => { img.onload = done; img.onerror = () => fail('no picture'); });
  const canvas = document.createElement('canvas');
  canvas.width = img.naturalWidth; canvas.height = img.naturalHeight;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  const all = [];
  for (const end = Date.now() + 30000; all.length <= changes && Date.now() < end;) {
    context.drawImage(img, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    let text = '';
    for (let n = 0; n < data.length; n += 4) text += String.fromCharCode(data[n + 1]);
    text = btoa(text);
    if (all.at(-1) !== text) all.push(text);
    await new Promise((done) => setTimeout(done, 50));
  }
  img.src = '';
  return all;
}`)

// luma has ffmpeg decode an input, picture by picture.
func luma(t *testing.T, input ...string) []byte {
	t.Helper()
	args := append([]string{"-v", "error"}, input...)
	return peer.Output(t, "ffmpeg", append(args, "-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "-")...)
}

// codesOf reads what is burnt into pictures that follow each other. The slate
// has no code.
func codesOf(t *testing.T, luma []byte) (codes []picture.Code) {
	t.Helper()
	const w, h = 320, 180
	for ; len(luma) >= w*h; luma = luma[w*h:] {
		if c, ok := picture.Read(luma[:w*h], w, w, h); ok {
			codes = append(codes, c)
		}
	}
	return codes
}

// rise wants some pictures, in order and none twice.
func rise(t *testing.T, who string, codes []picture.Code, least int) {
	t.Helper()
	t.Logf("%s shows %d pictures", who, len(codes))
	if len(codes) < least {
		t.Errorf("%s shows %d pictures, want %d", who, len(codes), least)
	}
	for i := 1; i < len(codes); i++ {
		if codes[i].Counter <= codes[i-1].Counter {
			t.Errorf("%s shows picture %d after %d", who, codes[i].Counter, codes[i-1].Counter)
		}
	}
}
