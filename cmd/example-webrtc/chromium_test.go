package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/hw"
	"encoderd.example/hw/boards"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A report is what the page shows.
type report struct {
	Width, Height, Frames int
	Sound                 bool
}

// spy is a page that holds the example's and tells what it sees there.
const spy = `<!doctype html><iframe src="/"></iframe><script>
setInterval(() => {
	const video = frames[0].document.querySelector('video');
	if (!video) return;
	const sound = (video.srcObject?.getAudioTracks() ?? []).some((track) => !track.muted);
	const seen = { width: video.videoWidth, height: video.videoHeight, frames: video.getVideoPlaybackQuality().totalVideoFrames, sound };
	fetch('/spy', { method: 'POST', body: JSON.stringify(seen) });
}, 200);
</script>`

// serve runs the example and puts the spy in front of it.
func serve(t *testing.T, board hw.Board) (address string, reports <-chan report) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		o := options{width: 640, height: 360, fps: 30, bitrate: 800_000}
		ended <- run(ctx, board, o, listener, slog.New(slog.NewTextHandler(t.Output(), nil)))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	seen := make(chan report)
	mux := http.NewServeMux()
	mux.Handle("/", httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: listener.Addr().String()}))
	mux.HandleFunc("GET /spy", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, spy) })
	mux.HandleFunc("POST /spy", func(_ http.ResponseWriter, r *http.Request) {
		var now report
		if err := json.NewDecoder(r.Body).Decode(&now); err != nil {
			return // the browser is being ended
		}
		select {
		case seen <- now:
		case <-r.Context().Done():
		case <-ctx.Done():
		}
	})
	front := httptest.NewServer(mux)
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		front.CloseClientConnections()
		front.Close()
	})
	return front.URL, seen
}

// browse opens an address in a real Chromium.
func browse(t *testing.T, address string) {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium: install it, make test does")
	}
	cmd := exec.CommandContext(t.Context(), program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), address)
	// The browser is a family of processes: end all of them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
}

// await returns the first report that will do.
func await(t *testing.T, reports <-chan report, what string, ok func(report) bool) report {
	t.Helper()
	late := time.After(60 * time.Second)
	var last report
	for {
		select {
		case last = <-reports:
			if ok(last) {
				return last
			}
		case <-late:
			t.Fatalf("never came: %s; last %+v", what, last)
		}
	}
}

func TestABrowserPlaysTheCameraAndOutlivesAReplug(t *testing.T) {
	board, err := boards.Find("sim", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	address, reports := serve(t, board)
	browse(t, address+"/spy")
	first := await(t, reports, "picture and sound", func(r report) bool { return r.Frames > 0 && r.Sound })
	if first.Width != 640 || first.Height != 360 {
		t.Errorf("the picture is %dx%d", first.Width, first.Height)
	}
	await(t, reports, "60 more pictures", func(r report) bool { return r.Frames >= first.Frames+60 })

	if err := board.Faults("camera-unplugged", true); err != nil {
		t.Fatal(err)
	}
	still, same := 0, 0
	await(t, reports, "a picture that stands still", func(r report) bool {
		if r.Frames != still {
			still, same = r.Frames, 0
		}
		same++
		return same == 5
	})
	if err := board.Faults("camera-unplugged", false); err != nil {
		t.Fatal(err)
	}
	await(t, reports, "pictures of the camera that is back", func(r report) bool { return r.Frames >= still+30 })
}

func TestWhatIsNoOfferIsRefused(t *testing.T) {
	board, err := boards.Find("sim", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	address, _ := serve(t, board)
	for name, body := range map[string]string{"words": "hello", "nothing": "", "too much": strings.Repeat("a=x\r\n", 20_000)} {
		response, err := http.Post(address+"/offer", "application/sdp", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", name, response.Status)
		}
	}
	foreign, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/offer", strings.NewReader("v=0"))
	if err != nil {
		t.Fatal(err)
	}
	foreign.Header.Set("Origin", "http://example.org")
	response, err := http.DefaultClient.Do(foreign)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("another site's page: %s", response.Status)
	}
}

func TestHardwareComesBeforeSoftware(t *testing.T) {
	named := func(name string) hw.EncoderDriver {
		return hw.EncoderDriver{Name: name, Open: func(hw.EncoderConfig) (hw.Encoder, error) { return nil, fmt.Errorf("%s: %w", name, hw.ErrBusy) }}
	}
	board, err := boards.Find("sim", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	board.FindEncoders = func() ([]hw.EncoderDriver, error) { return []hw.EncoderDriver{named("chip")}, nil }
	board.Encoders = []hw.EncoderDriver{named("library")}
	found, err := encoders(board)
	if err != nil || len(found) != 2 || found[0].Name != "chip" || found[1].Name != "library" {
		t.Errorf("%v, %v", found, err)
	}
}
