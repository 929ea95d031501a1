package rtmp

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Ports if the address names none (RTMP 1.0, 2; RTMPS as everybody does it).
const (
	portRTMP  = "1935"
	portRTMPS = "443"
)

// address is where to publish, taken apart.
//
//	rtmps://user:pass@host:port/app/more?query  +  key
//	                           └────app─────┘
//	rtmp://host/app/key?query   without a key: the last part is the key
type address struct {
	secure     bool
	host, port string
	user, pass string
	app        string // with query
	tcURL      string // what the server is told: no user, no key
	key        string // with query
}

// Check says what is wrong with the address of an output, nil if nothing. The
// key may be part of it. Errors do not repeat the address.
func Check(rawURL string) error {
	_, err := parseAddress(rawURL, "unknown yet")
	return err
}

// parseAddress does not hand out errors of net/url: they repeat the address,
// which may hold a password or a key.
func parseAddress(rawURL, key string) (address, error) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(rawURL), "://")
	scheme = strings.ToLower(scheme)
	if scheme != "rtmp" && scheme != "rtmps" {
		return address{}, errors.New("the address does not start with rtmp:// or rtmps://")
	}
	authority, path, _ := strings.Cut(rest, "/")
	u, err := url.Parse(scheme + "://" + authority)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return address{}, fmt.Errorf("the address has a bad host: write %s://host/app", scheme)
	}
	if u.Hostname() == "" {
		return address{}, fmt.Errorf("the address has no host: write %s://host/app", scheme)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return address{}, errors.New("the address has a bad port: ports go from 1 to 65535")
	}
	a := address{secure: scheme == "rtmps", host: u.Hostname(), port: u.Port(), user: u.User.Username()}
	a.pass, _ = u.User.Password()
	if a.port == "" {
		a.port = portRTMP
		if a.secure {
			a.port = portRTMPS
		}
	}
	a.app, a.key = splitPath(path, key)
	if a.app == "" || strings.HasPrefix(a.app, "?") {
		return address{}, fmt.Errorf("the address has no application: write %s://%s/app", scheme, u.Host)
	}
	if a.key == "" {
		return address{}, errors.New("the stream key is missing")
	}
	a.tcURL = scheme + "://" + u.Host + "/" + a.app
	return a, nil
}

// splitPath keeps everything as it was typed: servers sign queries.
func splitPath(path, key string) (app, name string) {
	path, query, asked := strings.Cut(path, "?")
	path = strings.Trim(path, "/")
	if asked {
		query = "?" + query
	}
	if key != "" {
		return path + query, key
	}
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		return path + query, ""
	}
	return path[:at], path[at+1:] + query
}

func (a address) dial() string { return net.JoinHostPort(a.host, a.port) }

// Hidden stands in texts for what must not be shown.
const hidden = "•••"

// hide takes the secrets of a out of a text that the server wrote. It also
// drops control characters and what goes on for too long, so that a server
// cannot forge lines of a log.
func (a address) hide(text string) string {
	const longest = 240
	for _, secret := range a.secrets() {
		text = strings.ReplaceAll(text, secret, hidden)
		text = strings.ReplaceAll(text, url.QueryEscape(secret), hidden)
		text = strings.ReplaceAll(text, url.PathEscape(secret), hidden)
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if runes := []rune(text); len(runes) > longest {
		text = string(runes[:longest]) + "…"
	}
	return text
}

// secrets lists what must not be shown, the longest form first: servers repeat
// names and values alone, too.
func (a address) secrets() []string {
	_, appQuery, _ := strings.Cut(a.app, "?")
	name, keyQuery, _ := strings.Cut(a.key, "?")
	secrets := []string{a.key, name, keyQuery, a.pass, appQuery}
	for part := range strings.SplitSeq(keyQuery+"&"+appQuery, "&") {
		_, value, _ := strings.Cut(part, "=")
		secrets = append(secrets, value)
	}
	return slices.DeleteFunc(secrets, func(s string) bool { return s == "" })
}

// Redact returns what anybody may see of an address: scheme, host and the
// first part of the path, where a key never stands.
func Redact(rawURL string) string {
	a, err := parseAddress(rawURL, "x")
	if err != nil {
		return hidden
	}
	scheme, _, _ := strings.Cut(a.tcURL, "://")
	host := strings.TrimPrefix(a.tcURL, scheme+"://")
	host, _, _ = strings.Cut(host, "/")
	path, _, _ := strings.Cut(a.app, "?")
	app, more, _ := strings.Cut(path, "/")
	if more != "" {
		app += "/" + hidden
	}
	return scheme + "://" + host + "/" + app
}
