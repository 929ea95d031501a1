// Package out is the one list of the protocols that a box can push with. A new
// protocol is a folder beside this one and a line in the table here.
package out

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"encoderd.example/stream"
	"encoderd.example/stream/rtmp"
)

// A protocol is what one scheme of addresses stands for.
type protocol struct {
	scheme string
	open   func(url, key string, log *slog.Logger) (stream.Push, error)
	check  func(url string) error
	redact func(url string) string
}

func protocols() []protocol {
	return []protocol{
		{"rtmp", openRTMP, rtmp.Check, rtmp.Redact},
		{"rtmps", openRTMP, rtmp.Check, rtmp.Redact},
	}
}

func openRTMP(url, key string, log *slog.Logger) (stream.Push, error) {
	p, err := rtmp.New(rtmp.Config{URL: url, Key: key, Log: log})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Schemes lists the known schemes of addresses, in lower case.
func Schemes() (schemes []string) {
	for _, p := range protocols() {
		schemes = append(schemes, p.scheme)
	}
	return schemes
}

// Open returns the push for an address. key may be empty if the address holds
// it. log gets no secrets, and neither do errors.
func Open(url, key string, log *slog.Logger) (stream.Push, error) {
	p, err := find(url)
	if err != nil {
		return nil, err
	}
	return p.open(url, key, log)
}

// Check says what is wrong with an address, nil if nothing. The error does not
// repeat the address.
func Check(url string) error {
	p, err := find(url)
	if err != nil {
		return err
	}
	return p.check(url)
}

// Redact returns the part of an address that anybody may see: no user, no
// password, no query, no key. Of an address that nobody knows it shows nothing.
func Redact(url string) string {
	p, err := find(url)
	if err != nil {
		return "•••"
	}
	return p.redact(url)
}

func find(url string) (protocol, error) {
	scheme, _, ok := strings.Cut(strings.TrimSpace(url), "://")
	if !ok {
		return protocol{}, fmt.Errorf("the address has no scheme: known are %s", known())
	}
	all := protocols()
	i := slices.IndexFunc(all, func(p protocol) bool { return strings.EqualFold(p.scheme, scheme) })
	if i < 0 {
		return protocol{}, errors.New("the address has an unknown scheme: known are " + known())
	}
	return all[i], nil
}

// known is "rtmp://, rtmps://".
func known() string { return strings.Join(Schemes(), "://, ") + "://" }
