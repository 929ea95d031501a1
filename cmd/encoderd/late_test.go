package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"

	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// With ten seconds from key picture to key picture, who has to wait for the
// next one would show a picture that was taken after the request.
func TestWhoComesLateGetsTheKeyPictureThatIsThere(t *testing.T) {
	v := open(t, settings{gop: "10s"})
	v.begin()
	live := "http://" + v.web + "/live/main"
	for name, ask := range map[string]func(*testing.T) []string{
		"RTSP TCP":       input("-rtsp_transport", "tcp", "-i", "rtsp://"+v.rtsp+"/main"),
		"RTSP UDP":       input("-rtsp_transport", "udp", "-i", "rtsp://"+v.rtsp+"/main"),
		"RTSP multicast": input("-rtsp_transport", "udp_multicast", "-i", "rtsp://"+v.rtsp+"/main"),
		"RTSPS":          input("-rtsp_transport", "tcp", "-i", "rtsps://"+v.rtsps+"/main"),
		"RTMP":           input("-i", "rtmp://"+v.rtmp+"/live/main"),
		"RTMPS":          input("-i", "rtmps://"+v.rtmps+"/live/main"),
		"HTTP-FLV":       input("-i", live+".flv"),
		"HTTP MPEG-TS":   input("-i", live+".ts"),
		"HTTP MP4":       input("-i", live+".mp4"),
		"HLS, segments":  v.newestSegments,
		"HLS, parts":     v.newestPart,
		"DASH, chunks":   v.newestChunk,
		"WebSocket-FLV":  v.firstMessages,
		"WebRTC":         v.firstAccessUnit,
	} {
		t.Run(name, func(t *testing.T) { older(t, ask) })
	}
}

// input is for what ffmpeg reads by itself.
func input(args ...string) func(*testing.T) []string {
	return func(*testing.T) []string { return args }
}

// older wants the first picture that somebody gets to be older than the wish
// for it. ask returns how ffmpeg is to read it. A key picture may come between
// the wish and the connection, and then the next wish tells: who has to wait for
// one gets none that is older, however often.
func older(t *testing.T, ask func(*testing.T) []string) {
	t.Helper()
	peer.Await(t, "a first picture that is older than the wish for it", func() bool {
		asked := stream.Monotonic()
		code, ok := first(t, ask(t)...)
		if !ok {
			t.Log("the slate, and no picture of the camera's")
			return false
		}
		taken := code.Clock(stream.Monotonic())
		t.Logf("picture %d, taken %v before it was asked for", code.Counter, (asked - taken).Round(time.Millisecond))
		return taken < asked
	})
}

// first returns what is burnt into the first picture of an input. On a busy
// machine the slate may stand before it, which is older still.
func first(t *testing.T, input ...string) (code picture.Code, ok bool) {
	t.Helper()
	const w, h = 320, 180
	args := append([]string{"-v", "error"}, input...)
	luma := peer.Output(t, "ffmpeg", append(args, "-map", "0:v:0", "-frames:v", "10", "-pix_fmt", "gray", "-f", "rawvideo", "-")...)
	if len(luma) == 0 || len(luma)%(w*h) != 0 {
		t.Fatalf("%d bytes, want pictures of %d", len(luma), w*h)
	}
	for p := range slices.Chunk(luma, w*h) {
		if code, ok = picture.Read(p, w, w, h); ok {
			break
		}
	}
	return code, ok
}

// kept is the input for what a test has fetched by itself.
func kept(t *testing.T, name string, data []byte) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-i", file}
}

// fetch gets what must be there.
func (v venue) fetch(t *testing.T, address string) []byte {
	t.Helper()
	code, body := v.in(t).overTCP(http.MethodGet, address)
	if code != http.StatusOK {
		t.Fatalf("%s: %d\n%s", address, code, body)
	}
	return body
}

// newestPart gets the beginning of the HLS stream for players that know of
// parts: header and the newest part that decoding can start at, which a list
// that is asked for now must hold.
func (v venue) newestPart(t *testing.T) []string {
	t.Helper()
	list := v.openHLS(t)
	part := list.all(`#EXT-X-PART:[^\n]*URI="([^"]+)"[^\n]*INDEPENDENT=YES`)
	return kept(t, "part.mp4", list.fetch(part[len(part)-1:]))
}

// newestSegments gets the end of the list for other players: header and the two
// newest segments, for the newest may be a moment of slate.
func (v venue) newestSegments(t *testing.T) []string {
	t.Helper()
	list := v.openHLS(t)
	whole := list.all(`(?m)^(video-.*\.m4s)$`)
	return kept(t, "segments.mp4", list.fetch(whole[max(len(whole)-2, 0):]))
}

// A playlist is one of HLS as it was when it was asked for.
type playlist struct {
	t    *testing.T
	v    venue
	dir  string
	text []byte
}

// openHLS gets the playlist of the picture, as a new visitor.
func (v venue) openHLS(t *testing.T) playlist {
	t.Helper()
	const root = "/live/main/"
	index := playlist{t, v, root, v.fetch(t, root+"index.m3u8")}
	address := path.Join(root, index.all(`(?m)^([^#].*video\.m3u8)$`)[0])
	return playlist{t, v, path.Dir(address) + "/", v.fetch(t, address)}
}

// all returns what matches in the list; that is something.
func (p playlist) all(pattern string) (found []string) {
	p.t.Helper()
	for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(p.text, -1) {
		found = append(found, string(m[1]))
	}
	if found == nil {
		p.t.Fatalf("no %s in\n%s", pattern, p.text)
	}
	return found
}

// fetch gets files and puts the newest header before them.
func (p playlist) fetch(files []string) (media []byte) {
	p.t.Helper()
	headers := p.all(`#EXT-X-MAP:URI="([^"]+)"`)
	for _, f := range append(headers[len(headers)-1:], files...) {
		media = append(media, p.v.fetch(p.t, p.dir+f)...)
	}
	return media
}

// newestChunk gets the beginning of the DASH stream: header and the first bytes
// of the newest segment, which may be open.
func (v venue) newestChunk(t *testing.T) []string {
	t.Helper()
	var mpd struct {
		Sets []struct {
			Content   string `xml:"contentType,attr"`
			Templates []struct {
				Header string `xml:"initialization,attr"`
				Media  string `xml:"media,attr"`
				Number int    `xml:"startNumber,attr"`
				Runs   []struct {
					Time   int `xml:"t,attr"`
					Length int `xml:"d,attr"`
					More   int `xml:"r,attr"`
				} `xml:"SegmentTimeline>S"`
			} `xml:"Representation>SegmentTemplate"`
		} `xml:"Period>AdaptationSet"`
	}
	const root = "/live/main/"
	doc := v.fetch(t, root+"manifest.mpd")
	if err := xml.Unmarshal(doc, &mpd); err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
	header, media := "", ""
	for _, set := range mpd.Sets {
		if set.Content != "video" || len(set.Templates) == 0 {
			continue
		}
		at := set.Templates[0]
		begins, number := 0, at.Number-1
		for _, run := range at.Runs {
			begins, number = run.Time+run.More*run.Length, number+1+run.More
		}
		header, media = at.Header, strings.NewReplacer("$Time$", fmt.Sprint(begins), "$Number$", fmt.Sprint(number)).Replace(at.Media)
	}
	if media == "" {
		t.Fatalf("no picture in\n%s", doc)
	}
	return kept(t, "chunk.mp4", append(v.fetch(t, root+header), v.firstChunk(t, root+media)...))
}

// firstChunk gets a segment as far as its first pictures (ISO/IEC 14496-12,
// 4.2), and does not wait for the rest.
func (v venue) firstChunk(t *testing.T, address string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.web+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", address, resp.Status)
	}
	var chunk bytes.Buffer
	for kind := ""; kind != "mdat"; {
		head := make([]byte, 8)
		if _, err := io.ReadFull(resp.Body, head); err != nil {
			t.Fatal(err)
		}
		chunk.Write(head)
		if _, err := io.CopyN(&chunk, resp.Body, int64(binary.BigEndian.Uint32(head))-8); err != nil {
			t.Fatal(err)
		}
		kind = string(head[4:])
	}
	return chunk.Bytes()
}

// firstMessages gets the first pictures by WebSocket.
func (v venue) firstMessages(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "ws://"+v.web+"/live/main.flv", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		defer resp.Body.Close()
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	var tags []byte
	for range 40 { // some pictures and their sound
		_, message, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, message...)
	}
	return kept(t, "tags.flv", tags)
}

// firstAccessUnit gets the first picture by WebRTC.
func (v venue) firstAccessUnit(t *testing.T) []string {
	t.Helper()
	var line webrtc.SettingEngine
	line.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4}) // loses nothing
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(line)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pc.GracefulClose(); err != nil {
			t.Error(err)
		}
	}()
	unit := make(chan []byte, 1)
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		if track.Kind() == webrtc.RTPCodecTypeVideo {
			unit <- accessUnit(track)
		}
	})
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	v.connect(t, pc)
	select {
	case data := <-unit:
		return kept(t, "unit.h264", data)
	case <-time.After(patience):
		t.Fatal("no picture by WebRTC")
		return nil
	}
}

// connect has a player watch by WHEP.
func (v venue) connect(t *testing.T, pc *webrtc.PeerConnection) {
	t.Helper()
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+v.web+"/live/main/whep", strings.NewReader(pc.LocalDescription().SDP))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/sdp")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s, %v: %s", resp.Status, err, answer)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(answer)}); err != nil {
		t.Fatal(err)
	}
}

// accessUnit returns the picture that a track begins with, as a byte stream.
func accessUnit(track *webrtc.TrackRemote) (unit []byte) {
	var payloads codecs.H264Packet
	for {
		p, _, err := track.ReadRTP()
		if err != nil {
			return unit
		}
		nalus, err := payloads.Unmarshal(p.Payload)
		if err != nil {
			return unit
		}
		if unit = append(unit, nalus...); p.Marker {
			return unit
		}
	}
}
