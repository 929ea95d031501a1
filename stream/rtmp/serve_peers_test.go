package rtmp

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib"
	"github.com/bluenviron/gortmplib/pkg/codecs"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

// live publishes all units: those of the first half second at once, the rest
// in real time as soon as somebody watches. Then it closes the rendition.
func live(t *testing.T, r *stream.Rendition, units []*stream.Unit, audience *stream.Audience) *sync.WaitGroup {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), peer.Patience)
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		defer r.Close()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		var begin time.Time
		for _, u := range units {
			for u.DTS-units[0].DTS > time.Second/2 && (begin.IsZero() || time.Since(begin) < u.DTS-units[0].DTS-time.Second/2) {
				if begin.IsZero() && len(audience.Viewers()) > 0 {
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

// shifted are the units of a round an hour after the start of the kernel.
func shifted(m *streamtest.Media) []*stream.Unit {
	return (&streamtest.Source{Media: m, Start: time.Hour}).Round()
}

// A probed packet is what ffprobe says about one.
type probed struct {
	Type string `json:"codec_type"`
	Time string `json:"pts_time"`
	Size string `json:"size"`
}

func (p probed) seconds(t *testing.T) float64 {
	t.Helper()
	s, err := strconv.ParseFloat(p.Time, 64)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFFprobePlaysEveryUnitOnceInStep(t *testing.T) {
	m := streamtest.NewMedia(t, 6*streamtest.FPS)
	r, audience := m.Rendition(1024), &stream.Audience{}
	addr := startServer(t, &Server{Find: only(r), Audience: audience})
	units := shifted(m)
	wg := live(t, r, units, audience)
	out := peer.Output(t, "ffprobe", "-v", "error", "-show_entries", "packet=codec_type,pts_time,size", "-of", "json", "rtmp://"+addr+"/live/"+r.Name)
	wg.Wait()
	var found struct{ Packets []probed }
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	for kind, codec := range map[string]stream.Codec{"video": stream.H264, "audio": stream.AAC} {
		got := slices.DeleteFunc(slices.Clone(found.Packets), func(p probed) bool { return p.Type != kind })
		want := slices.DeleteFunc(slices.Clone(units), func(u *stream.Unit) bool { return u.Track.Codec != codec })
		if len(got) != len(want) {
			t.Fatalf("%s: got %d packets, want %d", kind, len(got), len(want))
		}
		for i, u := range want {
			if got[i].Size != strconv.Itoa(len(u.Data)) {
				t.Fatalf("%s packet %d has %s bytes, want %d", kind, i, got[i].Size, len(u.Data))
			}
			if off := got[i].seconds(t) - (u.PTS - units[0].PTS).Seconds(); math.Abs(off) > 0.001 {
				t.Fatalf("%s packet %d is %v s off its time", kind, i, off)
			}
		}
	}
	if out := string(out); strings.Contains(out, "@setDataFrame") {
		t.Error("publishers' words go to players")
	}
}

func TestPlayersGetThePicturesThatWereSent(t *testing.T) {
	m := streamtest.NewMedia(t, 4*streamtest.FPS)
	players := map[string]func(url, file string) (string, []string){
		"ffmpeg": func(url, file string) (string, []string) {
			return "ffmpeg", []string{"-v", "warning", "-xerror", "-i", url, "-map", "0", "-c", "copy", "-y", file}
		},
		"rtmpdump": func(url, file string) (string, []string) {
			return "rtmpdump", []string{"-q", "--live", "-r", url, "-o", file}
		},
	}
	for name, command := range players {
		t.Run(name, func(t *testing.T) {
			r, audience := m.Rendition(1024), &stream.Audience{}
			audience.SetDoor(guard{}, stream.Limits{})
			addr := startServer(t, &Server{Find: only(r), Audience: audience})
			file := filepath.Join(t.TempDir(), "out.flv")
			wg := live(t, r, shifted(m), audience)
			program, args := command("rtmp://"+addr+"/live/"+r.Name+"?token=canary", file)
			p := peer.Start(t, program, args...)
			wg.Wait()
			_ = p.Wait(t) // some call the end of a live stream an error
			complete(t, file, m)
		})
	}
}

// VLC writes the file too, and leaves out the last of the sound.
func TestVLCGetsEveryPicture(t *testing.T) {
	m := streamtest.NewMedia(t, 4*streamtest.FPS)
	r, audience := m.Rendition(1024), &stream.Audience{}
	addr := startServer(t, &Server{Find: only(r), Audience: audience})
	file := filepath.Join(openDir(t), "out.flv")
	wg := live(t, r, shifted(m), audience)
	command := []string{
		"env", "HOME=" + filepath.Dir(file), "cvlc", "-q", "rtmp://" + addr + "/live/" + r.Name,
		"--sout", "#std{access=file,mux=avformat{mux=flv},dst=" + file + "}", "vlc://quit",
	}
	if os.Geteuid() == 0 { // as which VLC refuses to run
		command = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, command...)
	}
	p := peer.Start(t, command[0], command[1:]...)
	wg.Wait()
	_ = p.Wait(t)
	if got, want := peer.PictureMD5(t, file), peer.PictureMD5(t, m.File); !slices.Equal(got, want) {
		t.Errorf("%d pictures came through, %d were sent, or they are not the same", len(got), len(want))
	}
}

// openDir is a folder that every user may write to.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o777} {
		if err := os.Chmod(d, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFFmpegPlaysThroughTLS(t *testing.T) {
	m := streamtest.NewMedia(t, 2*streamtest.FPS)
	r, audience := m.Rendition(1024), &stream.Audience{}
	cert, _ := certificate(t)
	addr := startServer(t, &Server{Find: only(r), Audience: audience, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	file := filepath.Join(t.TempDir(), "out.flv")
	wg := live(t, r, shifted(m), audience)
	p := peer.Start(t, "ffmpeg", "-v", "warning", "-xerror", "-i", "rtmps://"+addr+"/live/"+r.Name, "-map", "0", "-c", "copy", "-y", file)
	wg.Wait()
	_ = p.Wait(t)
	complete(t, file, m)
}

func TestNginxPullsAndPassesOnEveryPicture(t *testing.T) {
	m := streamtest.NewMedia(t, 4*streamtest.FPS)
	r, audience := m.Rendition(1024), &stream.Audience{}
	addr := startServer(t, &Server{Find: only(r), Audience: audience})
	n := peer.StartNginxPull(t, "rtmp://"+addr+"/live/"+r.Name)
	wg := live(t, r, shifted(m), audience)
	wg.Wait()
	peer.Await(t, "nginx to end its recording", func() bool { return len(audience.Viewers()) == 0 })
	n.Kill()
	files := n.Recordings(t)
	if len(files) != 1 {
		t.Fatalf("recordings %v", files)
	}
	complete(t, files[0], m)
}

func TestGortmplibPlaysH265(t *testing.T) {
	m := streamtest.NewMediaH265(t, 4*streamtest.FPS)
	r, audience := m.Rendition(1024), &stream.Audience{}
	addr := startServer(t, &Server{Find: only(r), Audience: audience})
	wg := live(t, r, shifted(m), audience)
	u, err := url.Parse("rtmp://" + addr + "/live#" + r.Name)
	if err != nil {
		t.Fatal(err)
	}
	c := &gortmplib.Client{URL: u}
	if err := c.Initialize(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rd := &gortmplib.Reader{Conn: c}
	if err := rd.Initialize(); err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	for _, track := range rd.Tracks() {
		if _, ok := track.Codec.(*codecs.H265); !ok {
			rd.OnDataMPEG4Audio(track, func(time.Duration, []byte) {})
			continue
		}
		rd.OnDataH265(track, func(_, _ time.Duration, au [][]byte) {
			var data []byte
			for _, unit := range au {
				data = h264.AppendNAL(data, unit) // it is the same in both
			}
			got = append(got, data)
		})
	}
	for rd.Read() == nil {
	}
	wg.Wait()
	var want [][]byte
	for _, u := range m.Units {
		if u.Track.Codec == stream.H265 {
			want = append(want, u.Data)
		}
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%d pictures came through, %d were sent, or they are not the same", len(got), len(want))
	}
}
