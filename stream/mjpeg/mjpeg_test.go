package mjpeg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A studio makes numbered pictures.
type studio struct {
	*Server

	asked atomic.Int64
	taken atomic.Int64
	slow  atomic.Int64 // answers for which there is no newer picture
	fails atomic.Bool
}

func newStudio() *studio {
	main := stream.NewRendition("main", 8, stream.H264)
	s := &studio{Server: &Server{Audience: &stream.Audience{}, Every: 5 * time.Millisecond}}
	s.Find = func(name string) *stream.Rendition {
		if name == "main" {
			return main
		}
		return nil
	}
	s.Shoot = func(_ context.Context, _ string, last Picture) (Picture, error) {
		if s.fails.Load() {
			return Picture{}, errors.New("no picture yet")
		}
		if s.asked.Add(1)%(s.slow.Load()+1) != 0 && last.JPEG != nil {
			return last, nil
		}
		n := s.taken.Add(1)
		return Picture{fmt.Appendf(nil, "picture %d", n), time.Duration(n)}, nil
	}
	return s
}

func serve(t *testing.T, s *studio) (url string) {
	t.Helper()
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	return web.URL
}

// An answer is what came back, its body as far as it was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request and reads the whole answer.
func ask(t *testing.T, method, url string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, b}
}

func TestOnePictureServesManyForAWhile(t *testing.T) {
	s := newStudio()
	url := serve(t, s) + "/live/main.jpg"
	for range 20 {
		res := ask(t, http.MethodGet, url)
		if res.status != http.StatusOK || res.header.Get("Content-Type") != "image/jpeg" || !bytes.HasPrefix(res.body, []byte("picture ")) {
			t.Fatalf("%+v", res)
		}
	}
	if n := s.taken.Load(); n > 5 {
		t.Errorf("took %d pictures for 20 in a row", n)
	}
	if n := len(s.Audience.Viewers()); n != 0 {
		t.Errorf("%d viewers of one picture", n)
	}
}

func TestMovingPicturesAreMadeOnceForAll(t *testing.T) {
	s := newStudio()
	url := serve(t, s) + "/live/main.mjpeg"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const viewers, pictures = 4, 20
	done := make(chan error, viewers)
	for range viewers {
		go func() { done <- watch(ctx, url, pictures) }()
	}
	for range viewers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := s.taken.Load(); n > 2*pictures+viewers {
		t.Errorf("took %d pictures for %d viewers of %d", n, viewers, pictures)
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(s.Audience.Viewers()) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("viewers that left are still listed")
		}
		<-time.After(time.Millisecond)
	}
}

func TestAPictureIsNotSentTwice(t *testing.T) {
	s := newStudio()
	s.slow.Store(4) // a camera that codes by itself has a new one now and then
	const pictures = 10
	if err := watch(t.Context(), serve(t, s)+"/live/main.mjpeg", pictures); err != nil {
		t.Error(err)
	}
	if asked, taken := s.asked.Load(), s.taken.Load(); asked < 5*(pictures-1) || taken < pictures || taken > asked/5+2 {
		t.Errorf("asked %d times, took %d", asked, taken)
	}
}

func TestNothingIsTakenWhenTheLastHasGone(t *testing.T) {
	s := newStudio()
	url := serve(t, s) + "/live/main.mjpeg"
	if err := watch(t.Context(), url, 3); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(s.Audience.Viewers()) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("who left is still listed")
		}
		<-time.After(time.Millisecond)
	}
	before := s.asked.Load()
	<-time.After(20 * s.Every)
	if n := s.asked.Load() - before; n > 0 {
		t.Errorf("asked for %d pictures for nobody", n)
	}
}

// watch reads pictures, whose numbers must rise.
func watch(ctx context.Context, url string, pictures int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	kind, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/x-mixed-replace" {
		return fmt.Errorf("type %q: %w", kind, err)
	}
	parts := multipart.NewReader(res.Body, params["boundary"])
	last := 0
	for range pictures {
		p, err := parts.NextPart()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscanf(string(b), "picture %d", &n); err != nil || n <= last || p.Header.Get("Content-Type") != "image/jpeg" {
			return fmt.Errorf("got %q after %d, %v", b, last, p.Header)
		}
		last = n
	}
	return nil
}

// A guard that one token opens.
type guard string

func (g guard) Allow(_ string, c stream.Credentials) error {
	switch {
	case c.Empty():
		return stream.ErrLocked
	case c.Token != string(g):
		return stream.ErrDenied
	}
	return nil
}

func TestTheHeadOfMovingPicturesTakesNone(t *testing.T) {
	s := newStudio()
	url := serve(t, s)
	s.Audience.SetBook(nobody{t})
	res := ask(t, http.MethodHead, url+"/live/main.mjpeg")
	if res.status != http.StatusOK || res.header.Get("Content-Type") != "multipart/x-mixed-replace; boundary="+boundary || s.taken.Load() > 0 {
		t.Errorf("%d %v, %d pictures", res.status, res.header, s.taken.Load())
	}
}

// nobody is a book in which nobody may be.
type nobody struct{ t *testing.T }

func (n nobody) Joined(v *stream.Viewer) { n.t.Errorf("%s joined", v.Protocol) }
func (nobody) Left(*stream.Viewer)       {}

func TestWhoMayNotLook(t *testing.T) {
	s := newStudio()
	url := serve(t, s)
	s.Audience.SetDoor(guard("letmein"), stream.Limits{Total: 1})
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/live/main.jpg", 401},
		{"GET", "/live/main.mjpeg", 401},
		{"GET", "/live/main.jpg?token=x", 403},
		{"GET", "/live/main.jpg?token=letmein", 200},
		{"HEAD", "/live/main.jpg?token=letmein", 200},
		{"HEAD", "/live/main.mjpeg?token=letmein", 200},
		{"OPTIONS", "/live/main.mjpeg", 204},
		{"POST", "/live/main.jpg?token=letmein", 405},
		{"GET", "/live/nobody.jpg?token=letmein", 404},
		{"GET", "/live/main.png", 404},
		{"GET", "/live/x/main.jpg", 404},
		{"GET", "/", 404},
	} {
		if res := ask(t, tt.method, url+tt.path); res.status != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, res.status, tt.want)
		}
	}
	leave, err := s.Audience.Admit(&stream.Viewer{Rendition: "main"}, stream.Credentials{Token: "letmein"})
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	if res := ask(t, http.MethodGet, url+"/live/main.mjpeg?token=letmein"); res.status != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", res.status)
	}
}

func TestNoPicture(t *testing.T) {
	s := newStudio()
	s.fails.Store(true)
	url := serve(t, s)
	for _, path := range []string{"/live/main.jpg", "/live/main.mjpeg"} {
		res := ask(t, http.MethodGet, url+path)
		if res.status != http.StatusServiceUnavailable || strings.TrimSpace(string(res.body)) != "no picture yet" || res.header.Get("Retry-After") == "" {
			t.Errorf("%s: %+v", path, res)
		}
	}
}
