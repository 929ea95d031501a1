//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"bytes"
	"image/jpeg"
	"net/http"
	"strings"
	"testing"
)

// page asks for what people and machines fetch from a box by HTTP.
func page(t *testing.T, b *box) {
	b.run(t, settings{})
	b.settle(t)
	for _, p := range []struct{ name, path, want string }{
		{"the page", "/", "<title>"},
		{"health", "/healthz", ""},
		{"metrics", "/metrics", `encoderd_build_info{board="virt"`},
		{"frames in the metrics", "/metrics", "encoderd_input_frames_total"},
		{"status", "/api/v1/status", `"board":"virt"`},
		{"description of the API", "/api/openapi.yaml", "/api/v1/status"},
	} {
		code, body, err := b.get(p.path)
		if err != nil || code != http.StatusOK || !strings.Contains(string(body), p.want) {
			t.Errorf("%s at %s: code %d, %v, %d bytes; want 200 with %q", p.name, p.path, code, err, len(body), p.want)
		}
	}
	code, body, err := b.get("/live/main.jpg")
	if err != nil || code != http.StatusOK {
		t.Fatalf("snapshot: code %d, %v", code, err)
	}
	shot, err := jpeg.Decode(bytes.NewReader(body))
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	if size := shot.Bounds().Size(); size.X != width || size.Y != height {
		t.Errorf("the snapshot is %v, want %dx%d", size, width, height)
	}
}
