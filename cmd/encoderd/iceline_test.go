package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pion/webrtc/v4"

	"encoderd.example/daemon/status"
)

// A wire stands between a WebRTC player and the box's TCP port (RFC 4571: two
// bytes of length before each packet), and spoils what goes over it.
type wire struct {
	spoil  spoiler
	door   net.Listener
	deaf   atomic.Bool // nothing of what the box says is read
	passed atomic.Int64
	wg     sync.WaitGroup

	mu   sync.Mutex
	ends []net.Conn
}

// A spoiler gets a packet of the player's and returns what becomes of it.
type spoiler func(packet []byte) (instead [][]byte)

// What kind of packet it is, by its first byte (RFC 7983).
func isSTUN(p []byte) bool { return p[0] < 4 }
func isDTLS(p []byte) bool { return p[0] >= 20 && p[0] < 64 }

func asItIs(p []byte) [][]byte { return [][]byte{p} }

// mute makes lines that open and then say nothing of keys.
func mute(p []byte) [][]byte {
	if isDTLS(p) {
		return nil
	}
	return [][]byte{p}
}

// flood says each word of ICE a hundred times.
func flood(p []byte) (many [][]byte) {
	many = append(many, p)
	for isSTUN(p) && len(many) < 100 {
		many = append(many, p)
	}
	return many
}

// stretch opens a wire to the box.
func (v venue) stretch(t *testing.T, spoil spoiler) *wire {
	t.Helper()
	door, err := new(net.ListenConfig).Listen(t.Context(), "tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{spoil: spoil, door: door}
	w.wg.Go(func() {
		for {
			player, err := door.Accept()
			if err != nil {
				return
			}
			box, err := net.Dial("tcp", v.webrtc)
			if err != nil {
				t.Error(err)
				return
			}
			_ = box.(*net.TCPConn).SetReadBuffer(2 << 10)
			w.mu.Lock()
			w.ends = append(w.ends, player, box)
			w.mu.Unlock()
			w.wg.Go(func() { w.forth(box, player) })
			w.wg.Go(func() { w.back(player, box) })
		}
	})
	t.Cleanup(w.cut)
	return w
}

// forth carries what the player says to the box.
func (w *wire) forth(box io.Writer, player io.Reader) {
	head := make([]byte, 2)
	for {
		if _, err := io.ReadFull(player, head); err != nil {
			return
		}
		packet := make([]byte, binary.BigEndian.Uint16(head))
		if _, err := io.ReadFull(player, packet); err != nil || len(packet) == 0 {
			return
		}
		for _, p := range w.spoil(packet) {
			if _, err := box.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...)); err != nil {
				return
			}
		}
	}
}

// back carries what the box says to the player, until the wire is deaf.
func (w *wire) back(player io.Writer, box io.Reader) {
	buf := make([]byte, 2<<10)
	for !w.deaf.Load() {
		n, err := box.Read(buf)
		if err != nil {
			return
		}
		w.passed.Add(int64(n))
		if _, err := player.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (w *wire) cut() {
	_ = w.door.Close()
	w.mu.Lock()
	for _, nc := range w.ends {
		_ = nc.(*net.TCPConn).SetLinger(0)
		_ = nc.Close()
	}
	w.mu.Unlock()
	w.wg.Wait()
}

// call has a player of the least kind connect by TCP over the wire, and returns
// it. It hangs up with the test.
func (v venue) call(t *testing.T, w *wire) *webrtc.PeerConnection {
	t.Helper()
	var settings webrtc.SettingEngine
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	settings.SetIncludeLoopbackCandidate(true)
	engine := &webrtc.MediaEngine{}
	if err := engine.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	offered, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.SetLocalDescription(offered); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post("http://"+v.web+"/live/main/whep", "application/sdp", strings.NewReader(offered.SDP))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s, %v", resp.Status, answer, err)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: w.divert(t, v, string(answer))}); err != nil {
		t.Fatal(err)
	}
	return pc
}

// divert returns an answer that names the wire instead of the box's port.
func (w *wire) divert(t *testing.T, v venue, answer string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(v.webrtc)
	if err != nil {
		t.Fatal(err)
	}
	mine := strconv.Itoa(w.door.Addr().(*net.TCPAddr).Port)
	diverted := strings.ReplaceAll(answer, " "+port+" typ host tcptype", " "+mine+" typ host tcptype")
	if diverted == answer {
		t.Fatalf("no TCP in\n%s", answer)
	}
	return diverted
}

// block has players come over TCP that take nothing, that stay half open, and
// that flood the box with words of ICE; and strangers that do so without an
// offer.
func block(t *testing.T, v venue) {
	t.Helper()
	const each = 4
	var wires []*wire
	for _, spoil := range []spoiler{asItIs, mute, flood} {
		for range each {
			w := v.stretch(t, spoil)
			v.call(t, w)
			wires = append(wires, w)
		}
		first := wires[len(wires)-each]
		v.until("the box to answer", func(status.Box) bool { return first.passed.Load() > 0 })
	}
	asleep := wires[:each]
	v.until("pictures on each line", func(status.Box) bool {
		for _, w := range asleep {
			if w.passed.Load() < 50_000 {
				return false
			}
		}
		return true
	})
	for _, w := range asleep {
		w.deaf.Store(true)
	}
	v.rant(t)
	v.frames(60)
	for _, w := range wires {
		w.cut()
	}
}

// rant says words of ICE on many lines that nobody offered.
func (v venue) rant(t *testing.T) {
	t.Helper()
	request := make([]byte, 2, 2+20+4+8)
	request = append(request, 0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42) // a binding request of RFC 8489
	request = append(request, make([]byte, 12)...)
	request = append(request, 0, 6, 0, 8) // by this name
	request = append(request, "nobody:x"...)
	binary.BigEndian.PutUint16(request, uint16(len(request)-2))
	for range 50 {
		nc := come(t, v.webrtc, "")
		if _, err := nc.Write([]byte(strings.Repeat(string(request), 500))); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Log("hung up on: ", err)
		}
		_ = nc.(*net.TCPConn).SetLinger(0)
		nc.Close()
	}
}
