package dash

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/cmaf"
	"encoderd.example/stream/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A box is an encoder of tiny pictures in two renditions, and a server.
type box struct {
	*Server
	renditions   map[string]*stream.Rendition
	names        []string
	video, sound *stream.Track
	n, frames    int
	shift        time.Duration
	port         int // that get comes from, above 5000
	handler      http.Handler
}

func newBox(tb testing.TB) *box {
	tb.Helper()
	b := &box{
		renditions: map[string]*stream.Rendition{
			"main":    stream.NewRendition("main", 4096, stream.H264, stream.AAC),
			"a & b $": stream.NewRendition("a & b $", 4096, stream.H264, stream.AAC),
		},
		video: &stream.Track{Codec: stream.H264, Setup: []byte{1, 0x64, 0, 0x1f}, Width: 640, Height: 360, FPS: 25, Bitrate: 800_000},
		sound: &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2, Bitrate: 96_000},
		names: []string{"gone", "main", "a & b $"},
		shift: time.Hour,
	}
	b.Server = &Server{
		Find:     func(name string) *stream.Rendition { return b.renditions[name] },
		Names:    func() []string { return b.names },
		Segments: &cmaf.Segmenter{},
		Audience: &stream.Audience{},
	}
	b.handler = b.Handler()
	runAll(tb, b.Segments.Run, b.Run)
	over, cancel := context.WithCancel(tb.Context())
	cancel()
	other := b.Segments.Of(stream.NewRendition("other", 1, stream.H264))
	for err := cmaf.ErrStopped; errors.Is(err, cmaf.ErrStopped); runtime.Gosched() {
		_, err = other.Wait(over, cmaf.Video, func(*cmaf.Sequence) bool { return false })
	}
	return b
}

// runAll runs services until the test ends.
func runAll(tb testing.TB, services ...func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range services {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				tb.Error(err)
			}
		})
	}
	tb.Cleanup(func() { cancel(); wg.Wait() })
}

// publish publishes so many pictures of 40 ms, one in 50 a key, with sound.
func (b *box) publish(pictures int) {
	for range pictures {
		at := b.shift + time.Duration(b.n)*40*time.Millisecond
		b.all(&stream.Unit{Track: b.video, Key: b.n%50 == 0, PTS: at, DTS: at, Data: fmt.Appendf(nil, "picture %d;", b.n)})
		b.n++
		for {
			due := b.shift + time.Duration(b.frames)*1024*time.Second/48000
			if due >= at+40*time.Millisecond {
				break
			}
			b.all(&stream.Unit{Track: b.sound, PTS: due, DTS: due, Duration: 1024 * time.Second / 48000, Data: []byte("sound")})
			b.frames++
		}
	}
}

func (b *box) all(u *stream.Unit) {
	for _, r := range b.renditions {
		r.Publish(u)
	}
}

func (b *box) get(address string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, address, nil)
	r.RemoteAddr = fmt.Sprintf("10.0.0.1:%d", 5000+b.port)
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

// An mpd is a manifest as a player reads it.
type mpd struct {
	Start     string `xml:"availabilityStartTime,attr"`
	Published string `xml:"publishTime,attr"`
	Timing    struct {
		Value string `xml:"value,attr"`
	} `xml:"UTCTiming"`
	Base struct {
		Early    float64 `xml:"availabilityTimeOffset,attr"`
		Complete string  `xml:"availabilityTimeComplete,attr"`
	} `xml:"BaseURL"`
	Location string `xml:"Location"`
	Delay    string `xml:"suggestedPresentationDelay,attr"`
	Periods  []struct {
		ID    string `xml:"id,attr"`
		Start string `xml:"start,attr"`
		Sets  []struct {
			ID              string `xml:"id,attr"`
			Type            string `xml:"contentType,attr"`
			Representations []struct {
				ID       string `xml:"id,attr"`
				Codecs   string `xml:"codecs,attr"`
				Rate     string `xml:"frameRate,attr"`
				Width    int    `xml:"width,attr"`
				Template struct {
					Scale    uint64 `xml:"timescale,attr"`
					Offset   uint64 `xml:"presentationTimeOffset,attr"`
					Init     string `xml:"initialization,attr"`
					Media    string `xml:"media,attr"`
					Timeline []run  `xml:"SegmentTimeline>S"`
				} `xml:"SegmentTemplate"`
			} `xml:"Representation"`
		} `xml:"AdaptationSet"`
	} `xml:"Period"`
}

// A run is some segments of one length, one after another.
type run struct {
	Time    uint64 `xml:"t,attr"`
	Length  uint64 `xml:"d,attr"`
	Repeats int    `xml:"r,attr"`
}

func (b *box) manifest(t *testing.T, address string) (m mpd) {
	t.Helper()
	w := b.get(address)
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/dash+xml" || w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Fatalf("%s: status %d: %v %s", address, w.Code, w.Header(), w.Body)
	}
	if err := xml.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatalf("%v in\n%s", err, w.Body)
	}
	return m
}

func TestTheManifestDescribesEveryRendition(t *testing.T) {
	b := newBox(t)
	b.publish(50*3 + 13)
	m := b.manifest(t, "/live/manifest.mpd")
	if len(m.Periods) != 1 || m.Periods[0].ID != "p0" || m.Periods[0].Start != "PT0.000S" || len(m.Periods[0].Sets) != 2 {
		t.Fatalf("manifest %+v", m)
	}
	video, sound := m.Periods[0].Sets[0].Representations, m.Periods[0].Sets[1].Representations
	if len(video) != 2 || video[0].ID != "main" || video[1].ID != "a & b $" || video[0].Codecs != "avc1.64001f" || video[0].Rate != "25" || video[0].Width != 640 {
		t.Errorf("pictures %+v", video)
	}
	if len(sound) != 1 || sound[0].Codecs != "mp4a.40.2" {
		t.Errorf("sound %+v", sound)
	}
	line := video[0].Template.Timeline
	if len(line) != 1 || line[0].Time != 3600*90000 || line[0].Length != 180000 || line[0].Repeats != 3 {
		t.Errorf("timeline %+v: want three segments of 2 s and the open one", line)
	}
	if m.Base.Early != 1.79 || m.Base.Complete != "false" {
		t.Errorf("segments are announced %v s early, %s", m.Base.Early, m.Base.Complete)
	}
	if m.Delay != "PT4.000S" {
		t.Errorf("players are to be %s behind", m.Delay)
	}
	if !strings.HasPrefix(video[1].Template.Media, "a%20&%20b%20%24/dash/") {
		t.Errorf("address %s", video[1].Template.Media)
	}
}

func TestEachCodecHasASetOfItsOwn(t *testing.T) {
	b := newBox(t)
	hevc := streamtest.NewMediaH265(t, 2*streamtest.FPS)
	b.publish(120)
	source := &streamtest.Source{Media: hevc, Start: b.shift}
	b.renditions["fine"] = hevc.Rendition(1024)
	source.PublishAll(b.renditions["fine"])
	source.PublishAll(b.renditions["fine"])
	b.names = append([]string{"fine"}, b.names...)
	m := b.manifest(t, "/live/manifest.mpd")
	var sets []string
	for _, set := range m.Periods[0].Sets {
		line := set.ID + " " + set.Type
		for _, r := range set.Representations {
			codec, _, _ := strings.Cut(r.Codecs, ".")
			line += " " + codec
		}
		sets = append(sets, line)
	}
	if got := strings.Join(sets, ", "); got != "1 video avc1 avc1, 2 video hvc1, 0 audio mp4a" {
		t.Errorf("sets: %s", got)
	}
}

func TestTheManifestIsDatedByItsOwnClock(t *testing.T) {
	b := newBox(t)
	b.zero = b.zero.Add(-time.Hour) // the wall clock was set since the server began
	b.publish(120)
	m := b.manifest(t, "/live/manifest.mpd")
	published, err := time.Parse(time.RFC3339, m.Published)
	if err != nil {
		t.Fatal(err)
	}
	if off := b.zero.Add(stream.Monotonic()).Sub(published); off < -time.Millisecond || off > time.Minute {
		t.Errorf("published %v before now by /live/time", off)
	}
	for _, address := range []string{"/live/manifest.mpd", "/live/main/dash/x/video-t1.m4s", "/live/time"} {
		r := httptest.NewRequest(http.MethodOptions, address, nil)
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r)
		if w.Code != http.StatusNoContent {
			t.Errorf("OPTIONS %s: %d", address, w.Code)
		}
	}
}

func TestEveryAddressInAManifestIsServed(t *testing.T) {
	b := newBox(t)
	b.publish(50*3 + 13)
	for _, address := range []string{"/live/manifest.mpd", "/live/main/manifest.mpd"} {
		base, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		m := b.manifest(t, address)
		for _, set := range m.Periods[0].Sets {
			for _, r := range set.Representations {
				files := []string{r.Template.Init}
				for _, s := range r.Template.Timeline {
					for n := range uint64(s.Repeats + 1) {
						files = append(files, strings.ReplaceAll(r.Template.Media, "$Time$", strconv.FormatUint(s.Time+n*s.Length, 10)))
					}
				}
				for _, file := range files[:len(files)-1] { // the last is open
					to, err := base.Parse(file)
					if err != nil {
						t.Fatal(err)
					}
					if w := b.get(to.String()); w.Code != http.StatusOK || w.Body.Len() < 100 {
						t.Errorf("%s: status %d, %d bytes", to, w.Code, w.Body.Len())
					}
				}
			}
		}
		to, err := base.Parse(m.Timing.Value)
		if err != nil {
			t.Fatal(err)
		}
		w := b.get(to.String())
		now, err := time.Parse(time.RFC3339Nano, w.Body.String())
		zero, err2 := time.Parse(time.RFC3339Nano, m.Start)
		if err != nil || err2 != nil || (now.Sub(zero)-stream.Monotonic()).Abs() > time.Second {
			t.Errorf("the clock says %v, %v; the media clock's zero is %v, %v", now, err, zero, err2)
		}
	}
	if n := len(b.Audience.Viewers()); n != 1 {
		t.Errorf("%d viewers", n)
	}
}

// Who loads the manifest again from where the first one said stays who it is,
// with what it showed; who comes anew is another.
func TestManifestsSayWhereTheyAreLoadedAgain(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	b.Audience.SetDoor(door{}, stream.Limits{})
	of := func(m mpd) string { return m.Periods[0].Sets[0].Representations[0].Template.Media }
	for _, address := range []string{"/live/manifest.mpd", "/live/main/manifest.mpd"} {
		base, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		first := b.manifest(t, address+"?token=open")
		again, err := base.Parse(first.Location)
		if err != nil || again.Path != address {
			t.Fatalf("loaded again from %q, %v", first.Location, err)
		}
		b.port++ // another connection
		if m := b.manifest(t, again.String()); of(m) != of(first) || m.Location != first.Location {
			t.Errorf("%s: another visit: %s, then %s", address, of(first), of(m))
		}
		b.port++
		if m := b.manifest(t, address+"?token=open"); of(m) == of(first) {
			t.Errorf("%s: a newcomer is taken for who is here", address)
		}
		if w := b.get(address + "?visit=forged"); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: a visit that is none opens: %d", address, w.Code)
		}
	}
}

func TestAnOpenSegmentIsSentPartByPart(t *testing.T) {
	b := newBox(t)
	b.publish(50 + 13)
	web := httptest.NewServer(b.handler)
	defer web.Close()
	defer web.CloseClientConnections()
	base := web.URL + "/live/main/"
	r, err := http.Get(base + "manifest.mpd")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r.Body)
	r.Body.Close()
	var m mpd
	if err := errors.Join(err, xml.Unmarshal(text, &m)); err != nil {
		t.Fatal(err)
	}
	template := m.Periods[0].Sets[0].Representations[0].Template
	open := template.Timeline[0].Time + uint64(template.Timeline[0].Repeats)*template.Timeline[0].Length
	r, err = http.Get(base + strings.ReplaceAll(template.Media, "$Time$", strconv.FormatUint(open, 10)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body := bufio.NewReader(r.Body)
	until := func(picture int) {
		t.Helper()
		want := fmt.Sprintf("picture %d;", picture)
		for got := ""; !strings.HasSuffix(got, want); {
			more, err := body.ReadString(';')
			if err != nil {
				t.Fatalf("%v before %s", err, want)
			}
			got += more
		}
	}
	until(59) // two parts of five are there
	for n := 64; n < 100; n += 5 {
		b.publish(5)
		until(n)
	}
	if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
		t.Errorf("%d bytes after the last picture, %v", len(rest), err)
	}
}

func TestANewHeaderBeginsAPeriod(t *testing.T) {
	b := newBox(t)
	b.publish(100)
	b.video = &stream.Track{Codec: stream.H264, Setup: []byte{1, 0x4d, 0, 0x1f}, Width: 640, Height: 360, FPS: 25}
	b.publish(60)
	m := b.manifest(t, "/live/main/manifest.mpd")
	if len(m.Periods) != 2 || m.Periods[1].ID != "p3604000" || m.Periods[1].Start != "PT3604.000S" {
		t.Fatalf("periods %+v", m.Periods)
	}
	for _, set := range m.Periods[1].Sets {
		tmpl := set.Representations[0].Template
		if tmpl.Offset != 3604*tmpl.Scale || tmpl.Timeline[0].Time != tmpl.Offset {
			t.Errorf("%s: %+v", set.Type, tmpl)
		}
	}
	st := b.Segments.Of(b.renditions["main"])
	last := st.Latest(cmaf.Video).Last().Number
	for n := range uint64(12) { // until the first period has gone
		b.publish(50)
		if _, err := st.Wait(t.Context(), cmaf.Video, func(s *cmaf.Sequence) bool { return s.Has(last+n, -1) }); err != nil {
			t.Fatal(err)
		}
	}
	if m = b.manifest(t, "/live/main/manifest.mpd"); len(m.Periods) != 1 || m.Periods[0].ID != "p3604000" {
		t.Errorf("periods %+v", m.Periods)
	}
}

// The media clock goes on meanwhile, and players need no period for it.
func TestMissingPicturesAreNoPeriod(t *testing.T) {
	b := newBox(t)
	b.publish(100)
	b.shift += 2 * time.Second
	b.publish(60)
	if m := b.manifest(t, "/live/main/manifest.mpd"); len(m.Periods) != 1 || m.Periods[0].ID != "p0" {
		t.Errorf("periods %+v", m.Periods)
	}
}

// Who has loaded a segment to its end looks for the next one at once, and what
// was told of its beginning must hold.
func TestTheNextSegmentIsListedWhenOneEnds(t *testing.T) {
	b := newBox(t)
	b.publish(51) // the next one's key picture ends a segment, and is in no part yet
	b.manifest(t, "/live/main/manifest.mpd")
	st := b.Segments.Of(b.renditions["main"])
	last := st.Latest(cmaf.Video).Last().Number
	told := make(map[uint64]bool)
	for n := range uint64(6) {
		b.publish(50)
		for _, medium := range []cmaf.Medium{cmaf.Video, cmaf.Sound} {
			if _, err := st.Wait(t.Context(), medium, func(s *cmaf.Sequence) bool { return s.Has(last+n+1, -1) }); err != nil {
				t.Fatal(err)
			}
		}
		m := b.manifest(t, "/live/main/manifest.mpd")
		for _, set := range m.Periods[0].Sets {
			template := set.Representations[0].Template
			list := times(template.Timeline)
			next, end := list[len(list)-1].Time, list[len(list)-1].Time+list[len(list)-1].Length
			if now := (3600 + 2*(n+2)) * template.Scale; set.Type == "video" && (next > now || end <= now) {
				t.Errorf("the newest segment is told from %d to %d, but it is %d", next, end, now)
			}
			if set.Type == "video" && n > 0 && !told[next] {
				t.Errorf("the segment at %d was told to begin elsewhere: %v", next, told)
			}
			told[end] = told[end] || set.Type == "video"
		}
	}
}

// Key pictures may follow one another soon, as when the camera takes the
// slate's place before anybody asks. FFmpeg would turn round in one place if two
// segments began in the same second.
func TestNoTwoSegmentsBeginInOneSecond(t *testing.T) {
	b := newBox(t)
	for _, pictures := range []int{8, 50, 5, 50, 12, 13, 50} {
		b.shift += time.Duration(b.n) * 40 * time.Millisecond
		b.n, b.frames = 0, 0
		b.publish(pictures)
	}
	for _, set := range b.manifest(t, "/live/main/manifest.mpd").Periods[0].Sets {
		template := set.Representations[0].Template
		list := times(template.Timeline)
		if len(list) < 4 {
			t.Errorf("%s: %d segments", set.Type, len(list))
		}
		for i := 1; i < len(list); i++ {
			if one, two := list[i-1].Time, list[i].Time; one/template.Scale == two/template.Scale {
				t.Errorf("%s: segments begin at %d and %d of %d a second", set.Type, one, two, template.Scale)
			}
		}
	}
}

// times lists every segment of a timeline.
func times(line []run) (list []run) {
	for _, s := range line {
		for n := range uint64(s.Repeats + 1) {
			list = append(list, run{Time: s.Time + n*s.Length, Length: s.Length})
		}
	}
	return list
}

// GStreamer's demuxers wait for hours unless a timeline begins at zero; others
// are confused by that.
func TestOnlyGStreamersTimelinesBeginAtZero(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	for agent, want := range map[string]bool{"GStreamer souphttpsrc 1.22.0 libsoup/3.2.3": true, "Lavf/59.27.100": false, "VLC/3.0.23 LibVLC/3.0.23": false, "": false} {
		r := httptest.NewRequest(http.MethodGet, "/live/main/manifest.mpd", nil)
		r.Header.Set("User-Agent", agent)
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r)
		if got := strings.Count(w.Body.String(), `<SegmentTimeline><S t="0" d="1"/><S t="`); (got == 2) != want || got == 1 {
			t.Errorf("%q: %d timelines begin at zero", agent, got)
		}
	}
}

func TestAManifestIsMadeOnceForEachSegment(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	made := func() *string {
		b.manifest(t, "/live/manifest.mpd")
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, m := range b.manifests {
			return &m.pieces[0]
		}
		return nil
	}
	first := made()
	b.publish(10)
	if made() != first {
		t.Error("made anew for a part")
	}
	st := b.Segments.Of(b.renditions["main"])
	last := st.Latest(cmaf.Video).Last().Number
	b.publish(40)
	if _, err := st.Wait(t.Context(), cmaf.Video, func(s *cmaf.Sequence) bool { return s.Has(last+1, 0) }); err != nil {
		t.Fatal(err)
	}
	if made() == first {
		t.Error("not made anew for a segment")
	}
}

// door lets in who shows the token "open".
type door struct{}

func (door) Allow(_ string, c stream.Credentials) error {
	switch {
	case c.Empty():
		return stream.ErrLocked
	case c.Token == "open":
		return nil
	default:
		return stream.ErrDenied
	}
}

func TestBadRequestsAreAnsweredClearly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		for _, address := range []string{"/live/manifest.mpd", "/live/main/manifest.mpd"} {
			if w := b.get(address); w.Code != http.StatusServiceUnavailable {
				t.Errorf("%s before the encoder began: %d", address, w.Code)
			}
		}
		b.publish(120)
		media := b.manifest(t, "/live/main/manifest.mpd").Periods[0].Sets[0].Representations[0].Template.Media
		folder := "/live/main/" + media[:strings.LastIndex(media, "/")]
		for address, want := range map[string]int{
			"/live/none/manifest.mpd":                404,
			"/live/main/dash/NOBODY/video-t0.m4s":    404,
			folder + "/video-t0.m4s":                 404,
			folder + "/video-t99999999999999999.m4s": 404,
			folder + "/video-tx.m4s":                 404,
			folder + "/other":                        404,
			"/live/":                                 404,
		} {
			if w := b.get(address); w.Code != want {
				t.Errorf("%s: status %d, want %d", address, w.Code, want)
			}
		}
		b.Audience.SetDoor(door{}, stream.Limits{})
		for query, want := range map[string]int{"": 401, "?token=forged": 403, "?token=open": 200} {
			for _, address := range []string{"/live/manifest.mpd", "/live/main/manifest.mpd"} {
				if w := b.get(address + query); w.Code != want || strings.Contains(w.Body.String(), "token=") {
					t.Errorf("%s%s: status %d, want %d", address, query, w.Code, want)
				}
			}
		}
	})
}

func TestFrameRatesAreFractions(t *testing.T) {
	for fps, want := range map[float64]string{25: "25", 30: "30", 29.97: "30000/1001", 30000. / 1001: "30000/1001", 59.94: "60000/1001", 12.5: "12500/1000", 0: "25"} {
		if got := frameRate(fps); got != want {
			t.Errorf("%v: %s, want %s", fps, got, want)
		}
	}
}

func TestFFprobeGetsEveryUnitOnceAndInOrder(t *testing.T) {
	m := streamtest.NewMedia(t, 4*streamtest.FPS)
	r := m.Rendition(2048)
	s := &Server{
		Find:     func(string) *stream.Rendition { return r },
		Names:    func() []string { return []string{r.Name} },
		Segments: &cmaf.Segmenter{},
	}
	source := &streamtest.Source{Media: m, Start: stream.Monotonic() - 2*m.Length()}
	source.PublishAll(r)
	source.PublishAll(r)
	runAll(t, s.Segments.Run, s.Run, func(ctx context.Context) error {
		source.Run(ctx, r)
		return nil
	})
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	m.CheckLive(t, web.URL+"/live/manifest.mpd", 6)
}

func FuzzRequests(f *testing.F) {
	b := newBox(f)
	b.publish(120)
	for _, seed := range []string{"main/manifest.mpd?token=x", "manifest.mpd", "main/dash/x/video-t1.m4s", "time"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, query, _ := strings.Cut(target, "?")
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/live/" + path, RawQuery: query}, Header: http.Header{}, RemoteAddr: "10.0.0.1:1"}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nobody waits here
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r.WithContext(ctx))
		if w.Code < 200 || w.Code > 503 {
			t.Errorf("status %d", w.Code)
		}
	})
}
