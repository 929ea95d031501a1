package webui

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// FuzzHost checks that no Host header passes that a foreign DNS server could
// point at the box.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"10.0.0.7:8080", "[fd00::1%25eth0]:80", "box.local.", "encoder", "evil.com", "[evil.com]", "local", ".local", "a:b:c", "\x00", "1.2.3.4.evil.com"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !ours(host, []string{"encoder", ""}) {
			return
		}
		name := host
		if i := strings.LastIndex(name, ":"); i >= 0 && !strings.HasSuffix(name, "]") && strings.Count(name, ":") == 1 {
			name = name[:i]
		}
		plain := strings.ToLower(strings.TrimSuffix(name, "."))
		if slices.Contains([]string{"encoder", "localhost"}, plain) || strings.HasSuffix(plain, ".local") {
			return
		}
		inner, _, _ := strings.Cut(strings.TrimLeft(host, "["), "]")
		if _, err := netip.ParseAddr(strings.Trim(inner, "[]")); err == nil {
			return
		}
		if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
			return
		}
		t.Errorf("%q passes", host)
	})
}

func ExampleHandler() {
	h := Handler(options(onAir()))
	for _, host := range []string{"192.0.2.7:8080", "rebound.example.com"} {
		r := httptest.NewRequest(http.MethodGet, "/healthz", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(host, w.Code)
	}
	// Output:
	// 192.0.2.7:8080 200
	// rebound.example.com 421
}
