package rtsp

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/h265"
)

func TestTarget(t *testing.T) {
	tests := []struct{ url, name, control, base string }{
		{"rtsp://box/main", "main", "", "rtsp://box/main/"},
		{"rtsp://box:8554/main/", "main", "", "rtsp://box:8554/main/"},
		{"rtsp://box/main/trackID=1", "main", "trackID=1", "rtsp://box/main/"},
		{"rtsp://box/main/trackID=1/", "main", "trackID=1", "rtsp://box/main/"},
		{"rtsp://box/main?a=b/trackID=0", "main", "trackID=0", "rtsp://box/main/"},
		{"rtsp://u:p@box/a/b", "a/b", "", "rtsp://box/a/b/"},
		{"rtsp://[2001:db8::1]:554/main", "main", "", "rtsp://[2001:db8::1]:554/main/"},
		{"rtsps://box/h%C3%A4user", "häuser", "", "rtsps://box/h%C3%A4user/"},
	}
	for _, tt := range tests {
		req, err := readRequest(bufio.NewReaderSize(strings.NewReader("PLAY "+tt.url+" RTSP/1.0\r\n\r\n"), maxLine))
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		name, control := req.target()
		if name != tt.name || control != tt.control || req.base() != tt.base {
			t.Errorf("%s: %q, %q, %q", tt.url, name, control, req.base())
		}
	}
}

func TestChooseTransport(t *testing.T) {
	peer := netip.MustParseAddr("192.0.2.7")
	ports := func(a, b uint16) transport { return transport{delivery: udp, ports: [2]uint16{a, b}} }
	groups := transport{delivery: multicast}
	tests := []struct {
		name, header string
		want         transport
		ok           bool
	}{
		{"tcp", "RTP/AVP/TCP;unicast;interleaved=0-1", transport{}, true},
		{"tcp in small letters", "rtp/avp/tcp", transport{}, true},
		{"udp", "RTP/AVP;unicast;client_port=5000-5001", ports(5000, 5001), true},
		{"udp by its long name", "RTP/AVP/UDP;unicast;client_port=5000-5001;mode=PLAY", ports(5000, 5001), true},
		{"udp with one port", "RTP/AVP;unicast;client_port=5000", ports(5000, 5001), true},
		{"udp, unicast forgotten", "RTP/AVP;client_port=5000-5001", ports(5000, 5001), true},
		{"quoted mode", `RTP/AVP;unicast;client_port=5000-5001;mode="PLAY"`, ports(5000, 5001), true},
		{"to the peer itself", "RTP/AVP;unicast;destination=192.0.2.7;client_port=5000-5001", ports(5000, 5001), true},
		{"secured, over tcp", "RTP/SAVP/TCP;unicast", transport{secure: true}, true},
		{"secured", "RTP/SAVP;unicast;client_port=1-2", transport{delivery: udp, secure: true, ports: [2]uint16{1, 2}}, true},
		{"secured to a group", "RTP/SAVP;multicast", transport{delivery: multicast, secure: true}, true},
		{"first that fits", "RTP/SAVPF;unicast, RTP/AVP;unicast;client_port=1-2, RTP/AVP/TCP", ports(1, 2), true},
		{"to somebody else", "RTP/AVP;unicast;destination=192.0.2.8;client_port=5000-5001", transport{}, false},
		{"to a name", "RTP/AVP;unicast;destination=victim;client_port=5000-5001", transport{}, false},
		{"udp without ports", "RTP/AVP;unicast", transport{}, false},
		{"port zero", "RTP/AVP;unicast;client_port=0-1", transport{}, false},
		{"port beyond the last", "RTP/AVP;unicast;client_port=70000-70001", transport{}, false},
		{"multicast", "RTP/AVP;multicast;client_port=5000-5001", groups, true},
		{"multicast with wishes", "RTP/AVP/UDP;multicast;ttl=9;port=5000-5001", groups, true},
		{"multicast to a wish", "RTP/AVP;multicast;destination=239.0.0.1", transport{}, false},
		{"multicast over tcp", "RTP/AVP/TCP;multicast", transport{}, false},
		{"nothing said", "RTP/AVP", groups, true},
		{"recording", "RTP/AVP/TCP;unicast;mode=record", transport{}, false},
		{"empty", "", transport{}, false},
		{"too many to look at", strings.Repeat("x,", maxTransports) + "RTP/AVP/TCP", transport{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := chooseTransport(tt.header, func(transport) bool { return true }, peer); got != tt.want || ok != tt.ok {
				t.Errorf("got %+v, %v; want %+v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
	if _, ok := chooseTransport("RTP/AVP;unicast;client_port=5000-5001", func(t transport) bool { return t.delivery != udp }, peer); ok {
		t.Error("udp was chosen by a server that has none")
	}
}

func TestOneVideoAndOneSoundAreOffered(t *testing.T) {
	video, sound := fakeTracks(t)
	opus := &stream.Track{Codec: stream.Opus, Channels: 2}
	got := playable([]*stream.Track{video, sound, opus})
	if !slices.Equal(got, []*stream.Track{video, sound}) {
		t.Errorf("offered %v", got)
	}
	sdp, err := describe("x", []*stream.Track{opus}, netip.MustParseAddr("2001:db8::1"), time.Unix(7, 0), [2]string{})
	want := "v=0\r\no=- 7 7 IN IP6 2001:db8::1\r\ns=x\r\nc=IN IP6 ::\r\nt=0 0\r\na=tool:encoderd\r\na=range:npt=now-\r\na=control:*\r\n" +
		"m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=fmtp:97 sprop-stereo=1;stereo=1\r\na=control:trackID=1\r\n"
	if sdp != want || err != nil {
		t.Errorf("got %v\n%s\nwant\n%s", err, sdp, want)
	}
}

func TestHEVCIsDescribedWithItsParameterSets(t *testing.T) {
	var sets [3][]byte
	for i, s := range []string{
		"40010c01ffff01600000030090000003000003001eba0240",
		"42010101600000030090000003000003001ea02083165ba4a4c270168080000003008000000784",
		"4401c0718112",
	} {
		set, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		sets[i] = set
	}
	setup, err := h265.ConfigRecord(sets[0], sets[1], sets[2])
	if err != nil {
		t.Fatal(err)
	}
	rtpmap, fmtp, err := encoding(&stream.Track{Codec: stream.H265, Setup: setup})
	const want = "sprop-vps=QAEMAf//AWAAAAMAkAAAAwAAAwAeugJA" +
		";sprop-sps=QgEBAWAAAAMAkAAAAwAAAwAeoCCDFlukpMJwFoCAAAADAIAAAAeE" +
		";sprop-pps=RAHAcYES"
	if rtpmap != "H265/90000" || fmtp != want || err != nil {
		t.Errorf("got %s %s, %v\nwant %s", rtpmap, fmtp, err, want)
	}
	if _, _, err := encoding(&stream.Track{Codec: stream.H265, Setup: setup[:30]}); err == nil {
		t.Error("half a setup was described")
	}
}

func TestResponseBytes(t *testing.T) {
	res := answer(200, "Public: OPTIONS")
	res.body = "v=0"
	want := "RTSP/1.0 200 OK\r\nCSeq: 5\r\nServer: encoderd\r\nPublic: OPTIONS\r\nContent-Length: 3\r\n\r\nv=0"
	if got := string(res.marshal("5")); got != want {
		t.Errorf("got %q", got)
	}
}

// FuzzReadRequest checks that whatever is taken is bounded and can be echoed
// without breaking the framing of a response.
func FuzzReadRequest(f *testing.F) {
	for _, s := range []string{
		"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
		"SETUP rtsp://u:p@h:1/a?b/trackID=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP;unicast;client_port=1-2,RTP/AVP/TCP\r\nSession: x;timeout=3\r\n\r\n",
		"SET_PARAMETER rtsp://h/a RTSP/1.0\nContent-Length: 3\nA: 1\nA: 2\n\nabc",
		"DESCRIBE rtsp://h/%0d%0aX: RTSP/1.0\r\nRequire: a\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	peer := netip.MustParseAddr("192.0.2.7")
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := readRequest(bufio.NewReaderSize(bytes.NewReader(data), maxLine))
		if err != nil {
			return
		}
		if len(req.header) > maxHeaders || req.body > maxBody || req.url.User != nil {
			t.Errorf("took %+v", req)
		}
		for _, echo := range []string{req.base(), req.cseq(), req.header["Require"]} {
			if strings.ContainsAny(echo, "\r\n") {
				t.Errorf("%q would break a response", echo)
			}
		}
		req.target()
		req.sessionID()
		if tr, ok := chooseTransport(req.header["Transport"], func(transport) bool { return true }, peer); ok && tr.delivery == udp && (tr.ports[0] == 0 || tr.ports[1] == 0) {
			t.Errorf("chose %+v", tr)
		}
	})
}

// FuzzConn throws bytes at a whole connection.
func FuzzConn(f *testing.F) {
	f.Add([]byte("DESCRIBE rtsp://h/main RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x00\x00\x01xOPTIONS * RTSP/1.0\r\nCSeq: 2\r\n\r\n"))
	f.Add([]byte("SETUP rtsp://h/main/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP\r\n\r\nTEARDOWN * RTSP/1.0\r\nCSeq: 2\r\nSession: x\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		enc := newFake(t, 30, 500)
		enc.publish()
		ln := newPipeListener()
		stop := run(t, &Server{Listener: ln, TCPOnly: true, Find: only(enc.r), limits: limits{tracks: time.Millisecond}})
		c := ln.dial(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := c.br.Discard(1); err != nil {
					return
				}
			}
		}()
		c.nc.Write(data)
		c.nc.Close()
		<-done
		stop()
	})
}
