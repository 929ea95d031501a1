package rtsp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"encoderd.example/stream"
	media "encoderd.example/stream/rtp"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

// certificate returns one that nobody vouches for.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// secured starts a server that speaks TLS.
func secured(t *testing.T, srv *Server) (addr string) {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Listener = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	run(t, srv)
	return ln.Addr().String()
}

func TestGortsplibSecured(t *testing.T) {
	for name, protocol := range map[string]gortsplib.Protocol{"tcp": gortsplib.ProtocolTCP, "udp": gortsplib.ProtocolUDP} {
		t.Run(name, func(t *testing.T) {
			enc := newFake(t, 30, 20_000)
			audience := &stream.Audience{}
			audience.SetDoor(guard{"venue", "pass", ""}, stream.Limits{})
			addr := secured(t, &Server{Find: only(enc.r), Audience: audience})
			enc.live(t, 10*time.Millisecond)
			for range 2 { // the second one comes when the first is gone: other sources, other keys
				readSecured(t, "rtsps://venue:pass@"+addr+"/main", protocol)
				until(t, "nobody", func() bool { return len(audience.Viewers()) == 0 })
			}
		})
	}
}

// readSecured plays until enough packets of all kinds were understood.
func readSecured(t *testing.T, url string, protocol gortsplib.Protocol) {
	t.Helper()
	u, err := base.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	var lost, bad, packets, reports atomic.Uint64
	c := gortsplib.Client{
		Scheme: "rtsps", Host: u.Host, Protocol: &protocol, TLSConfig: &tls.Config{InsecureSkipVerify: true},
		OnPacketsLost: func(n uint64) { lost.Add(n) },
		OnDecodeError: func(err error) { bad.Add(1); t.Log(err) },
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	desc, _, err := c.Describe(u)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range desc.Medias {
		if m.Profile != 1 || m.KeyMgmtMikey == nil { // RTP/SAVP
			t.Errorf("description offers %+v", m)
		}
	}
	if err := c.SetupAll(desc.BaseURL, desc.Medias); err != nil {
		t.Fatal(err)
	}
	c.OnPacketRTPAny(func(*description.Media, format.Format, *rtp.Packet) { packets.Add(1) })
	c.OnPacketRTCPAny(func(_ *description.Media, p rtcp.Packet) {
		if _, ok := p.(*rtcp.SenderReport); ok {
			reports.Add(1)
		}
	})
	if _, err := c.Play(nil); err != nil {
		t.Fatal(err)
	}
	until(t, "packets and reports", func() bool { return packets.Load() > 1000 && reports.Load() > 1 })
	if lost.Load()+bad.Load() > 0 {
		t.Errorf("%d packets lost, %d not understood", lost.Load(), bad.Load())
	}
}

func TestFFprobeOverTLS(t *testing.T) { // it knows no SRTP: plain media within TLS
	show := streamtest.NewMedia(t, 3*streamtest.FPS)
	r := show.Rendition(1024)
	audience := &stream.Audience{}
	addr := secured(t, &Server{Find: only(r), Audience: audience})
	wg := publish(t, r, show.Units, func() bool { return len(audience.Viewers()) == 1 })
	out := peer.Output(t, "ffprobe", "-v", "error", "-rtsp_transport", "tcp", "-show_entries", "packet=stream_index", "-of", "csv=p=0", "rtsps://"+addr+"/"+r.Name)
	wg.Wait()
	if n := strings.Count("\n"+string(out), "\n0"); n != 3*streamtest.FPS {
		t.Errorf("got %d pictures, want %d", n, 3*streamtest.FPS)
	}
}

func TestGStreamerSecured(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		t.Run(protocol, func(t *testing.T) {
			show := streamtest.NewMedia(t, 4*streamtest.FPS)
			r := show.Rendition(1024)
			audience := &stream.Audience{}
			addr := secured(t, &Server{Find: only(r), Audience: audience})
			wg := publish(t, r, show.Units, func() bool { return len(audience.Viewers()) == 1 })
			out := peer.Output(t, "gst-launch-1.0", "-v", "rtspsrc", "location=rtsps://"+addr+"/"+r.Name, "protocols="+protocol, "tls-validation-flags=0", "latency=0", "name=src",
				"src.", "!", "application/x-rtp,media=video", "!", "rtph264depay", "!", "h264parse", "!", "avdec_h264", "!", "identity", "silent=false", "!", "fakesink", "sync=false")
			wg.Wait()
			if n := strings.Count(string(out), "GstIdentity:identity0: last-message = chain"); n < 3*streamtest.FPS {
				t.Errorf("decoded %d pictures, want %d at least: %.3000s", n, 3*streamtest.FPS, out)
			}
		})
	}
}

func TestNothingLeavesTLSInTheClear(t *testing.T) {
	enc := newFake(t, 30, 1000)
	enc.publish()
	addr := secured(t, &Server{Find: only(enc.r), Multicast: true})
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	nc, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc, "rtsps://"+addr+"/main")
	for _, line := range []string{"RTP/AVP;unicast;client_port=40000-40001", "RTP/AVP;multicast", "RTP/SAVP;multicast"} {
		c.must(t, 461, "SETUP", c.base+"/trackID=0", "Transport: "+line)
	}
	c.must(t, 200, "SETUP", c.base+"/trackID=0", "Transport: RTP/AVP/TCP;unicast")
	c.must(t, 461, "SETUP", c.base+"/trackID=1", "Transport: RTP/SAVP/TCP;unicast") // one session, one way

	plain := dial(t, start(t, &Server{Find: only(enc.r)}), "main")
	for _, line := range []string{"RTP/SAVP;unicast;client_port=40000-40001", "RTP/SAVP/TCP;unicast"} { // who would hand the key out?
		plain.must(t, 461, "SETUP", plain.base+"/trackID=0", "Transport: "+line)
	}
}

// The feed goes on for players over TCP while nobody wants it sealed.
func TestNoPacketIsSealedUnderTheIndexOfAnother(t *testing.T) {
	enc := newFake(t, 1, 60_000)
	tracks, _ := enc.r.Tracks()
	if tracks[0] == nil {
		enc.publish()
		tracks, _ = enc.r.Tracks()
	}
	var fs feeds
	f, release, err := fs.open(enc.r, tracks, &service{Server: &Server{}, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	plain, leave := f.Watch(t.Context()) // a player over TCP
	defer leave()
	next := func() *media.Batch {
		t.Helper()
		b, err := plain.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var last *media.Batch
	for last == nil || last.Rolls[media.Video] < 2 || last.Seq[media.Video] < 1000 {
		sealed, err := func() (*media.Batch, error) {
			if last != nil && last.Rolls[media.Video] == 1 {
				return nil, nil // nobody wants it sealed for a whole round
			}
			rd, leave, err := f.watchSealed(t.Context())
			if err != nil {
				return nil, err
			}
			defer leave()
			enc.publish()
			return rd.Next(t.Context())
		}()
		if err != nil {
			t.Fatal(err)
		}
		if sealed == nil {
			enc.publish()
		}
		last = next()
		for last.At == 0 || !last.Key {
			last = next()
		}
		if sealed != nil {
			understood(t, f, sealed)
		}
	}
}

// understood opens a batch as a player does who was just told the key.
func understood(t *testing.T, f *feed, b *media.Batch) {
	t.Helper()
	s, err := f.sealed()
	if err != nil {
		t.Fatal(err)
	}
	c, err := srtp.CreateContext(s.key[:masterKeySize], s.key[masterKeySize:], srtp.ProtectionProfileAes128CmHmacSha1_80)
	if err != nil {
		t.Fatal(err)
	}
	c.SetROC(f.packer.SSRC(media.Video), b.Rolls[media.Video])
	for channel, packet := range b.Packets(media.Set(0).With(media.Video)) {
		if channel != 0 {
			continue
		}
		if _, err := c.DecryptRTP(nil, packet, nil); err != nil {
			t.Fatalf("round %d, number %d: %v", b.Rolls[media.Video], b.Seq[media.Video], err)
		}
	}
}

func TestSecuredGoodbye(t *testing.T) {
	enc := newFake(t, 30, 1000)
	enc.publish()
	f := &feeds{}
	tracks, _ := enc.r.Tracks()
	of, release, err := f.open(enc.r, tracks, &service{Server: &Server{}})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	s := &session{feed: of, secure: true}
	one, err := s.bye()
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.bye()
	if err != nil {
		t.Fatal(err)
	}
	both := media.Set(0).With(media.Video).With(media.Sound)
	if string(one.Bytes(both)) == string(two.Bytes(both)) {
		t.Error("two packets were sealed under one index")
	}
}
