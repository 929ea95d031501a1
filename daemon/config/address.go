package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"unique"
)

// An Address is where an output goes. People put passwords and keys into
// addresses, so printing one leaves out user, query and all but the first part
// of the path, even inside private fields; only Reveal gives out the whole.
// Equal addresses are equal under ==.
type Address struct{ value unique.Handle[string] } //nolint:recvcheck // reads itself through a pointer, prints as a value

// NewAddress returns s as an address, unchecked.
func NewAddress(s string) Address {
	if s == "" {
		return Address{}
	}
	return Address{unique.Make(s)}
}

// Reveal returns the whole address. Hand it to the protocol and to nobody else.
func (a Address) Reveal() string {
	if a == (Address{}) {
		return ""
	}
	return a.value.Value()
}

func (a *Address) set(v any) (text, do string) {
	s, ok := v.(string)
	if !ok {
		return "is " + kind(v) + ", not an address", `write it in quotes, for example "rtmp://server/app"`
	}
	*a = NewAddress(s)
	return "", ""
}

// Scheme returns the protocol in lower case, such as "rtmps", or "".
func (a Address) Scheme() string {
	scheme, _, ok := strings.Cut(a.Reveal(), "://")
	if !ok {
		return ""
	}
	return strings.ToLower(scheme)
}

// String returns the part that anybody may see, such as
// "rtmp://live.example.org/app", or "•••" if a is not a URL.
func (a Address) String() string {
	if a == (Address{}) {
		return ""
	}
	u, err := url.Parse(a.Reveal())
	if err != nil || u.Host == "" {
		return masked
	}
	first, rest, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	open := url.URL{Scheme: u.Scheme, Host: u.Host, Path: first}
	if strings.Trim(rest, "/") == "" {
		return open.String()
	}
	return open.String() + "/" + masked
}

// Format prints String under every verb and flag.
func (a Address) Format(f fmt.State, verb rune) {
	text := a.String()
	if verb == 'q' || f.Flag('#') {
		text = strconv.Quote(text)
	}
	_, _ = io.WriteString(f, text) // a fmt.State cannot report errors
}

// LogValue is String, for slog.
func (a Address) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalText is String, for JSON and other encodings.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// MarshalTOML is for Save alone: it writes the whole address.
func (a Address) MarshalTOML() ([]byte, error) { return tomlString(a.Reveal()), nil }
