package rtsp

import (
	"crypto/md5" //nolint:gosec // RFC 7616 with MD5 is what every RTSP player speaks; what it guards is a nonce
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"encoderd.example/stream"
)

// Digest authentication (RFC 2326, D.1.1; RFC 7616) guards renditions that
// are not open; over TLS a plain password is taken, too. A link's token stands
// in the URL: rtsp://HOST:8554/main?token=…
const (
	realm       = "encoderd"
	tokenParam  = "token"
	maxRefusals = 5 // wrong credentials on one connection
)

// admit returns nil if the request may see the rendition, or else the answer
// that says why not.
func (c *conn) admit(cl call, name string) *response {
	if c.Audience == nil {
		return nil
	}
	shown, err := c.credentials(cl.request, name)
	stale := errors.Is(err, errStale)
	if shown.Empty() && c.opened == name {
		shown = c.shown // few players repeat a link's token on every request
	}
	if err == nil || stale {
		err = c.Audience.Allow(c.nc.RemoteAddr().String(), name, shown)
	}
	if err == nil {
		c.shown, c.opened = shown, name
		return nil
	}
	if stale && shown.Empty() {
		return answer(401, c.challenges(true)...)
	}
	return c.deny(cl, name, shown, err)
}

// deny asks for credentials, or ends a connection that has shown enough wrong
// ones.
func (c *conn) deny(cl call, name string, shown stream.Credentials, err error) *response {
	res := answer(401, c.challenges(false)...)
	if errors.Is(err, stream.ErrLinkOnly) {
		res = answer(403)
	}
	if shown.Empty() {
		return res
	}
	c.log.Debug("rtsp player not let in", "rendition", name, "err", err)
	if c.refusals++; c.refusals >= maxRefusals {
		res.header = append(res.header, "Connection: close")
		res.after = func() { cl.cancel(err) }
	}
	return res
}

// challenges returns the ways to show a password. The nonce is the
// connection's own, so that nothing heard on one is worth anything on another.
// A stale one before it lets the player try again without asking anybody.
func (c *conn) challenges(stale bool) []string {
	if c.nonce == "" {
		c.nonce = rand.Text()
	}
	lines := []string{fmt.Sprintf(`WWW-Authenticate: Digest realm=%q, nonce=%q, algorithm=MD5`, realm, c.nonce)}
	if stale {
		lines[0] += ", stale=true"
	}
	if c.secure {
		lines = append(lines, fmt.Sprintf(`WWW-Authenticate: Basic realm=%q`, realm))
	}
	return lines
}

var (
	errAuthorization = errors.New("the Authorization line is malformed")
	// errStale is no guess but nothing shown: players that connect again begin
	// with the nonce that they have, and what they say under it is not looked at.
	errStale = errors.New("the nonce is not this connection's")
)

// credentials returns what a request shows.
func (c *conn) credentials(req *request, name string) (stream.Credentials, error) {
	if token := req.param(tokenParam); token != "" {
		return stream.Credentials{Token: token}, nil
	}
	line := req.header["Authorization"]
	scheme, rest, _ := strings.Cut(line, " ")
	switch {
	case line == "":
		return stream.Credentials{}, nil
	case strings.EqualFold(scheme, "Digest"):
		d, err := parseDigest(rest)
		if err != nil {
			return stream.Credentials{}, err
		}
		if c.nonce == "" || d.nonce != c.nonce {
			return stream.Credentials{}, errStale
		}
		return stream.Credentials{Proves: func(user, password string) bool {
			return d.proves(req.method, name, user, password)
		}}, nil
	case strings.EqualFold(scheme, "Basic") && c.secure:
		r := http.Request{Header: http.Header{"Authorization": {line}}}
		user, password, ok := r.BasicAuth()
		if !ok {
			return stream.Credentials{}, errAuthorization
		}
		return stream.Credentials{User: user, Password: password}, nil
	default:
		return stream.Credentials{}, nil // asks anew, in a way that we take
	}
}

// param returns a parameter of the request's URL, "" if there is none. Players
// append the control behind a query.
func (req *request) param(name string) string {
	for pair := range strings.SplitSeq(req.url.RawQuery, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if key == name {
			value, _, _ = strings.Cut(value, "/")
			return value
		}
	}
	return ""
}

// A digest is an Authorization line (RFC 7616, 3.4).
type digest struct{ user, realm, nonce, uri, response, qop, nc, cnonce string }

// parseDigest reads name="value" pairs. What is unknown is passed over.
func parseDigest(s string) (d digest, err error) {
	fields := map[string]*string{
		"username": &d.user, "realm": &d.realm, "nonce": &d.nonce, "uri": &d.uri,
		"response": &d.response, "qop": &d.qop, "nc": &d.nc, "cnonce": &d.cnonce,
	}
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimLeft(s, ", \t") {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			return digest{}, errAuthorization
		}
		var value string
		if value, s, ok = cutValue(rest); !ok {
			return digest{}, errAuthorization
		}
		if to := fields[strings.ToLower(strings.TrimSpace(name))]; to != nil {
			*to = value
		}
	}
	return d, nil
}

// cutValue cuts a token or a quoted string off s.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ", \t")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			i++
			if i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// proves reports whether d was made with this password for a request of this
// method on this rendition. That its nonce is the connection's is the caller's
// to know.
func (d digest) proves(method, name, user, password string) bool {
	if d.realm != realm || d.user != user || !about(d.uri, name) {
		return false
	}
	secret := sum(user + ":" + realm + ":" + password)
	request := sum(method + ":" + d.uri)
	want := sum(secret + ":" + d.nonce + ":" + request)
	if d.qop == "auth" {
		want = sum(strings.Join([]string{secret, d.nonce, d.nc, d.cnonce, d.qop, request}, ":"))
	}
	return subtle.ConstantTimeCompare([]byte(want), []byte(strings.ToLower(d.response))) == 1
}

// about reports whether a digest's URI names the rendition, however much of
// the rest of the URL the player put into it.
func about(uri, name string) bool {
	req, err := parseRequestLine("DESCRIBE " + uri + " RTSP/1.0")
	if err != nil {
		return false
	}
	of, _ := req.target()
	return of == name
}

func sum(s string) string {
	h := md5.Sum([]byte(s)) //nolint:gosec // see above
	return hex.EncodeToString(h[:])
}
