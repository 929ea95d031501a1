package webui

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// headers go with every answer. No script or style stands in the page itself,
// so nothing "unsafe" is needed.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; " +
		"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	"X-Content-Type-Options":       "nosniff",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), microphone=(), geolocation=()",
}

// livePath is where pictures for players are.
const livePath = "/live/"

// guard lets through what a page of the box itself, or a program, may ask.
func guard(opts Options, next http.Handler) http.Handler {
	foreign := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for k, v := range headers {
			w.Header().Set(k, v)
		}
		live := opts.Live != nil && strings.HasPrefix(r.URL.Path, livePath)
		if live {
			w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
		}
		switch {
		case !opts.Local && !ours(r.Host, opts.Hosts):
			// DNS rebinding: a foreign name that points to the box would make
			// its pages look like ours to the browser.
			problem(w, http.StatusMisdirectedRequest, "The box does not go by this name",
				"Use its IP address or its .local name, or list the name in the config: [serve] hosts.")
		case live: // it has a door of its own, and changes nothing of the box
			next.ServeHTTP(w, r)
		case !sameOrigin(r) || foreign.Check(r) != nil:
			problem(w, http.StatusForbidden, "Another site asked",
				"Pages of other sites may not use the box. Open the box's own page.")
		case !opts.Local && r.Method != http.MethodGet && r.Method != http.MethodHead:
			problem(w, http.StatusForbidden, "Read only",
				"Over the network the box only shows itself. Use the button on the box, or on the box itself the command: encoderd do ACTION.")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ours reports whether host, of a Host header, is a name of the box. An IP
// address always is: it cannot be pointed elsewhere.
func ours(host string, names []string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	if strings.Trim(host, hostLetters) != "" {
		return false
	}
	host = plainName(host)
	return host == "localhost" || strings.HasSuffix(host, ".local") ||
		host != "" && slices.ContainsFunc(names, func(n string) bool { return plainName(n) == host })
}

// hostLetters are what a host name is made of (RFC 1123, 2.1) and underscores,
// which some networks use all the same.
const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

func plainName(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// sameOrigin checks the Origin of requests that have one, GETs too: events and
// pictures are not for other sites.
func sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
