package access_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, time.November, 21, 12, 0, 0, 0, time.UTC)

// rules guard "main" by password, "sub" by link; the rest is open.
func rules(now time.Time) *access.Rules {
	return &access.Rules{
		Default: access.Rule{Mode: access.Open},
		By: map[string]access.Rule{
			"main": {Mode: access.Password, User: "venue", Password: "sesame"},
			"sub":  {Mode: access.Link},
			"none": {Mode: access.Password, User: "venue"},
		},
		Key: []byte("the key of this box"),
		Now: func() time.Time { return now },
	}
}

func sign(t *testing.T, r *access.Rules, rendition string, until time.Time) string {
	t.Helper()
	token, err := r.Sign(rendition, until)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestAllow(t *testing.T) {
	r := rules(noon)
	later := noon.Add(time.Hour)
	main, sub, all := sign(t, r, "main", later), sign(t, r, "sub", later), sign(t, r, access.All, later)
	proves := func(user, password string) func(string, string) bool {
		return func(u, p string) bool { return u == user && p == password }
	}
	tests := []struct {
		name, rendition string
		c               stream.Credentials
		want            error
	}{
		{"open to all", "stage", stream.Credentials{}, nil},
		{"open, whatever is shown", "stage", stream.Credentials{Password: "x", Token: "y"}, nil},
		{"nothing shown", "main", stream.Credentials{}, stream.ErrLocked},
		{"the password", "main", stream.Credentials{User: "venue", Password: "sesame"}, nil},
		{"a wrong password", "main", stream.Credentials{User: "venue", Password: "sesam"}, stream.ErrDenied},
		{"a wrong user", "main", stream.Credentials{User: "Venue", Password: "sesame"}, stream.ErrDenied},
		{"a digest", "main", stream.Credentials{Proves: proves("venue", "sesame")}, nil},
		{"a wrong digest", "main", stream.Credentials{Proves: proves("venue", "")}, stream.ErrDenied},
		{"a link beside the password", "main", stream.Credentials{Token: main}, nil},
		{"a wrong link beside the right password", "main", stream.Credentials{User: "venue", Password: "sesame", Token: sub}, stream.ErrDenied},
		{"the link", "sub", stream.Credentials{Token: sub}, nil},
		{"a link for everything", "sub", stream.Credentials{Token: all}, nil},
		{"the link of another", "sub", stream.Credentials{Token: main}, stream.ErrDenied},
		{"a password where links are asked", "sub", stream.Credentials{User: "venue", Password: "sesame"}, stream.ErrLinkOnly},
		{"nothing shown where links are asked", "sub", stream.Credentials{}, stream.ErrLinkOnly},
		{"which is a denial", "sub", stream.Credentials{}, stream.ErrDenied},
		{"no password was set", "none", stream.Credentials{User: "venue"}, stream.ErrDenied},
		{"no password was set, a digest", "none", stream.Credentials{Proves: proves("venue", "")}, stream.ErrDenied},
		{"half a link", "sub", stream.Credentials{Token: sub[:10]}, stream.ErrDenied},
		{"no link at all", "sub", stream.Credentials{Token: "%%%"}, stream.ErrDenied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := r.Allow(tt.rendition, tt.c); !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestLinksEnd(t *testing.T) {
	token := sign(t, rules(noon), "sub", noon.Add(time.Hour))
	for _, tt := range []struct {
		name, want string
		now        time.Time
		key        string
	}{
		{"the last moment", "", noon.Add(time.Hour - 1), "the key of this box"},
		{"over", "time is over", noon.Add(time.Hour), "the key of this box"},
		{"a box without a clock", "does not know the time", time.Unix(100, 0), "the key of this box"},
		{"a new key", "wrong or expired", noon, "another key"},
		{"no key", "wrong or expired", noon, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rules(tt.now)
			r.Key = []byte(tt.key)
			err := r.Allow("sub", stream.Credentials{Token: token})
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, stream.ErrDenied) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestEveryBitOfALinkCounts(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	r := rules(noon)
	token := sign(t, r, "sub", noon.Add(time.Hour))
	for i := range token {
		for _, c := range alphabet {
			changed := token[:i] + string(c) + token[i+1:]
			if changed != token && r.Allow("sub", stream.Credentials{Token: changed}) == nil {
				t.Errorf("%q opens as %q does", changed, token)
			}
		}
	}
}

func TestSignSaysWhatIsMissing(t *testing.T) {
	r := rules(noon)
	if _, err := r.Sign("sub", noon); err == nil || !strings.Contains(err.Error(), "later time") {
		t.Errorf("got %v", err)
	}
	r.Key = nil
	if _, err := r.Sign("sub", noon.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("got %v", err)
	}
}

func FuzzLinks(f *testing.F) {
	r := rules(noon)
	token, err := r.Sign("main", noon.Add(time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("sub", token)
	f.Add("sub", "")
	f.Add("main\x00", strings.Repeat("A", 28))
	f.Fuzz(func(t *testing.T, rendition, token string) {
		r := rules(noon)
		if rendition != "stage" {
			r.Default = access.Rule{Mode: access.Link}
		}
		if rendition == "main" || r.By[rendition].Mode == access.Open && r.Default.Mode == access.Open {
			return
		}
		if err := r.Allow(rendition, stream.Credentials{Token: token}); err == nil {
			t.Errorf("%q opens %q", token, rendition)
		}
	})
}
