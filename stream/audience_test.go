package stream_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/stream"
)

// A guard that one password opens.
type guard string

func (g guard) Allow(rendition string, c stream.Credentials) error {
	switch {
	case c.Empty():
		return fmt.Errorf("%s: %w", rendition, stream.ErrLocked)
	case c.Password != string(g):
		return stream.ErrDenied
	}
	return nil
}

// A book that counts.
type book struct{ joined, left int }

func (b *book) Joined(*stream.Viewer) { b.joined++ }
func (b *book) Left(*stream.Viewer)   { b.left++ }

func admit(t *testing.T, a *stream.Audience, peer string, c stream.Credentials, want error) func() {
	t.Helper()
	leave, err := a.Admit(&stream.Viewer{Peer: peer, Rendition: "main"}, c)
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("%s: got %v, want %v", peer, err, want)
	}
	return leave
}

func TestNoAudienceLetsEverybodyIn(t *testing.T) {
	var a *stream.Audience
	a.SetDoor(guard("secret"), stream.Limits{Total: 1})
	a.SetBook(&book{})
	for range 2 {
		defer admit(t, a, "one", stream.Credentials{}, nil)()
	}
	if err := errors.Join(a.Allow("one", "main", stream.Credentials{}), a.Still("main", stream.Credentials{})); err != nil {
		t.Error(err)
	}
	if v := a.Viewers(); len(v) != 0 {
		t.Errorf("it lists %v", v)
	}
}

func TestAudienceKnowsWhoWatches(t *testing.T) {
	var a stream.Audience
	var b book
	a.SetBook(&b)
	one, two := &stream.Viewer{Peer: "one"}, &stream.Viewer{Peer: "two"}
	leave, err := a.Admit(one, stream.Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Admit(two, stream.Credentials{}); err != nil {
		t.Fatal(err)
	}
	leave()
	leave() // twice does no harm
	if v := a.Viewers(); len(v) != 1 || v[0] != two {
		t.Errorf("got %v", v)
	}
	if b != (book{joined: 2, left: 1}) {
		t.Errorf("the book has %+v", b)
	}
}

func TestAudienceAsksAtTheDoor(t *testing.T) {
	var a stream.Audience
	a.SetDoor(guard("sesame"), stream.Limits{})
	admit(t, &a, "192.0.2.1:1", stream.Credentials{}, stream.ErrLocked)
	admit(t, &a, "192.0.2.1:1", stream.Credentials{Password: "open"}, stream.ErrDenied)
	admit(t, &a, "192.0.2.1:1", stream.Credentials{Password: "sesame"}, nil)
	if n := len(a.Viewers()); n != 1 {
		t.Errorf("%d are inside", n)
	}
}

func TestGuessingTakesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a stream.Audience
		a.SetDoor(guard("sesame"), stream.Limits{})
		right, wrong := stream.Credentials{Password: "sesame"}, stream.Credentials{Password: "open"}
		for range 10 {
			if err := a.Allow("192.0.2.1:1", "main", wrong); !errors.Is(err, stream.ErrDenied) || strings.Contains(err.Error(), "try again") {
				t.Errorf("got %v", err)
			}
		}
		if err := a.Allow("192.0.2.1:2", "main", right); !errors.Is(err, stream.ErrDenied) || !strings.Contains(err.Error(), "try again in 1m") {
			t.Errorf("got %v", err)
		}
		if err := a.Allow("192.0.2.1:2", "main", stream.Credentials{}); !errors.Is(err, stream.ErrLocked) {
			t.Errorf("without credentials: %v", err)
		}
		if err := a.Allow("192.0.2.2:1", "main", right); err != nil {
			t.Errorf("somebody else: %v", err)
		}
		time.Sleep(time.Minute)
		if err := a.Allow("192.0.2.1:2", "main", right); err != nil {
			t.Errorf("after a minute: %v", err)
		}
		for i := range 5000 { // a flood of origins takes no memory and locks nobody out
			_ = a.Allow(fmt.Sprintf("[2001:db8:%x::1]:1", i), "main", wrong)
		}
		if err := a.Allow("192.0.2.1:2", "main", right); err != nil {
			t.Errorf("after a flood: %v", err)
		}
	})
}

func TestAudienceIsLimited(t *testing.T) {
	var a stream.Audience
	a.SetDoor(nil, stream.Limits{Total: 4, Each: 2})
	open := stream.Credentials{}
	leave := admit(t, &a, "192.0.2.1:1", open, nil)
	admit(t, &a, "192.0.2.1:2", open, nil)
	admit(t, &a, "[::ffff:192.0.2.1]:3", open, stream.ErrFull) // the same address
	admit(t, &a, "[2001:db8::1]:1", open, nil)
	admit(t, &a, "[2001:db8::2]:1", open, nil)
	admit(t, &a, "192.0.2.9:1", open, stream.ErrFull)
	leave()
	leave()
	admit(t, &a, "192.0.2.9:1", open, nil)
	admit(t, &a, "192.0.2.9:2", open, stream.ErrFull)
}

func TestOrigin(t *testing.T) {
	for peer, want := range map[string]string{
		"192.0.2.1:80":          "192.0.2.1",
		"192.0.2.1":             "192.0.2.1",
		"[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8::1]:80":      "2001:db8::/64",
		"2001:db8:0:1::1":       "2001:db8:0:1::/64",
		"@/run/socket":          "@/run/socket",
		"":                      "",
	} {
		if got := stream.Origin(peer); got != want {
			t.Errorf("%q: got %q, want %q", peer, got, want)
		}
	}
}
