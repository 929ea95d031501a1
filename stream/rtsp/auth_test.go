package rtsp

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

// A guard opens to a user with a password and to one link.
type guard struct{ user, password, token string }

func (g guard) Allow(_ string, c stream.Credentials) error {
	switch {
	case c.Empty():
		return stream.ErrLocked
	case c.Token != "" && c.Token == g.token,
		c.Proves != nil && c.Proves(g.user, g.password),
		c.Password != "" && c.User == g.user && c.Password == g.password:
		return nil
	default:
		return stream.ErrDenied
	}
}

const secret = `se"sa\me:1`

// guarded starts a server whose only rendition plays and is not open.
func guarded(t *testing.T) (addr string, audience *stream.Audience) {
	t.Helper()
	enc := newFake(t, 30, 1000)
	for range 40 {
		enc.publish()
	}
	audience = &stream.Audience{}
	audience.SetDoor(guard{"venue", secret, "letmein"}, stream.Limits{})
	return start(t, &Server{Find: only(enc.r), Audience: audience}), audience
}

// nonce asks for a challenge.
func (c *client) nonce(t *testing.T) string {
	t.Helper()
	r := c.must(t, 401, "DESCRIBE", c.base)
	_, rest, _ := strings.Cut(r.header.Get("WWW-Authenticate"), `nonce="`)
	nonce, _, ok := strings.Cut(rest, `"`)
	if !ok || len(r.header.Values("WWW-Authenticate")) != 1 {
		t.Fatalf("challenge is %q", r.header.Values("WWW-Authenticate"))
	}
	return nonce
}

// authorize returns an Authorization line.
func authorize(user, password, nonce, method, uri string) string {
	response := sum(sum(user+":"+realm+":"+password) + ":" + nonce + ":" + sum(method+":"+uri))
	return fmt.Sprintf(`Authorization: Digest username=%q, realm=%q, nonce=%q, uri=%q, response=%q`, user, realm, nonce, uri, response)
}

func TestDigest(t *testing.T) {
	addr, audience := guarded(t)
	c := dial(t, addr, "main")
	nonce := c.nonce(t)
	c.must(t, 200, "OPTIONS", c.base)
	c.must(t, 401, "SETUP", c.base+"/trackID=0", tcp)
	c.must(t, 200, "DESCRIBE", c.base, authorize("venue", secret, nonce, "DESCRIBE", c.base))
	video := c.base + "/trackID=0"
	c.must(t, 200, "SETUP", video, tcp, authorize("venue", secret, nonce, "SETUP", video))
	c.must(t, 200, "PLAY", c.base) // few players repeat it each time
	if _, err := c.frame(); err != nil || len(audience.Viewers()) != 1 {
		t.Errorf("%v, %d viewers", err, len(audience.Viewers()))
	}
}

func TestDigestWithQuality(t *testing.T) { // RFC 7616, 3.4.1 with qop
	addr, _ := guarded(t)
	c := dial(t, addr, "main")
	nonce := c.nonce(t)
	response := sum(strings.Join([]string{sum("venue:" + realm + ":" + secret), nonce, "00000001", "abc", "auth", sum("DESCRIBE:" + c.base)}, ":"))
	c.must(t, 200, "DESCRIBE", c.base, fmt.Sprintf(`Authorization: digest username="venue",realm=%q,nonce=%q,uri=%q,qop=auth,nc=00000001, cnonce="abc",response=%q`,
		realm, nonce, c.base, strings.ToUpper(response)))
}

func TestWrongDigests(t *testing.T) {
	addr, audience := guarded(t)
	other := dial(t, addr, "main").nonce(t)
	tests := []struct {
		name string
		line func(c *client, nonce string) string
	}{
		{"a wrong password", func(c *client, n string) string { return authorize("venue", "x", n, "DESCRIBE", c.base) }},
		{"a wrong user", func(c *client, n string) string { return authorize("VENUE", secret, n, "DESCRIBE", c.base) }},
		{"another method", func(c *client, n string) string { return authorize("venue", secret, n, "SETUP", c.base) }},
		{"another rendition", func(c *client, n string) string { return authorize("venue", secret, n, "DESCRIBE", c.base+"2") }},
		{"heard on another connection", func(c *client, _ string) string {
			return authorize("venue", secret, other, "DESCRIBE", c.base)
		}},
		{"no nonce", func(c *client, _ string) string { return authorize("venue", secret, "", "DESCRIBE", c.base) }},
		{"a line cut off", func(*client, string) string { return `Authorization: Digest username="venue` }},
		{"a line of nothing", func(*client, string) string { return `Authorization: Digest` }},
		{"a line without values", func(*client, string) string { return `Authorization: Digest username` }},
		{"a plain password on a plain line", func(*client, string) string { return "Authorization: Basic dmVudWU6eA==" }},
		{"another scheme", func(*client, string) string { return "Authorization: Bearer letmein" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			audience.SetDoor(guard{"venue", secret, "letmein"}, stream.Limits{})
			c := dial(t, addr, "main")
			c.must(t, 401, "DESCRIBE", c.base, tt.line(c, c.nonce(t)))
		})
	}
}

func TestGuessersAreCutOff(t *testing.T) {
	addr, _ := guarded(t)
	c := dial(t, addr, "main")
	nonce := c.nonce(t)
	for i := range maxRefusals {
		c.must(t, 401, "DESCRIBE", c.base, authorize("venue", fmt.Sprint(i), nonce, "DESCRIBE", c.base))
	}
	if _, err := c.do("OPTIONS", c.base); err == nil || errors.Is(err, io.ErrNoProgress) {
		t.Error("the connection goes on")
	}
}

func TestPlayersThatConnectAgainGuessNothing(t *testing.T) {
	addr, _ := guarded(t)
	old := dial(t, addr, "main").nonce(t)
	for range 20 {
		c := dial(t, addr, "main")
		for range maxRefusals + 1 {
			r := c.must(t, 401, "DESCRIBE", c.base, authorize("venue", secret, old, "DESCRIBE", c.base))
			if line := r.header.Get("WWW-Authenticate"); !strings.HasSuffix(line, ", stale=true") || strings.Contains(line, old) {
				t.Fatalf("challenge is %q", line)
			}
		}
	}
	c := dial(t, addr, "main")
	c.must(t, 200, "DESCRIBE", c.base, authorize("venue", secret, c.nonce(t), "DESCRIBE", c.base))
	for range 3 { // wrong passwords are guesses still
		c := dial(t, addr, "main")
		nonce := c.nonce(t)
		for range maxRefusals - 1 {
			c.must(t, 401, "DESCRIBE", c.base, authorize("venue", "x", nonce, "DESCRIBE", c.base))
		}
	}
	c = dial(t, addr, "main")
	c.must(t, 401, "DESCRIBE", c.base, authorize("venue", secret, c.nonce(t), "DESCRIBE", c.base))
}

func TestAStaleDigestIsNothingShown(t *testing.T) {
	addr, audience := guarded(t)
	old := dial(t, addr, "main").nonce(t)
	c := dial(t, addr, "main")
	c.must(t, 200, "DESCRIBE", c.base, authorize("venue", secret, c.nonce(t), "DESCRIBE", c.base))
	c.must(t, 200, "SETUP", c.base+"/trackID=0", tcp, authorize("venue", "x", old, "SETUP", c.base+"/trackID=0"))
	audience.SetDoor(nil, stream.Limits{})
	d := dial(t, addr, "main")
	d.must(t, 200, "DESCRIBE", d.base, authorize("venue", "x", old, "DESCRIBE", d.base)) // open by now
}

// linkOnly opens to nobody who is here.
type linkOnly struct{}

func (linkOnly) Allow(string, stream.Credentials) error { return stream.ErrLinkOnly }

func TestWhereOnlyALinkOpensNobodyIsAskedForAPassword(t *testing.T) {
	addr, audience := guarded(t)
	audience.SetDoor(linkOnly{}, stream.Limits{})
	c := dial(t, addr, "main")
	if r := c.must(t, 403, "DESCRIBE", c.base); r.header.Get("WWW-Authenticate") != "" {
		t.Errorf("asks by %q", r.header.Get("WWW-Authenticate"))
	}
}

func TestLinks(t *testing.T) {
	addr, audience := guarded(t)
	c := dial(t, addr, "main")
	c.must(t, 401, "DESCRIBE", c.base+"?token=letmeout")
	r := c.must(t, 200, "DESCRIBE", c.base+"?x=1&token=letmein")
	if strings.Contains(r.body, "letmein") || strings.Contains(r.header.Get("Content-Base"), "letmein") {
		t.Error("the token is echoed")
	}
	c.must(t, 200, "SETUP", c.base+"/trackID=0", tcp)
	audience.SetDoor(guard{"venue", secret, "new"}, stream.Limits{})
	c.must(t, 401, "PLAY", c.base) // its time is over
	d := dial(t, addr, "main")
	d.must(t, 200, "SETUP", d.base+"?token=new/trackID=0", tcp)
	d.must(t, 200, "PLAY", d.base)
}

func TestFullHouse(t *testing.T) {
	enc := newFake(t, 30, 1000)
	enc.publish()
	audience := &stream.Audience{}
	audience.SetDoor(nil, stream.Limits{Total: 1})
	addr := start(t, &Server{Find: only(enc.r), Audience: audience})
	dial(t, addr, "main").play(t)
	c := dial(t, addr, "main")
	c.must(t, 200, "SETUP", c.base+"/trackID=0", tcp)
	c.must(t, 453, "PLAY", c.base)
}

func TestFFprobeKnowsThePassword(t *testing.T) {
	media := streamtest.NewMedia(t, 2*streamtest.FPS)
	r := media.Rendition(1024)
	for _, u := range media.Units {
		r.Publish(u)
	}
	r.Close()
	audience := &stream.Audience{}
	audience.SetDoor(guard{"venue", "pass", "letmein"}, stream.Limits{})
	for _, transport := range []string{"tcp", "udp"} {
		addr := start(t, &Server{Find: only(r), Audience: audience})
		for _, url := range []string{"rtsp://venue:pass@" + addr + "/" + r.Name, "rtsp://" + addr + "/" + r.Name + "?token=letmein"} {
			out := peer.Output(t, "ffprobe", "-v", "error", "-rtsp_transport", transport,
				"-show_entries", "stream=codec_name", "-of", "csv=p=0", url)
			if !strings.Contains(string(out), "h264") {
				t.Errorf("%s by %s: %q", url, transport, out)
			}
		}
	}
}

func FuzzDigest(f *testing.F) {
	f.Add(`username="a", realm="encoderd", nonce="n", uri="rtsp://h/main", response="0"`)
	f.Add(`a=b,c="\"",`)
	f.Add(`="`)
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDigest(s)
		if err == nil && d.proves("DESCRIBE", "main", "venue", "a password that nobody guesses") {
			t.Errorf("%q is let in", s)
		}
	})
}
