package rtsp

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

func TestRequestsInEveryOrder(t *testing.T) {
	enc := newFake(t, 30, 1000)
	for range 40 {
		enc.publish()
	}
	addr := start(t, &Server{Find: only(enc.r)})
	video, whole := "rtsp://"+addr+"/main/trackID=0", "rtsp://"+addr+"/main"
	const udp = "Transport: RTP/AVP;unicast;client_port=40000-40001"
	type step struct {
		method, url string
		header      []string
		want        int
	}
	setup := step{"SETUP", video, []string{tcp}, 200}
	tests := []struct {
		name  string
		steps []step
	}{
		{"options tell all methods", []step{{"OPTIONS", whole, nil, 200}, {"OPTIONS", "*", nil, 200}}},
		{"a whole life, twice", []step{
			setup,
			{"PLAY", whole, nil, 200},
			{"PAUSE", whole, nil, 200},
			{"PLAY", whole, nil, 200},
			{"TEARDOWN", whole, nil, 200},
			setup,
			{"PLAY", whole, nil, 200},
			{"TEARDOWN", whole, nil, 200},
		}},
		{"unknown name", []step{{"DESCRIBE", "rtsp://" + addr + "/nobody", nil, 404}, {"SETUP", "rtsp://" + addr + "/nobody/trackID=0", []string{tcp}, 404}}},
		{"unknown track", []step{{"SETUP", whole + "/trackID=7", []string{tcp}, 404}, {"DESCRIBE", video, nil, 404}}},
		{"set up the whole at once", []step{{"SETUP", whole, []string{tcp}, 459}}},
		{"two renditions in one session", []step{setup, {"SETUP", "rtsp://" + addr + "/other/trackID=1", []string{tcp}, 459}}},
		{"control behind a query", []step{{"SETUP", whole + "?low=1/trackID=1", []string{tcp}, 200}}},
		{"control with a slash behind", []step{{"SETUP", whole + "/trackID=1/", []string{tcp}, 200}}},
		{"play before set up", []step{{"PLAY", whole, nil, 454}}},
		{"pause before set up", []step{{"PAUSE", whole, nil, 454}}},
		{"tear down before set up", []step{{"TEARDOWN", whole, nil, 454}}},
		{"pause before play", []step{setup, {"PAUSE", whole, nil, 455}}},
		{"play twice", []step{setup, {"PLAY", whole, nil, 200}, {"PLAY", whole, nil, 200}}},
		{"set up while playing", []step{setup, {"PLAY", whole, nil, 200}, {"SETUP", whole + "/trackID=1", []string{tcp}, 455}}},
		{"keep-alive in every state", []step{
			{"GET_PARAMETER", whole, nil, 200}, setup, {"SET_PARAMETER", whole, nil, 200}, {"PLAY", whole, nil, 200}, {"GET_PARAMETER", whole, nil, 200}, {"OPTIONS", whole, nil, 200},
		}},
		{"no transport", []step{{"SETUP", video, nil, 461}}},
		{"multicast is not offered", []step{{"SETUP", video, []string{"Transport: RTP/AVP;multicast"}, 461}}},
		{"secured media are not offered", []step{{"SETUP", video, []string{"Transport: RTP/SAVP;unicast;client_port=1-2"}, 461}}},
		{"packets for somebody else", []step{{"SETUP", video, []string{udp + ";destination=192.0.2.1"}, 461}}},
		{"second best transport", []step{{"SETUP", video, []string{"Transport: RTP/AVP;multicast,RTP/AVP/TCP;unicast"}, 200}}},
		{"two transports in one session", []step{setup, {"SETUP", whole + "/trackID=1", []string{udp}, 461}}},
		{"option that nobody knows", []step{{"OPTIONS", whole, []string{"Require: onvif-replay"}, 551}}},
		{"somebody wants to publish", []step{{"ANNOUNCE", whole, nil, 405}, {"RECORD", whole, nil, 405}}},
		{"method that nobody knows", []step{{"BREW", whole, nil, 501}}},
		{"parameter that nobody knows", []step{{"GET_PARAMETER", whole, []string{"Content-Length: 2", "", "ab"}, 451}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, addr, "main")
			for _, s := range tt.steps {
				r, err := c.do(s.method, s.url, s.header...)
				if err != nil {
					t.Fatalf("%s: %v", s.method, err)
				}
				if r.status != s.want {
					t.Fatalf("%s %s: status %d, want %d", s.method, s.url, r.status, s.want)
				}
				if s.method == "TEARDOWN" {
					c.session = ""
				}
			}
		})
	}
}

func TestSessionIsWorthNothingElsewhere(t *testing.T) {
	enc := newFake(t, 30, 1000)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	owner, thief := dial(t, addr, "main"), dial(t, addr, "main")
	owner.must(t, 200, "SETUP", owner.base+"/trackID=0", tcp)
	thief.session = owner.session
	thief.must(t, 454, "PLAY", thief.base)
	thief.must(t, 454, "TEARDOWN", thief.base)
	thief.session = ""
	thief.must(t, 200, "SETUP", thief.base+"/trackID=0", tcp)
	thief.session = owner.session
	thief.must(t, 454, "PLAY", thief.base)
	owner.must(t, 200, "PLAY", owner.base)
}

func TestDescription(t *testing.T) {
	enc := newFake(t, 30, 1000)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	c := dial(t, addr, "main")
	r := c.must(t, 200, "DESCRIBE", "rtsp://user:canary@"+addr+"/main?x=1")
	if got, want := r.header.Get("Content-Base"), "rtsp://"+addr+"/main/"; got != want {
		t.Errorf("base %q, want %q", got, want)
	}
	for _, want := range []string{
		"o=- ", " IN IP4 127.0.0.1\r\n", "a=range:npt=now-\r\n", "a=control:*\r\n",
		"m=video 0 RTP/AVP 96\r\nb=AS:1000\r\na=rtpmap:96 H264/90000\r\n",
		"a=fmtp:96 packetization-mode=1;profile-level-id=42C01E;sprop-parameter-sets=Z0LAHtkAoC/5YQAAAwABAAADADwPFi5I,aMuMsg==\r\n",
		"a=framerate:30\r\na=control:trackID=0\r\n",
		"m=audio 0 RTP/AVP 97\r\nb=AS:128\r\na=rtpmap:97 mpeg4-generic/48000/2\r\n",
		"a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190\r\na=control:trackID=1\r\n",
	} {
		if !strings.Contains(r.body, want) {
			t.Errorf("description lacks %q:\n%s", want, r.body)
		}
	}
}

func TestDescribeWaitsForTheEncoder(t *testing.T) {
	enc := newFake(t, 30, 1000)
	addr := start(t, &Server{Find: only(enc.r), limits: limits{tracks: 50 * time.Millisecond}})
	c := dial(t, addr, "main")
	c.must(t, 503, "DESCRIBE", c.base)
	enc.publish()
	c.must(t, 200, "DESCRIBE", c.base)
}

func TestPlayBeginsWithTheCachedKeyPicture(t *testing.T) {
	enc := newFake(t, 30, 3000)
	for range 45 { // the second group is fifteen pictures old
		enc.publish()
	}
	addr := start(t, &Server{Find: only(enc.r)})
	c := dial(t, addr, "main")
	c.must(t, 200, "SETUP", c.base+"/trackID=0", tcp)
	c.must(t, 200, "SETUP", c.base+"/trackID=1", "Transport: RTP/AVP/TCP;unicast;interleaved=8-9")
	r := c.must(t, 200, "PLAY", c.base)
	var channels []byte
	for range 4 {
		f, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		channels = append(channels, f.channel)
		if len(channels) == 3 && (f.packet[12]&0x1f != 24 || f.packet[15]&0x1f != h264.TypeSPS) {
			t.Errorf("first packet is of type %d, want parameter sets", f.packet[12]&0x1f)
		}
		if len(channels) == 4 {
			if f.packet[12]&0x1f != 28 || f.packet[13]&0x9f != 0x80|h264.TypeIDR || binary.BigEndian.Uint32(f.packet[14:]) != 30 {
				t.Errorf("second packet begins % x, want the start of key picture 30", f.packet[12:18])
			}
		}
	}
	if want := "\x03\x01\x00\x00"; string(channels) != want {
		t.Errorf("channels %v, want both reports and then the picture", channels)
	}
	if info := r.header.Get("RTP-Info"); strings.Count(info, "seq=") != 2 || !strings.Contains(info, "url="+c.base+"/trackID=1;") {
		t.Errorf("RTP-Info is %q", info)
	}
}

func TestRTPInfoTellsTheFirstPacket(t *testing.T) {
	enc := newFake(t, 30, 3000)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	c := dial(t, addr, "main")
	c.must(t, 200, "SETUP", c.base+"/trackID=0", tcp)
	for range 3 {
		r := c.must(t, 200, "PLAY", c.base)
		info := r.header.Get("RTP-Info")
		f, err := c.frame()
		for err == nil && f.channel != 0 {
			f, err = c.frame()
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]uint32{
			";seq=":     uint32(binary.BigEndian.Uint16(f.packet[2:])),
			";rtptime=": binary.BigEndian.Uint32(f.packet[4:]),
		} {
			if got := number(t, info, name); got != want {
				t.Errorf("%s%d, but the first packet has %d", name, got, want)
			}
		}
		c.must(t, 200, "PAUSE", c.base)
		c.frames = nil
	}
}

func number(t *testing.T, text, name string) (n uint32) {
	t.Helper()
	_, rest, ok := strings.Cut(text, name)
	if !ok {
		t.Fatalf("%q has no %s", text, name)
	}
	for _, d := range rest {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + uint32(d-'0')
	}
	return n
}

func TestPausedMeansSilent(t *testing.T) {
	enc := newFake(t, 10, 1000)
	audience := &stream.Audience{}
	addr := start(t, &Server{Find: only(enc.r), Audience: audience})
	enc.live(t, 5*time.Millisecond)
	c := dial(t, addr, "main")
	c.play(t)
	if _, err := c.frame(); err != nil {
		t.Fatal(err)
	}
	c.must(t, 200, "PAUSE", c.base)
	if v := audience.Viewers(); len(v) != 0 {
		t.Errorf("%d viewers while paused", len(v))
	}
	c.frames = nil
	until := enc.r.Reader()
	for range 40 { // a while, as the encoder counts it
		if _, err := until.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c.must(t, 200, "GET_PARAMETER", c.base)
	if len(c.frames) > 0 {
		t.Errorf("%d packets while paused", len(c.frames))
	}
	c.must(t, 200, "PLAY", c.base)
	if f, err := c.frame(); err != nil || f.channel%2 != 1 {
		t.Errorf("after the pause came channel %d, %v; want a report", f.channel, err)
	}
}

func TestNewParameterSetsReachOldAndNewReaders(t *testing.T) {
	enc := newFake(t, 1000, 500)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	old := dial(t, addr, "main")
	old.play(t)

	changed := *enc.video
	changed.Setup = append([]byte(nil), changed.Setup...)
	changed.Setup[len(changed.Setup)-1]++
	enc.video = &changed
	enc.n = 1000 // a key picture
	enc.publish()

	_, pps, err := h264.ParameterSets(changed.Setup)
	if err != nil {
		t.Fatal(err)
	}
	for found := false; !found; {
		f, err := old.frame()
		if err != nil {
			t.Fatal(err)
		}
		found = f.channel == 0 && strings.Contains(string(f.packet), string(pps))
	}
	late := dial(t, addr, "main")
	if r := late.must(t, 200, "DESCRIBE", late.base); !strings.Contains(r.body, ",aMuMsw==") {
		t.Errorf("new description has the old parameters:\n%s", r.body)
	}
}

func TestNewSoundEndsSessions(t *testing.T) {
	enc := newFake(t, 30, 500)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	c := dial(t, addr, "main")
	c.play(t)
	changed := *enc.sound
	changed.Rate = 44100
	enc.sound = &changed
	enc.publish()
	sawGoodbye(t, c, 2)
	again := dial(t, addr, "main")
	if r := again.must(t, 200, "DESCRIBE", again.base); !strings.Contains(r.body, "mpeg4-generic/44100") {
		t.Errorf("new description has the old rate:\n%s", r.body)
	}
	again.play(t)
}

// sawGoodbye reads to the end of the stream, which must come after n BYEs.
func sawGoodbye(t *testing.T, c *client, n int) {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	byes := 0
	for {
		f, err := c.frame()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.channel%2 == 1 && f.packet[len(f.packet)-7] == 203 {
			byes++
		}
	}
	if byes != n {
		t.Errorf("%d goodbyes before the end, want %d", byes, n)
	}
}

// GStreamer pauses and tears down when the stream has ended, and takes a
// connection that is closed by then for an error.
func TestWhoIsToldTheEndMayEndItsSession(t *testing.T) {
	enc := newFake(t, 30, 500)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	c := dial(t, addr, "main")
	c.play(t)
	enc.r.Close()
	for byes := 0; byes < 2; {
		f, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		if f.channel%2 == 1 && f.packet[len(f.packet)-7] == 203 {
			byes++
		}
	}
	c.must(t, 200, "PAUSE", c.base)
	c.must(t, 200, "TEARDOWN", c.base)
	if _, err := c.frame(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want the end of the connection", err)
	}
}

func TestGoodbyes(t *testing.T) {
	t.Run("the encoder ends", func(t *testing.T) {
		enc := newFake(t, 30, 500)
		enc.publish()
		addr := start(t, &Server{Find: only(enc.r)})
		c := dial(t, addr, "main")
		c.play(t)
		enc.r.Close()
		sawGoodbye(t, c, 2)
	})
	t.Run("the server ends", func(t *testing.T) {
		enc := newFake(t, 30, 500)
		enc.publish()
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, &Server{Find: only(enc.r), Listener: ln})
		idle, c := dial(t, ln.Addr().String(), "main"), dial(t, ln.Addr().String(), "main")
		c.must(t, 200, "SETUP", c.base+"/trackID=0", tcp)
		c.must(t, 200, "PLAY", c.base)
		stop()
		sawGoodbye(t, c, 1)
		if _, err := idle.frame(); !errors.Is(err, io.EOF) {
			t.Errorf("idle connection: %v, want EOF", err)
		}
	})
}

func TestMalformedRequestsEndTheConnection(t *testing.T) {
	enc := newFake(t, 30, 500)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	tests := []struct{ name, send, want string }{
		{"browser", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "RTSP/1.0 505"},
		{"future", "OPTIONS rtsp://x/main RTSP/2.0\r\nCSeq: 1\r\n\r\n", "RTSP/1.0 505"},
		{"endless line", "OPTIONS rtsp://x/" + strings.Repeat("a", maxLine) + " RTSP/1.0\r\n\r\n", "RTSP/1.0 414"},
		{"endless header", "OPTIONS * RTSP/1.0\r\n" + strings.Repeat("A: b\r\n", maxHeaders+1), "RTSP/1.0 400"},
		{"long header", "OPTIONS * RTSP/1.0\r\n" + strings.Repeat("A: "+strings.Repeat("b", maxLine/2)+"\r\n", 2*maxHead/maxLine+1), "RTSP/1.0 400"},
		{"large body", "OPTIONS * RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n", "RTSP/1.0 413"},
		{"negative body", "OPTIONS * RTSP/1.0\r\nContent-Length: -1\r\n\r\n", "RTSP/1.0 400"},
		{"header without colon", "OPTIONS * RTSP/1.0\r\nfoo\r\n\r\n", "RTSP/1.0 400"},
		{"foreign url", "DESCRIBE http://x/main RTSP/1.0\r\nCSeq: 1\r\n\r\n", "RTSP/1.0 400"},
		{"control character", "DESCRIBE rtsp://x/\x01 RTSP/1.0\r\nCSeq: 1\r\n\r\n", "RTSP/1.0 400"},
		{"noise", "\xff\xfe\xfd\r\n\r\n", "RTSP/1.0 400"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, addr, "main")
			if _, err := c.nc.Write([]byte(tt.send)); err != nil {
				t.Fatal(err)
			}
			c.nc.SetReadDeadline(time.Now().Add(patience))
			got, err := io.ReadAll(c.br)
			if err != nil && !strings.Contains(err.Error(), "reset") {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(got), tt.want) {
				t.Errorf("answer %q, want %s", got, tt.want)
			}
		})
	}
	t.Run("missing number", func(t *testing.T) {
		c := dial(t, addr, "main")
		io.WriteString(c.nc, "OPTIONS * RTSP/1.0\r\n\r\n")
		if r, err := c.response(); err != nil || r.status != 400 {
			t.Errorf("status %d, %v; want 400", r.status, err)
		}
	})
}

func TestInterleavedReportsAndEmptyLinesAreReadPast(t *testing.T) {
	enc := newFake(t, 30, 500)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	c := dial(t, addr, "main")
	c.play(t)
	c.nc.Write([]byte("$\x01\x00\x08\x80\xc9\x00\x01\x00\x00\x00\x00\r\n$\x03\x00\x00"))
	c.must(t, 200, "GET_PARAMETER", c.base)
}

// A choppyConn writes in small pieces, as net.Conn is free to.
type choppyConn struct{ net.Conn }

func (c choppyConn) Write(b []byte) (int, error) {
	n := 0
	for piece := range slices.Chunk(b, 300) {
		m, err := c.Conn.Write(piece)
		n += m
		if err != nil {
			return n, err
		}
		runtime.Gosched()
	}
	return n, nil
}

type choppyListener struct{ net.Listener }

func (l choppyListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return choppyConn{nc}, err
}

func TestResponsesStandBetweenBatches(t *testing.T) {
	enc := newFake(t, 30, 8000)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, &Server{Find: only(enc.r), Listener: choppyListener{ln}, TCPOnly: true})
	enc.live(t, time.Millisecond)
	c := dial(t, ln.Addr().String(), "main")
	c.play(t)
	for range 200 {
		c.must(t, 200, "GET_PARAMETER", c.base)
	}
	var s tally
	for _, f := range c.frames {
		s.take(f)
	}
	if s.seen == 0 || s.gaps > 0 || s.torn > 0 {
		t.Errorf("up to picture %d: %d gaps, %d torn pictures", s.seen, s.gaps, s.torn)
	}
}

func TestSilentConnectionsAreClosed(t *testing.T) {
	tests := []struct {
		name  string
		after time.Duration
		begin func(*testing.T, *client)
	}{
		{"no request at all", firstRequestTimeout, func(*testing.T, *client) {}},
		{"request that never ends", requestTimeout, func(t *testing.T, c *client) {
			t.Helper()
			io.WriteString(c.nc, "OPTIONS rtsp://box/main RTSP/1.0\r\nCSeq: 1\r\n")
		}},
		{"one request and no more", sessionTimeout, func(t *testing.T, c *client) {
			t.Helper()
			c.must(t, 200, "OPTIONS", c.base)
		}},
		{"session that never plays", sessionTimeout, func(t *testing.T, c *client) {
			t.Helper()
			c.must(t, 200, "SETUP", c.base+"/trackID=0", tcp)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				enc := newFake(t, 30, 500)
				enc.publish()
				ln := newPipeListener()
				stop := run(t, &Server{Listener: ln, TCPOnly: true, Find: only(enc.r)})
				defer stop()
				c := ln.dial(t)
				tt.begin(t, c)
				from := time.Now()
				if _, err := io.ReadAll(c.br); err != nil {
					t.Fatal(err)
				}
				if got := time.Since(from); got != tt.after {
					t.Errorf("closed after %v, want %v", got, tt.after)
				}
			})
		})
	}
}

func TestSlowLorisGetsNoMoreThanItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enc := newFake(t, 30, 500)
		ln := newPipeListener()
		stop := run(t, &Server{Listener: ln, TCPOnly: true, Find: only(enc.r)})
		defer stop()
		c := ln.dial(t)
		from := time.Now()
		var err error
		for err == nil {
			_, err = c.nc.Write([]byte("O"))
			time.Sleep(time.Second)
		}
		if got := time.Since(from); got > requestTimeout+2*time.Second {
			t.Errorf("held a connection for %v with a byte a second", got)
		}
	})
}

func TestTCPPlayersNeedNoKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enc := newFake(t, 30, 500)
		enc.publish()
		audience := &stream.Audience{}
		ln := newPipeListener()
		stop := run(t, &Server{Listener: ln, TCPOnly: true, Find: only(enc.r), Audience: audience})
		c := ln.dial(t)
		c.play(t)
		go io.Copy(io.Discard, c.br)
		for range 10 {
			time.Sleep(time.Minute)
			enc.publish()
		}
		synctest.Wait()
		if n := len(audience.Viewers()); n != 1 {
			t.Errorf("%d viewers after ten minutes without a request, want the one", n)
		}
		stop()
	})
}

func TestDeadReaderIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enc := newFake(t, 30, 500)
		enc.publish()
		audience := &stream.Audience{}
		ln := newPipeListener()
		stop := run(t, &Server{Listener: ln, TCPOnly: true, Find: only(enc.r), Audience: audience})
		defer stop()
		c := ln.dial(t)
		c.play(t) // and reads no more: a pipe holds nothing
		time.Sleep(writeTimeout + writeTimeout/8 + goodbyeTimeout)
		synctest.Wait()
		if n := len(audience.Viewers()); n != 0 {
			t.Errorf("%d viewers after %v of silence", n, writeTimeout)
		}
	})
}

func TestServerEndsWhileAReaderIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enc := newFake(t, 30, 500)
		enc.publish()
		ln := newPipeListener()
		stop := run(t, &Server{Listener: ln, TCPOnly: true, Find: only(enc.r)})
		ln.dial(t).play(t)
		synctest.Wait()
		from := time.Now()
		stop()
		if got := time.Since(from); got > 2*time.Second {
			t.Errorf("took %v to end, want at most 2 s", got)
		}
	})
}

func TestWhoOnlyConnectsMakesRoomAndPlayersStay(t *testing.T) {
	enc := newFake(t, 30, 500)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r), MaxConnsPerIP: 5})
	var players, idle []*client
	for range 2 {
		c := dial(t, addr, "main")
		c.play(t)
		players = append(players, c)
	}
	for range 20 {
		c := dial(t, addr, "main")
		c.must(t, 200, "OPTIONS", c.base) // in, at the cost of the oldest
		idle = append(idle, c)
	}
	for _, c := range idle[:17] {
		if _, err := c.readFrame(); err == nil {
			t.Fatal("who has to make room hears something")
		}
	}
	for _, c := range idle[17:] {
		c.play(t)
		players = append(players, c)
	}
	late := dial(t, addr, "main")
	if _, err := late.do("OPTIONS", late.base); err == nil {
		t.Error("a connection too many was served")
	}
	enc.publish()
	for _, c := range players {
		if _, err := c.frame(); err != nil {
			t.Errorf("a player: %v", err)
		}
	}
	players[0].must(t, 200, "PAUSE", players[0].base) // now it only waits
	next := dial(t, addr, "main")
	next.must(t, 200, "OPTIONS", next.base)
}

func TestARefusalReachesWhoGoesOnTalking(t *testing.T) {
	enc := newFake(t, 30, 500)
	c := dial(t, start(t, &Server{Find: only(enc.r)}), "main")
	if _, err := io.WriteString(c.nc, "OPTIONS "+strings.Repeat("x", maxUnread/2)); err != nil {
		t.Fatal(err)
	}
	r, err := c.response()
	if err != nil || r.status != 414 {
		t.Errorf("got %d, %v", r.status, err)
	}
	if _, err := io.Copy(io.Discard, c.br); err != nil {
		t.Errorf("the end is %v", err)
	}
}

func TestJunkBetweenRequestsIsNoLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enc := newFake(t, 30, 500)
		ln := newPipeListener()
		run(t, &Server{Listener: ln, TCPOnly: true, Find: only(enc.r)})
		c := ln.dial(t)
		c.must(t, 200, "OPTIONS", c.base)
		for range sessionTimeout/time.Second + 2 {
			time.Sleep(time.Second)
			if _, err := c.nc.Write([]byte{'$', 0, 0, 1, 0}); err != nil {
				return
			}
		}
		t.Errorf("interleaved junk keeps a connection for more than %v", sessionTimeout)
	})
}

func TestRunTellsWhyItCannotListen(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for name, srv := range map[string]*Server{
		"port taken":     {Addr: ln.Addr().String(), TCPOnly: true},
		"packets of one": {Addr: "127.0.0.1:0", PacketSize: 1},
		"odd rtp port":   {Addr: "127.0.0.1:0", UDPPort: 45677},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := srv.Run(ctx); err == nil {
			t.Errorf("%s: no error", name)
		}
		cancel()
	}
}
