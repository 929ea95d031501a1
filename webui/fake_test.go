package webui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/daemon/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBox is a box in memory.
type fakeBox struct {
	cell status.Cell[status.Box]
	mu   sync.Mutex
	sick error
	done []string // "action map[args] by"
}

func (f *fakeBox) Status() (status.Box, uint64) { return f.cell.Get() }

func (f *fakeBox) Wait(ctx context.Context, seen uint64) (status.Box, uint64, error) {
	return f.cell.Wait(ctx, seen)
}

func (f *fakeBox) Link(rendition string, length time.Duration) (string, time.Time, error) {
	switch {
	case rendition != "main":
		return "", time.Time{}, fmt.Errorf("%q: %w", rendition, ErrUnknown)
	case length <= 0:
		return "", time.Time{}, fmt.Errorf("%w: a link lasts longer", ErrArguments)
	}
	return "token", time.Unix(0, 0).Add(length).UTC(), nil
}

func (f *fakeBox) WriteUsage(w io.Writer) error {
	_, err := io.WriteString(w, "date,rendition\n")
	return err
}

func (f *fakeBox) Actions() []ActionInfo {
	return []ActionInfo{{"stream.start", "Go live", []string{}}, {"output.start", "Start one destination", []string{"name"}}}
}

func (f *fakeBox) Do(_ context.Context, action string, args map[string]string, by string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, fmt.Sprint(action, " ", maps.Clone(args), " ", by))
	switch action {
	case "stream.start":
		return nil
	case "output.start":
		return fmt.Errorf("%w: name is missing", ErrArguments)
	case "box.restart":
		return errors.New("systemd does not answer")
	default:
		return fmt.Errorf("%s: %w", action, ErrUnknown)
	}
}

func (f *fakeBox) Healthy() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sick
}

func options(f *fakeBox) Options {
	return Options{Box: f, Log: slog.New(slog.DiscardHandler), Hosts: []string{"encoder", "Box.Example.org"}, Live: http.HandlerFunc(live)}
}

// live shows a card, and takes offers.
func live(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusCreated)
	case r.URL.Path == "/live/main.jpg":
		w.Header().Set("Content-Type", "image/jpeg")
		_, _ = w.Write(testCard)
	default:
		http.NotFound(w, r)
	}
}

// testCard is a JPEG with colours to look at.
var testCard = card()

func card() []byte {
	img := image.NewRGBA(image.Rect(0, 0, 640, 360))
	for y := range 360 {
		for x := range 640 {
			bar := uint8(x * 8 / 640)
			c := color.RGBA{255 * (bar >> 2 & 1), 255 * (bar >> 1 & 1), 255 * (bar & 1), 255}
			if y > 270 {
				c = color.RGBA{uint8(x * 255 / 640), uint8(x * 255 / 640), uint8(x * 255 / 640), 255}
			}
			img.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	_ = jpeg.Encode(&b, img, nil) // a buffer does not fail
	return b.Bytes()
}

// onAir is a box in the middle of a show, with one destination down.
func onAir() *fakeBox {
	now := time.Now()
	retry, live, heard := now.Add(199*time.Second), now.Add(-83*time.Minute), now.Add(-2*time.Second)
	f := &fakeBox{}
	f.cell.Update(func(b *status.Box) {
		*b = status.Box{
			State: status.Live, Name: "Main hall", Board: "sim", Version: "0.1.0", Since: now.Add(-26 * time.Hour),
			Input: status.Input{
				Source: "auto", ID: "v4l2:/dev/v4l/by-path/usb-1", Name: "HDMI capture", Signal: true,
				Width: 1920, Height: 1080, FPS: 29.97, Format: "NV12", Frames: 123456, Missed: 3, Damaged: 1, Slate: 7, DecodedBytes: 9,
			},
			Sound: status.Sound{
				Source: "auto", Name: "USB Audio", Signal: true, PeakDBFS: -12.4, LoudnessLUFS: -23.4, MomentaryLUFS: -21.9,
				Channels: [2]status.SoundChannel{{PeakDBFS: -12.4, RMSDBFS: -26.1}, {PeakDBFS: -13, RMSDBFS: -27.5}},
				DriftPPM: 21, Xruns: 2, Gaps: 2, Steps: 1,
			},
			Renditions: []status.Rendition{
				{Name: "main", Codec: "h264", Encoder: "libx264", Width: 1920, Height: 1080, FPS: 29.97, Bitrate: 5_980_000, Target: 6_000_000, Frames: 149_100, Dropped: 2, CopiedBytes: 77, State: status.Live, Buffers: &status.Buffers{Way: "export", Reason: "v4l2:x reads the camera's memory"}},
				{Name: "sub", Codec: "h264", Encoder: "libx264", Width: 640, Height: 360, FPS: 29.97, Bitrate: 790_000, Target: 800_000, Frames: 149_100, State: status.Live},
			},
			Outputs: []status.Output{
				{Name: "youtube", URL: "rtmps://a.rtmps.youtube.com:443/live2", Rendition: "main", State: status.Live, Required: true, LagMS: 41.7, Bitrate: 6_110_000, Sent: 3_700_000_000, Since: &live},
				{Name: "archive", URL: "rtmp://10.0.4.12/live", Rendition: "sub", State: status.Backoff, Error: "connection refused by 10.0.4.12:1935", Attempt: 5, RetryAt: &retry, Lost: 12},
				{Name: "facebook", URL: "rtmps://live-api-s.facebook.com:443/rtmp", Rendition: "main", State: status.Off},
			},
			Readers: []status.Reader{
				{Protocol: "rtsp/tcp", Rendition: "main", Peer: "10.0.4.31:50122", Since: now.Add(-time.Hour), Bytes: 2_700_000_000},
				{Protocol: "rtsp/udp", Rendition: "sub", Peer: "[fd00::1234:5678:9abc:def0]:50124", Since: now.Add(-time.Minute), Bytes: 6_000_000, Lost: 4},
			},
			AVOffsetMS: 3.2,
			Keys: map[string]status.Key{
				"STREAM": {Edge: &live, Gesture: "press", Action: "stream.start", At: &live},
				"MUTE":   {Error: "bouncing: it moves by itself"},
				"RESET":  {Down: true, Edge: &heard, Holding: "factory.reset", Armed: "network.reset"},
				"PANIC":  {Armed: "factory.reset"},
			},
			Lamps: map[string]status.Lamp{
				"STREAM": {Pattern: "amber occulting", Reason: "on air to 1 of 2, but archive is unreachable, attempt 5"},
				"MUTE":   {Pattern: "off", Reason: "not muted"},
				"RESET":  {Pattern: "white", Reason: "let go of RESET, then press it once for network.reset"},
				"TALLY":  {Pattern: "red", Reason: "atem says program"},
			},
			Tally: status.Tally{State: status.Program, Reason: "atem says program", Sources: []status.TallySource{
				{Name: "atem", Protocol: "tsl3.1", Address: "udp://:8900", Input: "3", State: status.Program, Sender: "10.0.4.9:5728", Heard: &heard, AgeMS: 2000, Changed: &live},
				{Name: "obs", Protocol: "obs", Address: "ws://10.0.4.5:4455", Input: "Camera 1", State: status.Unknown, Bad: 2, Error: "connection refused"},
			}},
			Faults: []status.Fault{
				status.NewFault(status.OutputRetrying, "archive: connection refused by 10.0.4.12:1935", now.Add(-3*time.Minute)),
			},
			TemperatureC: 51.5,
			Storage:      status.Storage{TotalBytes: 32e9, FreeBytes: 21e9},
		}
	})
	return f
}

// silent is a box without picture, sound and anything else.
func silent() *fakeBox {
	f := &fakeBox{}
	f.cell.Update(func(b *status.Box) {
		*b = status.Box{State: status.Off, Sound: status.Sound{
			PeakDBFS: math.Inf(-1), LoudnessLUFS: math.Inf(-1), MomentaryLUFS: math.Inf(-1),
			Channels: [2]status.SoundChannel{{PeakDBFS: math.Inf(-1), RMSDBFS: math.Inf(-1)}, {PeakDBFS: math.Inf(-1), RMSDBFS: math.Inf(-1)}},
		}}
	})
	return f
}
