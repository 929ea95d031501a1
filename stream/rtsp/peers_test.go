package rtsp

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

// A probed packet is what ffprobe says about one.
type probed struct {
	Stream int    `json:"stream_index"`
	Time   string `json:"pts_time"`
	Size   string `json:"size"`
}

// wantSize is the size of a picture as players get it: start codes as long as
// our length fields, and parameter sets in front of key pictures.
func wantSize(t *testing.T, u *stream.Unit) int {
	t.Helper()
	if !u.Key {
		return len(u.Data)
	}
	sps, pps, err := h264.ParameterSets(u.Track.Setup)
	if err != nil {
		t.Fatal(err)
	}
	return len(u.Data) + 8 + len(sps) + len(pps)
}

func TestFFprobeGetsEveryPictureOnceAndInOrder(t *testing.T) {
	media := streamtest.NewMedia(t, 8*streamtest.FPS)
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			r := media.Rendition(1024)
			audience := &stream.Audience{}
			addr := start(t, &Server{Find: only(r), Audience: audience, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
			var units []*stream.Unit
			for _, u := range media.Units {
				c := *u
				c.PTS, c.DTS = c.PTS+time.Hour, c.DTS+time.Hour
				if u.Track.Codec == stream.AAC {
					c.PTS += 40 * time.Millisecond // sound that is late, to be found again
				}
				units = append(units, &c)
			}
			wg := publish(t, r, units, func() bool { return len(audience.Viewers()) == 1 })
			out := peer.Output(t, "ffprobe", "-v", "error", "-rtsp_transport", transport,
				"-show_entries", "packet=stream_index,pts_time,size", "-of", "json", "rtsp://"+addr+"/"+r.Name)
			wg.Wait()
			var found struct{ Packets []probed }
			if err := json.Unmarshal(out, &found); err != nil {
				t.Fatal(err)
			}
			compare(t, units, found.Packets)
		})
	}
}

// publish publishes all units, after the first group of pictures in real time
// once somebody watches, and then closes the rendition.
func publish(t *testing.T, r *stream.Rendition, units []*stream.Unit, watched func() bool) *sync.WaitGroup {
	t.Helper()
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() { cancel(); wg.Wait() })
	first := units[0].DTS
	wg.Go(func() {
		defer r.Close()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		var begin time.Time
		for _, u := range units {
			for u.DTS-first > time.Second/2 && (begin.IsZero() || time.Since(begin) < u.DTS-first-time.Second/2) {
				if begin.IsZero() && watched() {
					begin = time.Now()
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
			r.Publish(u)
		}
	})
	return &wg
}

// compare checks sizes in order, which are as good as names, and times.
func compare(t *testing.T, units []*stream.Unit, packets []probed) {
	t.Helper()
	var want, got [2][]probed
	for _, u := range units {
		m, size := 1, len(u.Data)
		if u.Track.Codec == stream.H264 {
			m, size = 0, wantSize(t, u)
		}
		want[m] = append(want[m], probed{m, strconv.FormatFloat((u.PTS - units[0].PTS).Seconds(), 'f', 6, 64), strconv.Itoa(size)})
	}
	for _, p := range packets {
		got[p.Stream] = append(got[p.Stream], p)
	}
	offset := math.NaN() // of the player's clock, the same for both media
	for m := range want {
		if len(got[m]) != len(want[m]) || len(got[m]) == 0 {
			i := 0
			for i < min(len(got[m]), len(want[m])) && got[m][i].Size == want[m][i].Size {
				i++
			}
			t.Errorf("medium %d: got %d frames, want %d; they differ from frame %d on", m, len(got[m]), len(want[m]), i)
			continue
		}
		for i := range want[m] {
			if got[m][i].Size != want[m][i].Size {
				t.Fatalf("medium %d, frame %d: %s bytes, want %s", m, i, got[m][i].Size, want[m][i].Size)
			}
			a, _ := strconv.ParseFloat(got[m][i].Time, 64)
			b, _ := strconv.ParseFloat(want[m][i].Time, 64)
			if math.IsNaN(offset) {
				offset = a - b
			}
			if d := a - b - offset; math.Abs(d) > 0.001 {
				t.Fatalf("medium %d, frame %d: %v s off its time", m, i, d)
			}
		}
	}
}

func TestFFmpegDecodesWithoutComplaint(t *testing.T) {
	h264, h265 := streamtest.NewMedia(t, 4*streamtest.FPS), streamtest.NewMediaH265(t, 4*streamtest.FPS)
	for _, tt := range []struct {
		media     *streamtest.Media
		transport string
	}{{h264, "tcp"}, {h265, "tcp"}, {h265, "udp"}} {
		t.Run(tt.media.Video.Codec.String()+" "+tt.transport, func(t *testing.T) {
			r := tt.media.Rendition(1024)
			audience := &stream.Audience{}
			addr := start(t, &Server{Find: only(r), Audience: audience})
			wg := publish(t, r, tt.media.Units, func() bool { return len(audience.Viewers()) == 1 })
			out := peer.Output(t, "ffmpeg", "-v", "warning", "-xerror", "-rtsp_transport", tt.transport, "-i", "rtsp://"+addr+"/"+r.Name,
				"-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-")
			wg.Wait()
			comparePictures(t, out, tt.media.File)
		})
	}
}

// comparePictures compares framemd5's list of what was received with the
// pictures of a file.
func comparePictures(t *testing.T, list []byte, file string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(string(list)) {
		if !strings.HasPrefix(line, "#") {
			got = append(got, strings.TrimSpace(line[strings.LastIndex(line, ",")+1:]))
		}
	}
	want := peer.PictureMD5(t, file)
	if len(got) != len(want) {
		t.Fatalf("decoded %d pictures, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("picture %d is damaged", i)
		}
	}
}

func TestGortsplibLosesNothing(t *testing.T) {
	for name, protocol := range map[string]gortsplib.Protocol{"tcp": gortsplib.ProtocolTCP, "udp": gortsplib.ProtocolUDP} {
		t.Run(name, func(t *testing.T) {
			enc := newFake(t, 30, 20_000)
			audience := &stream.Audience{}
			addr := start(t, &Server{Find: only(enc.r), Audience: audience})
			enc.live(t, 10*time.Millisecond)

			var lost, bad, reports atomic.Uint64
			var media [2]atomic.Uint64
			c := gortsplib.Client{
				Scheme: "rtsp", Host: addr, Protocol: &protocol,
				OnPacketsLost: func(n uint64) { lost.Add(n) },
				OnDecodeError: func(err error) { bad.Add(1); t.Log(err) },
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			u, err := base.ParseURL("rtsp://" + addr + "/main")
			if err != nil {
				t.Fatal(err)
			}
			desc, _, err := c.Describe(u)
			if err != nil {
				t.Fatal(err)
			}
			var video *format.H264
			var sound *format.MPEG4Audio
			if desc.FindFormat(&video) == nil || desc.FindFormat(&sound) == nil {
				t.Fatalf("description lacks a medium: %+v", desc)
			}
			if err := c.SetupAll(desc.BaseURL, desc.Medias); err != nil {
				t.Fatal(err)
			}
			c.OnPacketRTPAny(func(_ *description.Media, f format.Format, _ *rtp.Packet) {
				media[f.PayloadType()-96].Add(1)
			})
			c.OnPacketRTCPAny(func(_ *description.Media, p rtcp.Packet) {
				if _, ok := p.(*rtcp.SenderReport); ok {
					reports.Add(1)
				}
			})
			if _, err := c.Play(nil); err != nil {
				t.Fatal(err)
			}
			until(t, "3000 video packets", func() bool { return media[0].Load() >= 3000 && media[1].Load() > 100 && reports.Load() > 2 })
			if lost.Load() > 0 || bad.Load() > 0 {
				t.Errorf("%d packets lost, %d complaints", lost.Load(), bad.Load())
			}
			v := audience.Viewers()
			if len(v) != 1 || v[0].Protocol != "rtsp/"+name || v[0].Bytes.Load() == 0 || v[0].Lost.Load() > 0 || v[0].Rendition != "main" {
				t.Errorf("audience is %+v", v)
			}
			if _, _, err := net.SplitHostPort(v[0].Peer); err != nil {
				t.Errorf("peer %q: %v", v[0].Peer, err)
			}
		})
	}
}
