package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"unique"
)

// masked is what is shown in place of a secret.
const masked = "•••"

// secretPrefix marks a value in the file that only names a secret.
const secretPrefix = "secret:"

// A Secret is a value that nobody shall see again, such as a stream key. Every
// way of printing or encoding it shows "•••", even inside private fields; only
// Reveal gives it out. Secrets of the same name and value are equal under ==.
// The zero Secret is "no secret".
type Secret struct { //nolint:recvcheck // reads itself through a pointer, prints as a value
	ref string // name in the store, or ""
	// A handle, so that printers that walk private fields find an address.
	value unique.Handle[string]
}

// NewSecret returns a secret that is not yet in a store.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{value: unique.Make(value)}
}

// Reveal returns the value, or "" if the secret is empty or was never found in
// a store. Hand it to the far side and to nobody else.
func (s Secret) Reveal() string {
	if s.value == (unique.Handle[string]{}) {
		return ""
	}
	return s.value.Value()
}

// Ref returns the name under which the store holds the secret, or "" if it
// stood in the config file itself.
func (s Secret) Ref() string { return s.ref }

// IsZero reports whether there is no secret, not even a reference to one.
func (s Secret) IsZero() bool { return s == Secret{} }

// String returns "•••", or "" for the zero Secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return masked
}

// Format masks under every verb and flag.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'q' || f.Flag('#') {
		text = strconv.Quote(text)
	}
	_, _ = io.WriteString(f, text) // a fmt.State cannot report errors
}

// LogValue masks in slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText masks in JSON, TOML and other encodings.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalTOML is for Save alone: it writes the reference, never the value.
func (s Secret) MarshalTOML() ([]byte, error) {
	if s.ref == "" {
		return nil, errors.New("a secret must be stored before the config can be written")
	}
	return strconv.AppendQuote(nil, secretPrefix+s.ref), nil
}

func (s *Secret) set(v any) (text, do string) {
	str, ok := v.(string)
	if !ok {
		return "is " + kind(v) + ", not a key", `write "secret:NAME", or the key itself in quotes`
	}
	name, isRef := strings.CutPrefix(str, secretPrefix)
	if !isRef {
		*s = NewSecret(str)
		return "", ""
	}
	if !validName(name) {
		return "does not name a secret", "write secret: and a name made of " + nameLetters
	}
	*s = Secret{ref: name}
	return "", ""
}
