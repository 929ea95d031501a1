package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib"
	"github.com/bluenviron/gortmplib/pkg/codecs"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/yuv"
	"encoderd.example/stream"
	"encoderd.example/stream/h265"
)

// x265 is an encoder of H.265 for boards: a process of ffmpeg for each.
func x265() hw.EncoderDriver {
	return hw.EncoderDriver{Name: "x265", Codecs: []stream.Codec{stream.H265}, Open: openX265}
}

// x265Depth is how many pictures may be inside.
const x265Depth = 8

type x265Encoder struct {
	cfg    hw.EncoderConfig
	cmd    *exec.Cmd
	raw    io.WriteCloser
	inside chan *hw.Frame
	stamps chan time.Duration // of pictures that ffmpeg has
	coded  chan *stream.Unit
	ended  chan struct{}
	work   sync.WaitGroup

	mu    sync.Mutex
	stats hw.EncoderStats
}

func openX265(c hw.EncoderConfig) (hw.Encoder, error) {
	e := &x265Encoder{
		cfg: c, inside: make(chan *hw.Frame, x265Depth), stamps: make(chan time.Duration, 8*x265Depth),
		coded: make(chan *stream.Unit, 8*x265Depth), ended: make(chan struct{}),
	}
	e.cmd = exec.Command("ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", fmt.Sprintf("%dx%d", c.Width, c.Height),
		"-framerate", fmt.Sprintf("%d/%d", c.FPS.Num, c.FPS.Den), "-i", "-", "-c:v", "libx265", "-preset", "ultrafast", "-tune", "zerolatency", "-x265-params",
		fmt.Sprintf("log-level=error:keyint=%d:min-keyint=%d:scenecut=0:open-gop=0:aud=1:repeat-headers=1:pools=1:frame-threads=1:bitrate=%d", c.GOP, c.GOP, c.Bitrate/1000),
		"-flush_packets", "1", "-f", "hevc", "-")
	var out io.Reader
	var err error
	if e.raw, err = e.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if out, err = e.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	e.work.Go(e.write)
	e.work.Go(func() { e.read(out) })
	return e, nil
}

func (e *x265Encoder) Submit(f *hw.Frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case e.inside <- f.Retain():
		e.stats.Submitted++
		return nil
	default:
		f.Release()
		e.stats.Dropped++
		return hw.ErrBusy
	}
}

// write feeds ffmpeg.
func (e *x265Encoder) write() {
	defer e.raw.Close()
	for {
		select {
		case f := <-e.inside:
			err := e.feed(f)
			f.Release()
			if err != nil {
				return
			}
		case <-e.ended:
			return
		}
	}
}

func (e *x265Encoder) feed(f *hw.Frame) error {
	c, err := yuv.New(f.Mode, hw.Mode{Pixel: hw.I420, Width: e.cfg.Width, Height: e.cfg.Height})
	if err != nil {
		return err
	}
	p, err := c.Convert(f)
	if err != nil {
		return err
	}
	e.stamps <- f.Stamp
	for i, plane := range p.Planes {
		width, lines := e.cfg.Width, e.cfg.Height
		if i > 0 {
			width, lines = width/2, lines/2
		}
		for y := range lines {
			if _, err := e.raw.Write(plane.Data[y*plane.Stride:][:width]); err != nil {
				return err
			}
		}
	}
	return nil
}

// read cuts what ffmpeg writes at the delimiter before each picture.
func (e *x265Encoder) read(out io.Reader) {
	defer close(e.coded)
	delimiter := []byte{0, 0, 0, 1, h265.TypeAUD << 1, 1}
	var data []byte
	var track *stream.Track
	buf := make([]byte, 64<<10)
	for {
		n, err := out.Read(buf)
		if err != nil {
			return
		}
		data = append(data, buf[:n]...)
		for len(data) > len(delimiter) {
			end := bytes.Index(data[len(delimiter):], delimiter)
			if end < 0 {
				break
			}
			end += len(delimiter)
			u := e.unit(data[len(delimiter):end], &track)
			data = bytes.Clone(data[end:])
			e.coded <- u
		}
	}
}

// unit makes a unit of one picture's NAL units.
func (e *x265Encoder) unit(data []byte, track **stream.Track) *stream.Unit {
	u := &stream.Unit{PTS: <-e.stamps}
	u.DTS = u.PTS
	sets := map[byte][]byte{}
	for nal := range h265.AnnexB(data) {
		sets[h265.Type(nal)] = nal
		u.Data = h265.AppendNAL(u.Data, nal)
	}
	if *track == nil {
		setup, err := h265.ConfigRecord(sets[h265.TypeVPS], sets[h265.TypeSPS], sets[h265.TypePPS])
		if err != nil {
			panic(err)
		}
		*track = &stream.Track{Codec: stream.H265, Setup: setup, Width: e.cfg.Width, Height: e.cfg.Height, FPS: e.cfg.FPS.Float(), Bitrate: e.cfg.Bitrate}
	}
	u.Track, u.Key = *track, h265.IsKey(u.Data)
	return u
}

func (e *x265Encoder) Next(ctx context.Context) (*stream.Unit, error) {
	select {
	case u, ok := <-e.coded:
		if !ok {
			return nil, io.EOF
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.stats.Coded++
		return u, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (e *x265Encoder) SetBitrate(int) error { return nil }
func (e *x265Encoder) ForceKey()            {}

func (e *x265Encoder) Stats() hw.EncoderStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

func (e *x265Encoder) Close() error {
	close(e.ended)
	_ = e.cmd.Process.Kill()
	go func() {
		for range e.coded { // so that read gets rid of what it has
		}
	}()
	e.work.Wait()
	_ = e.cmd.Wait() // killed
	for {
		select {
		case f := <-e.inside:
			f.Release()
		default:
			return nil
		}
	}
}

// TestH265IsServedByWhatCarriesIt goes all the way, from the software board's
// camera to players that others wrote.
func TestH265IsServedByWhatCarriesIt(t *testing.T) {
	v := open(t, settings{rendition: "codec = \"h265\"\n"})
	board := softwareBoard(t)
	board.Encoders = append(board.Encoders, x265())
	v.runInside(board)
	v.until("H.265", func(b status.Box) bool { return onDuty(b) && b.Renditions[0].Codec == "h265" })
	v.frames(60)
	addresses := v.addresses("main")
	for _, unfit := range []string{"RTMP", "RTMPS", "HTTP-FLV"} { // ffmpeg before 6.1 knows no Enhanced RTMP
		delete(addresses, unfit)
	}
	t.Run("players", func(t *testing.T) {
		for name, input := range addresses {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				v.in(t).keepsAll(t, name, "aac hevc", input)
			})
		}
	})
	t.Run("lists", func(t *testing.T) {
		for _, path := range []string{"/live/main/index.m3u8", "/live/main/manifest.mpd"} {
			if code, body := v.overTCP(http.MethodGet, path); code != http.StatusOK || !containsAll(string(body), "hvc1.1.", "mp4a.40.2") {
				t.Errorf("%s: %d, %s", path, code, body)
			}
		}
	})
	t.Run("Enhanced RTMP, gortmplib", func(t *testing.T) { v.playsEnhanced(t) })
	t.Run("Enhanced FLV", func(t *testing.T) { v.flvOfH265(t) })
	t.Run("refused in words", func(t *testing.T) {
		refused(t, "rtmp://"+v.rtmp+"/live/main", "H.265")
		p := newPage(t)
		p.Show(p.url)
		answer := p.Eval(fmt.Sprintf(`(async () => {
  const peer = new RTCPeerConnection();
  peer.addTransceiver('video', { direction: 'recvonly' });
  await peer.setLocalDescription();
  const answer = await fetch('http://%s/live/main/whep', { method: 'POST', body: peer.localDescription.sdp, headers: { 'Content-Type': 'application/sdp' } });
  return answer.status + ' ' + await answer.text();
})()`, v.web))
		if text, _ := answer.(string); !strings.HasPrefix(text, "400 ") || !strings.Contains(text, "h265") {
			t.Errorf("a browser without H.265 is told %q", answer)
		}
	})
	t.Run("still", func(t *testing.T) { v.still(t, time.Second) })
}

// playsEnhanced wants pictures by RTMP for a player that says that it knows
// H.265.
func (v venue) playsEnhanced(t *testing.T) {
	t.Helper()
	u, err := url.Parse("rtmp://" + v.rtmp + "/live#main")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := &gortmplib.Client{URL: u}
	if err := c.Initialize(ctx); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rd := &gortmplib.Reader{Conn: c}
	if err := rd.Initialize(); err != nil {
		t.Fatal(err)
	}
	pictures := 0
	last := time.Duration(-1)
	for _, track := range rd.Tracks() {
		if _, ok := track.Codec.(*codecs.H265); !ok {
			rd.OnDataMPEG4Audio(track, func(time.Duration, []byte) {})
			continue
		}
		rd.OnDataH265(track, func(pts, _ time.Duration, _ [][]byte) {
			if pts <= last {
				t.Errorf("a picture of %v comes after that of %v", pts, last)
			}
			last = pts
			pictures++
		})
	}
	for pictures < 60 {
		if err := rd.Read(); err != nil {
			t.Fatalf("after %d pictures: %v", pictures, err)
		}
	}
}

// flvOfH265 wants Enhanced FLV: a tag whose first byte is 9x (a key picture by
// FourCC) or 8x, and hvc1.
func (v venue) flvOfH265(t *testing.T) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+v.web+"/live/main.flv", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head := make([]byte, 16<<10)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(head, []byte("FLV\x01\x05")) || !bytes.Contains(head, []byte("\x90hvc1")) || !bytes.Contains(head, []byte("\x91hvc1")) {
		t.Errorf("no sequence start and no key picture of hvc1 in %x…", head[:64])
	}
}
