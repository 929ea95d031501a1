package rtmp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/daemon/supervise"
	"encoderd.example/stream"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pushing is a push that runs beside the test.
type pushing struct {
	last   atomic.Pointer[stream.PushReport]
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, p stream.Push, src *stream.Rendition) *pushing {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &pushing{cancel: cancel, done: make(chan error, 1)}
	r.last.Store(&stream.PushReport{})
	go func() { r.done <- p.Run(ctx, src, func(pr stream.PushReport) { r.last.Store(&pr) }) }()
	t.Cleanup(cancel)
	return r
}

// stop ends the push and wants a clean goodbye in time.
func (r *pushing) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		if err != nil {
			t.Fatalf("the end was not clean: %v", err)
		}
	case <-time.After(goodbyeTime + time.Second):
		t.Fatal("the push does not end")
	}
}

func (r *pushing) confirmed() bool { return r.last.Load().State == stream.PushConfirmed }

func (r *pushing) sent(n uint64) func() bool { return func() bool { return r.last.Load().Sent >= n } }

func open(t *testing.T, cfg Config) *Push {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// bytesOf is what a push counts as sent for whole rounds of media.
func bytesOf(units []*stream.Unit) (n uint64) {
	for _, u := range units {
		n += uint64(len(u.Data)) + 2
		if u.Track.Codec == stream.H264 {
			n += 3
		}
	}
	return n
}

// complete compares what a peer wrote down with what was sent.
func complete(t *testing.T, file string, m *streamtest.Media) {
	t.Helper()
	if got, want := peer.PictureMD5(t, file), peer.PictureMD5(t, m.File); !slices.Equal(got, want) {
		t.Errorf("%d pictures came through, %d were sent, and they are not the same", len(got), len(want))
	}
	got, want := len(peer.SoundMD5(t, file)), 0
	for _, u := range m.Units {
		if u.Track.Codec == stream.AAC && u.DTS < m.Length() {
			want++
		}
	}
	if got != want {
		t.Errorf("%d frames of sound came through, %d were sent", got, want)
	}
	streams := peer.Probe(t, file)
	i := slices.IndexFunc(streams, func(s peer.Stream) bool { return s.Type == "video" })
	j := slices.IndexFunc(streams, func(s peer.Stream) bool { return s.Type == "audio" })
	if len(streams) != 2 || i < 0 || j < 0 {
		t.Fatalf("streams: %+v", streams)
	}
	if v := streams[i]; v.Codec != "h264" || v.Width != streamtest.Width || v.Height != streamtest.Height {
		t.Errorf("picture: %+v", v)
	}
	if a := streams[j]; a.Codec != "aac" || a.SampleRate != "48000" || a.Channels != 2 {
		t.Errorf("sound: %+v", a)
	}
}

// sendAll pushes one round of media, no unit left out. The source waits until
// the push has sent the first picture: a push enters at the latest key.
func sendAll(t *testing.T, p *Push, m *streamtest.Media) *pushing {
	t.Helper()
	src := m.Rendition(4096)
	r := start(t, p, src)
	units := (&streamtest.Source{Media: m, Start: stream.Monotonic()}).Round()
	publish := func(us []*stream.Unit) {
		for _, u := range us {
			src.Publish(u)
		}
	}
	publish(units[:2])
	peer.Await(t, "the first picture to be sent", r.sent(1))
	publish(units[2:])
	peer.Await(t, "everything to be sent", r.sent(bytesOf(units)))
	if got := r.last.Load(); got.Sent != bytesOf(units) || got.Lost != 0 {
		t.Errorf("sent %d of %d bytes, lost %d units", got.Sent, bytesOf(units), got.Lost)
	}
	return r
}

func TestNginxRecordsEveryUnitOnce(t *testing.T) {
	m := streamtest.NewMedia(t, 250)
	n := peer.StartNginx(t)
	r := sendAll(t, open(t, Config{URL: n.URL("live"), Key: "canary"}), m)
	peer.Await(t, "confirmation", r.confirmed)
	r.stop(t)
	complete(t, recording(t, n, 1), m)
}

func TestFFmpegGetsEveryUnitOnce(t *testing.T) {
	m := streamtest.NewMedia(t, 100)
	f := peer.StartFFmpegRTMP(t)
	r := sendAll(t, open(t, Config{URL: f.URL, Key: f.Key}), m)
	r.stop(t)
	if err := f.Wait(t); err != nil {
		t.Errorf("ffmpeg ended with %v", err)
	}
	complete(t, f.File, m)
}

// recording stops nginx, so that its files are whole, and returns number n.
func recording(t *testing.T, n *peer.Nginx, number int) string {
	t.Helper()
	peer.Await(t, "the end of the recording", func() bool { return strings.Count(n.Log(), "deleteStream") >= 1 })
	n.Kill()
	files := n.Recordings(t)
	if len(files) != number {
		t.Fatalf("recordings: %v", files)
	}
	return files[number-1]
}

func TestRTMPSGoesThroughTLS(t *testing.T) {
	m := streamtest.NewMedia(t, 50)
	n := peer.StartNginx(t)
	address, roots := startTLS(t, n.Address)
	p := open(t, Config{URL: "rtmps://" + address + "/live", Key: "canary", TLS: &tls.Config{RootCAs: roots}})
	r := sendAll(t, p, m)
	r.stop(t)
	complete(t, recording(t, n, 1), m)
}

func TestRTMPSRefusesAnUnknownCertificate(t *testing.T) {
	address, _ := startTLS(t, peer.FreeAddress(t))
	src := knownTracks(t)
	err := open(t, Config{URL: "rtmps://" + address + "/live", Key: "canary"}).Run(t.Context(), src, func(stream.PushReport) {})
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok || errors.Is(err, stream.ErrRefused) {
		t.Errorf("got %v", err)
	}
}

// What people complain about most: after a reconnect there is no sound.
func TestAServerThatComesBackGetsHeadersAndSoundAgain(t *testing.T) {
	m := streamtest.NewMedia(t, 50)
	n := peer.StartNginx(t)
	src := m.Rendition(256)
	ctx, cancel := context.WithCancel(context.Background())
	var group supervise.Group
	var running sync.WaitGroup
	running.Go(func() { (&streamtest.Source{Media: m, Start: stream.Monotonic()}).Run(ctx, src) })
	var last atomic.Pointer[stream.PushReport]
	last.Store(&stream.PushReport{})
	p := open(t, Config{URL: n.URL("live"), Key: "canary"})
	group.Apply(ctx, []supervise.Service{{Name: "push", Run: func(ctx context.Context, live func()) error {
		return p.Run(ctx, src, func(r stream.PushReport) {
			last.Store(&r)
			if r.State >= stream.PushSending {
				live()
			}
		})
	}}})
	defer running.Wait()
	defer cancel()
	enough := func() bool { return last.Load().State >= stream.PushSending && last.Load().Sent > 200_000 }
	peer.Await(t, "the first connection", enough)
	n.Kill()
	peer.Await(t, "the loss to be seen", func() bool { return last.Load().State == stream.PushConnecting })
	n.Restart(t)
	peer.Await(t, "the second connection", enough)
	group.Apply(ctx, nil)
	second := recording(t, n, 2)
	pictures, sounds := len(peer.PictureMD5(t, second)), len(peer.SoundMD5(t, second))
	if pictures < 2*streamtest.GOP || sounds < pictures {
		t.Errorf("after the restart: %d pictures, %d frames of sound", pictures, sounds)
	}
}

func TestNginxThatRefusesIsAnErrorWithoutTheKey(t *testing.T) {
	n := peer.StartNginx(t)
	src := knownTracks(t)
	err := open(t, Config{URL: n.URL("deny"), Key: "canary"}).Run(t.Context(), src, func(stream.PushReport) {})
	if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "stream key") {
		t.Errorf("got %v", err)
	}
}

func TestNginxTellsThatTheKeyIsInUse(t *testing.T) {
	m := streamtest.NewMedia(t, 25)
	n := peer.StartNginx(t)
	cfg := Config{URL: n.URL("live"), Key: "canary"}
	r := sendAll(t, open(t, cfg), m)
	src := knownTracks(t)
	err := open(t, cfg).Run(t.Context(), src, func(stream.PushReport) {})
	if err == nil || errors.Is(err, stream.ErrRefused) || !strings.Contains(err.Error(), "still holds") {
		t.Errorf("got %v", err)
	}
	r.stop(t)
}

// knownTracks is a rendition whose tracks are known, without media to speak of.
func knownTracks(t *testing.T) *stream.Rendition {
	t.Helper()
	src := stream.NewRendition("test", 16, stream.H264, stream.AAC)
	src.Publish(&stream.Unit{Track: &stream.Track{Codec: stream.H264, Setup: []byte{1}}, Key: true, Data: []byte{0, 0, 0, 1, 0x65}})
	src.Publish(&stream.Unit{Track: &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}}, Data: []byte{1}})
	return src
}

// certificate is one for this machine, and what trusts it.
func certificate(t *testing.T) (cert tls.Certificate, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// startTLS puts TLS before a server, with a certificate for 127.0.0.1 that
// only the returned roots know.
func startTLS(t *testing.T, backend string) (address string, roots *x509.CertPool) {
	t.Helper()
	cert, roots := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { forward(c, backend) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String(), roots
}

// forward copies both ways until either side ends.
func forward(front net.Conn, backend string) {
	defer front.Close()
	if err := front.(*tls.Conn).Handshake(); err != nil {
		return
	}
	back, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	defer back.Close()
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(back, front); back.(*net.TCPConn).CloseWrite() })
	wg.Go(func() { io.Copy(front, back); front.Close() })
	wg.Wait()
}
