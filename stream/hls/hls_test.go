package hls

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"regexp"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A box is an encoder of tiny pictures and a server.
type box struct {
	*Server
	r            *stream.Rendition // that publish publishes into
	renditions   map[string]*stream.Rendition
	names        []string
	video, sound *stream.Track
	n, frames    int
	handler      http.Handler
}

func newBox(tb testing.TB) *box {
	tb.Helper()
	b := &box{
		r:     stream.NewRendition("main", 4096, stream.H264, stream.AAC),
		video: &stream.Track{Codec: stream.H264, Setup: []byte{1, 0x64, 0, 0x1f}, Width: 640, Height: 360, FPS: 25, Bitrate: 800_000},
		sound: &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2, Bitrate: 96_000},
	}
	b.Server = &Server{
		Find:     func(name string) *stream.Rendition { return b.renditions[name] },
		Names:    func() []string { return b.names },
		Segments: &cmaf.Segmenter{},
		Audience: &stream.Audience{},
	}
	b.renditions, b.names = map[string]*stream.Rendition{"main": b.r}, []string{"gone", "main"}
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
		at := time.Hour + time.Duration(b.n)*40*time.Millisecond
		b.r.Publish(&stream.Unit{Track: b.video, Key: b.n%50 == 0, PTS: at, DTS: at, Data: fmt.Appendf(nil, "picture %d", b.n)})
		b.n++
		for {
			due := time.Hour + time.Duration(b.frames)*1024*time.Second/48000
			if due >= at+40*time.Millisecond {
				break
			}
			b.r.Publish(&stream.Unit{Track: b.sound, PTS: due, DTS: due, Duration: 1024 * time.Second / 48000, Data: []byte("sound")})
			b.frames++
		}
	}
}

// get returns the answer to a request from 10.0.0.1.
func (b *box) get(address string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, address, nil)
	r.RemoteAddr = "10.0.0.1:5000"
	r.Header.Set("User-Agent", "test")
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

// body returns a good answer's body.
func (b *box) body(t *testing.T, address string) string {
	t.Helper()
	w := b.get(address)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: status %d: %s", address, w.Code, w.Body)
	}
	return w.Body.String()
}

// open returns the address of the picture's playlist of a new visit.
func (b *box) open(t *testing.T, query string) string {
	t.Helper()
	index := b.body(t, "/live/main/index.m3u8"+query)
	lines := strings.Split(strings.TrimSpace(index), "\n")
	return path.Join("/live/main", lines[len(lines)-1])
}

// tag returns the value of an attribute or of a tag, the last one.
func tag(t *testing.T, text, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1)
	if found == nil {
		t.Fatalf("no %s in\n%s", pattern, text)
	}
	return found[len(found)-1][1]
}

func number(t *testing.T, text, pattern string) int {
	t.Helper()
	n, err := strconv.Atoi(tag(t, text, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTheMultivariantPlaylistDescribesEveryRendition(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	visits := regexp.MustCompile(`hls/[A-Z2-7]{26}/`)
	for address, folder := range map[string]string{"/live/index.m3u8": "main/VISITmain/", "/live/main/index.m3u8": "VISIT"} {
		want := "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n" +
			`#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="sound-0",NAME="Sound",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="` + folder + `audio.m3u8"` + "\n" +
			`#EXT-X-STREAM-INF:BANDWIDTH=896000,AVERAGE-BANDWIDTH=896000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=640x360,FRAME-RATE=25.000,AUDIO="sound-0"` + "\n" +
			folder + "video.m3u8\n"
		w := b.get(address)
		if got := visits.ReplaceAllString(w.Body.String(), "VISIT"); got != want {
			t.Errorf("%s:\n%s", address, got)
		}
		if h := w.Header(); h.Get("Content-Type") != "application/vnd.apple.mpegurl" || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("header %v", h)
		}
	}
	b.body(t, b.open(t, "")) // from here on it is measured
	if got := number(t, b.body(t, "/live/index.m3u8"), `BANDWIDTH=(\d+)`); got < 10_000 || got > 100_000 {
		t.Errorf("%d bit/s measured", got)
	}
	if len(b.Audience.Viewers()) != 1 {
		t.Error("looking at the index makes a viewer, or watching does not")
	}
}

func TestTheMediaPlaylistListsPartsAndSegments(t *testing.T) {
	b := newBox(t)
	b.publish(50*10 + 13) // ten segments and two parts
	list := b.open(t, "")
	got := b.body(t, list)
	if n := strings.Count(got, "#EXTINF:2.00000,\n"); n != 8 {
		t.Errorf("%d segments are listed, want 8", n)
	}
	// Three target durations of 2 s, and what is open.
	if n := strings.Count(got, "#EXT-X-PART:"); n != 4*10+2 && n != 3*10+2 {
		t.Errorf("%d parts are listed", n)
	}
	first := number(t, got, `#EXT-X-MEDIA-SEQUENCE:(\d+)`)
	for _, want := range []string{
		"#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.00000,HOLD-BACK=6.00000,CAN-SKIP-UNTIL=12.00000\n#EXT-X-PART-INF:PART-TARGET=0.21000\n",
		"#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"video-init-",
		fmt.Sprintf("#EXT-X-PART:DURATION=0.20000,URI=\"video-%d.0.m4s\",INDEPENDENT=YES\n#EXT-X-PART:DURATION=0.20000,URI=\"video-%d.1.m4s\"\n", first+8, first+8),
		fmt.Sprintf("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"video-%d.2.m4s\"\n", first+8),
		fmt.Sprintf("#EXT-X-RENDITION-REPORT:URI=\"audio.m3u8\",LAST-MSN=%d,LAST-PART=", first+8),
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	date, err := time.Parse(time.RFC3339Nano, tag(t, got, `#EXT-X-PROGRAM-DATE-TIME:(.*)`))
	if want := stream.Wall(time.Hour + 20*time.Second); err != nil || date.Sub(want).Abs() > 2*time.Second {
		t.Errorf("the open segment is dated %v, %v; want %v", date, err, want)
	}
	if strings.Contains(got, "DISCONTINUITY") {
		t.Error("something breaks")
	}
}

// A player that goes over to another rendition goes on where that is, without
// asking first.
func TestPlaylistsTellOfTheOthersOfTheirSet(t *testing.T) {
	b := newBox(t)
	main, sub := b.r, stream.NewRendition("sub", 4096, stream.H264, stream.AAC)
	b.renditions["sub"], b.names = sub, []string{"main", "gone", "sub"}
	b.publish(120)
	b.r, b.n, b.frames = sub, 0, 0
	b.publish(173)
	index := b.body(t, "/live/index.m3u8")
	addresses := regexp.MustCompile(`(?m)^[^#].*/(main|sub)/video\.m3u8$`).FindAllString(index, -1)
	if len(addresses) != 2 {
		t.Fatalf("addresses %q in\n%s", addresses, index)
	}
	of := func(i int) string { return "/live/" + addresses[i] }
	b.body(t, of(1))                                   // which has the other cut, too
	for _, r := range []*stream.Rendition{main, sub} { // a sound's newest comes after its picture's
		if _, err := b.Segments.Of(r).Wait(t.Context(), cmaf.Sound, func(s *cmaf.Sequence) bool { return len(s.Complete()) > 1 }); err != nil {
			t.Fatal(err)
		}
	}
	b.publish(10)
	told := regexp.MustCompile(`#EXT-X-RENDITION-REPORT:URI="([^"]*)",LAST-MSN=(\d+),LAST-PART=(\d+)`).FindAllStringSubmatch(b.body(t, of(0)), -1)
	var others []string
	for _, r := range told {
		others = append(others, r[1])
		other := path.Join(path.Dir(of(0)), r[1])
		if text := b.body(t, other+"?_HLS_msn="+r[2]+"&_HLS_part="+r[3]); !strings.Contains(text, "-"+r[2]+"."+r[3]+".m4s\"") {
			t.Errorf("%s does not have the part that was told of:\n%s", other, text)
		}
	}
	if want := "audio.m3u8 ../sub/video.m3u8 ../sub/audio.m3u8"; strings.Join(others, " ") != want {
		t.Errorf("reports on %q, want %q", others, want)
	}
	for _, alone := range []string{strings.Replace(of(0), "main~sub", "sub~none~", 1), b.open(t, "")} {
		if text := b.body(t, alone); strings.Count(text, "RENDITION-REPORT") != 1+2*strings.Count(alone, "sub~none~") {
			t.Errorf("%s:\n%s", alone, text)
		}
	}
}

func TestEveryAddressInAPlaylistIsServed(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	list := b.open(t, "")
	for _, list := range []string{list, path.Dir(list) + "/audio.m3u8"} {
		text := b.body(t, list)
		files := regexp.MustCompile(`(?m)^(?:#EXT-X-(?:PART|MAP):.*URI="([^"]*)".*|([^#].*))$`).FindAllStringSubmatch(text, -1)
		if len(files) < 10 {
			t.Errorf("only %d addresses in\n%s", len(files), text)
		}
		for _, f := range files {
			w := b.get(path.Dir(list) + "/" + f[1] + f[2])
			h := w.Header()
			if w.Code != http.StatusOK || w.Body.Len() == 0 || h.Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
				t.Errorf("%s%s: status %d, %d bytes, header %v", f[1], f[2], w.Code, w.Body.Len(), h)
			}
			if !strings.HasSuffix(h.Get("Content-Type"), "/mp4") || h.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(h.Get("Cache-Control"), "immutable") {
				t.Errorf("%s%s: header %v", f[1], f[2], h)
			}
		}
	}
	if got := b.Audience.Viewers(); len(got) != 1 || got[0].Bytes.Load() < 5000 {
		t.Errorf("viewers %v", got)
	}
}

func TestReloadsBlockUntilThePartIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publish(113) // two segments, two parts; of the third part three pictures
		list := b.open(t, "")
		text := b.body(t, list)
		last := number(t, text, `#EXT-X-MEDIA-SEQUENCE:(\d+)`) + 2
		tests := []struct {
			name    string
			msn     int
			part    string
			publish int // pictures until the answer
			want    string
		}{
			{"what is there already", last - 1, "", 0, "PRELOAD"},
			{"part there already", last, "1", 0, "PRELOAD"},
			{"the next part", last, "2", 3, fmt.Sprintf("video-%d.2.m4s\"\n", last)},
			{"a part beyond the end is the next segment's first", last, "10", 40, fmt.Sprintf("video-%d.0.m4s", last+1)},
			{"the segment after, whole", last + 1, "", 45, fmt.Sprintf("video-%d.m4s", last+1)},
		}
		for _, test := range tests {
			query := fmt.Sprintf("?_HLS_msn=%d", test.msn)
			if test.part != "" {
				query += "&_HLS_part=" + test.part
			}
			got := make(chan string)
			go func() { got <- b.get(list + query).Body.String() }()
			for n := 0; ; n++ {
				synctest.Wait()
				select {
				case text := <-got:
					if n != test.publish || !strings.Contains(text, test.want) {
						t.Errorf("%s: answered after %d pictures, want %d; no %s in\n%s", test.name, n, test.publish, test.want, text)
					}
				default:
					if n > 100 {
						t.Fatalf("%s: no answer", test.name)
					}
					b.publish(1)
					continue
				}
				break
			}
		}
	})
}

func TestTheHintedPartIsServedAsSoonAsItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publish(113)
		list := b.open(t, "")
		hint := path.Dir(list) + "/" + tag(t, b.body(t, list), `#EXT-X-PRELOAD-HINT:TYPE=PART,URI="(.*)"`)
		got := make(chan *httptest.ResponseRecorder, 1)
		go func() { got <- b.get(hint) }()
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("answered before it is there")
		}
		b.publish(5)
		if w := <-got; w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "picture 110") {
			t.Errorf("status %d: %q", w.Code, w.Body)
		}
	})
}

func TestNobodyWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		if w := b.get("/live/main/index.m3u8"); w.Code != http.StatusServiceUnavailable {
			t.Errorf("no encoder: %d", w.Code)
		}
		if w := b.get("/live/index.m3u8"); w.Code != http.StatusServiceUnavailable {
			t.Errorf("no encoder at all: %d", w.Code)
		}
		b.publish(30)
		list := b.open(t, "")
		if w := b.get(list); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("no whole segment: %d", w.Code)
		}
		b.publish(30)
		next := number(t, b.body(t, list), `#EXT-X-MEDIA-SEQUENCE:(\d+)`) + 1
		begin := time.Now()
		if w := b.get(fmt.Sprintf("%s?_HLS_msn=%d", list, next)); w.Code != http.StatusServiceUnavailable {
			t.Errorf("the picture stands still: %d", w.Code)
		}
		if waited := time.Since(begin); waited != 6*time.Second {
			t.Errorf("waited %v, want three target durations", waited)
		}
		begin = time.Now()
		if w := b.get(fmt.Sprintf("%s/video-%d.m4s", path.Dir(list), next+1)); w.Code != http.StatusServiceUnavailable || time.Since(begin) > waitTime {
			t.Errorf("segment to come: %d after %v", w.Code, time.Since(begin))
		}
	})
}

func TestBadRequestsAreAnsweredClearly(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	list := b.open(t, "")
	folder := path.Dir(list)
	last := number(t, b.body(t, list), `#EXT-X-MEDIA-SEQUENCE:(\d+)`) + 2
	for address, want := range map[string]int{
		list + "?_HLS_msn=x":                                   400,
		list + "?_HLS_msn=-1":                                  400,
		list + "?_HLS_part=1":                                  400,
		list + "?_HLS_skip=MAYBE":                              400,
		fmt.Sprintf("%s?_HLS_msn=%d", list, last+3):            400,
		fmt.Sprintf("%s?_HLS_msn=%d&_HLS_part=50", list, last): 400,
		list + "?_HLS_msn=0&_HLS_part=99":                      200, // long past
		folder + "/other.m3u8":                                 404,
		folder + "/video-0.m4s":                                404,
		folder + "/video-99999999999.m4s":                      404,
		folder + "/video-init-none.mp4":                        404,
		folder + fmt.Sprintf("/video-%d.9999.m4s", last-1):     404,
		folder + fmt.Sprintf("/video-%d.99999999.m4s", last):   404,
		folder + "/video-99999999999999999999.m4s":             404,
		"/live/other/index.m3u8":                               404,
		"/live/other/video.m3u8":                               404,
		"/live/main/other":                                     404,
		"/live/main/hls/NOBODY/video.m3u8":                     404,
		"/live/main/hls/":                                      404,
		"/live/":                                               404,
	} {
		if w := b.get(address); w.Code != want || w.Code != 200 && !strings.Contains(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("%s: status %d, want %d; %s", address, w.Code, want, w.Body)
		}
	}
	if w := b.get(list, func(r *http.Request) { r.Method = http.MethodPost }); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
	for _, address := range []string{"/live/index.m3u8", "/live/main/index.m3u8", list, fmt.Sprintf("%s/video-%d.m4s", folder, last-1)} {
		w := b.get(address, func(r *http.Request) { r.Method = http.MethodHead })
		if w.Code != http.StatusOK || w.Body.Len() > 0 || w.Header().Get("Content-Length") == "" {
			t.Errorf("HEAD %s: %d, %d bytes, %v", address, w.Code, w.Body.Len(), w.Header())
		}
	}
}

func TestPagesOfOtherSitesMayAsk(t *testing.T) {
	b := newBox(t)
	for _, address := range []string{"/live/index.m3u8", "/live/main/hls/x/video.m3u8", "/live/main/video-1.m4s"} {
		w := b.get(address, func(r *http.Request) { r.Method = http.MethodOptions })
		if w.Code != http.StatusNoContent || !strings.Contains(w.Header().Get("Access-Control-Allow-Headers"), "Range") {
			t.Errorf("OPTIONS %s: %d %v", address, w.Code, w.Header())
		}
	}
}

func TestPlaylistsAreCompressedForThoseWhoWantThat(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	list := b.open(t, "")
	want := b.body(t, list)
	w := b.get(list, func(r *http.Request) { r.Header.Set("Accept-Encoding", "br, gzip;q=1") })
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != want || w.Header().Get("Content-Encoding") != "gzip" {
		t.Errorf("%v, header %v", err, w.Header())
	}
	if w := b.get(list, func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip; q=0") }); w.Header().Get("Content-Encoding") != "" {
		t.Error("compressed for one who refuses")
	}
}

func TestAPlaylistIsMadeOnceForAPart(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	b.body(t, b.open(t, ""))
	st := b.Segments.Of(b.r)
	seq := st.Latest(cmaf.Video)
	page, again := b.page(st, seq, false, nil), b.page(st, seq, false, nil)
	if page != again || &page.gzipped()[0] != &again.gzipped()[0] {
		t.Error("made twice")
	}
	b.publish(10)
	next, err := st.Wait(t.Context(), cmaf.Video, func(s *cmaf.Sequence) bool { return s.Version != seq.Version })
	if err != nil || b.page(st, next, false, nil) == b.page(st, seq, false, nil) {
		t.Errorf("the next part shows the same playlist, %v", err)
	}
}

func TestPagesAreBounded(t *testing.T) {
	var ps pages
	text := func() []byte { return []byte("#EXTM3U\n") }
	for i := range 3 * maxPages {
		name := pageName{rendition: "main", set: strconv.Itoa(i)}
		p := ps.of(name, 1, text)
		if again := ps.of(name, 1, text); again != p {
			t.Fatalf("page %d is made twice", i)
		}
		if ps.of(name, 2, text) == p {
			t.Fatalf("page %d is not made anew", i)
		}
		if n := len(ps.newest); n > maxPages {
			t.Fatalf("%d pages are kept", n)
		}
	}
}

func TestDeltaUpdatesLeaveOutWhatIsOld(t *testing.T) {
	b := newBox(t)
	b.publish(50*10 + 13)
	list := b.open(t, "")
	full, delta := b.body(t, list), b.body(t, list+"?_HLS_skip=YES")
	skipped := number(t, delta, `#EXT-X-SKIP:SKIPPED-SEGMENTS=(\d+)`)
	if skipped < 1 || strings.Count(delta, "#EXTINF")+skipped != strings.Count(full, "#EXTINF") {
		t.Errorf("%d skipped in\n%s", skipped, delta)
	}
	if tag(t, delta, `#EXT-X-MEDIA-SEQUENCE:(.*)`) != tag(t, full, `#EXT-X-MEDIA-SEQUENCE:(.*)`) {
		t.Error("the media sequence differs")
	}
}

func TestBreaksShow(t *testing.T) {
	b := newBox(t)
	b.Segments.Keep = 4
	b.publish(100)
	video := *b.video
	video.Width = 320
	b.video = &video
	b.publish(110)
	list := b.open(t, "")
	text := b.body(t, list)
	if strings.Count(text, "#EXT-X-DISCONTINUITY\n") != 1 || strings.Count(text, "#EXT-X-MAP:") != 2 {
		t.Errorf("no break in\n%s", text)
	}
	audio := b.body(t, path.Dir(list)+"/audio.m3u8")
	if strings.Count(audio, "#EXT-X-DISCONTINUITY\n") != 1 {
		t.Errorf("no break in\n%s", audio)
	}
	open := number(t, text, `#EXT-X-MEDIA-SEQUENCE:(\d+)`) + 4
	for n := range 5 {
		b.publish(50)
		text = b.body(t, fmt.Sprintf("%s?_HLS_msn=%d", list, open+n))
	}
	if tag(t, text, `#EXT-X-DISCONTINUITY-SEQUENCE:(.*)`) != "1" {
		t.Errorf("the break is not counted in\n%s", text)
	}
}

// door lets in who shows the token or password "open".
type door struct{}

func (door) Allow(_ string, c stream.Credentials) error {
	switch {
	case c.Empty():
		return stream.ErrLocked
	case c.Token == "open", c.Password == "open":
		return nil
	default:
		return stream.ErrDenied
	}
}

func TestOnlyTheFirstAddressNeedsTheToken(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	b.Audience.SetDoor(door{}, stream.Limits{Total: 1})
	for _, address := range []string{"/live/index.m3u8", "/live/main/index.m3u8", "/live/main/video.m3u8", "/live/main/video-1.m4s"} {
		if w := b.get(address); w.Code != http.StatusUnauthorized {
			t.Errorf("%s without anything: %d", address, w.Code)
		}
		if w := b.get(address + "?token=forged"); w.Code != http.StatusForbidden {
			t.Errorf("%s with a forged token: %d", address, w.Code)
		}
	}
	list := b.open(t, "?token=open")
	text := b.body(t, list)
	segment := tag(t, text, `(?m)^(video.*m4s)$`)
	b.body(t, path.Dir(list)+"/"+segment)
	if strings.Contains(text, "open") || strings.Contains(list, "open") {
		t.Error("the token shows")
	}
	if w := b.get("/live/main/" + segment); w.Code != http.StatusUnauthorized {
		t.Errorf("another player of the same address: %d", w.Code)
	}
	second := b.open(t, "?token=open")
	if w := b.get(second); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", w.Code)
	}
}

func TestAPlaylistAskedForDirectlyLeadsToItsVisit(t *testing.T) {
	b := newBox(t)
	b.publish(120)
	w := b.get("/live/main/video.m3u8?token=a&_HLS_msn=1")
	location := w.Header().Get("Location")
	if w.Code != http.StatusFound || !strings.HasSuffix(location, "/video.m3u8?_HLS_msn=1") {
		t.Fatalf("status %d, location %s", w.Code, location)
	}
	again := b.get("/live/main/video.m3u8?token=a&_HLS_msn=1").Header().Get("Location")
	if again != location {
		t.Error("every reload is another visit")
	}
	other := b.get("/live/main/video.m3u8?token=a", func(r *http.Request) { r.RemoteAddr = "10.0.0.1:5001" })
	if at, _, _ := strings.Cut(location, "?"); other.Header().Get("Location") == at {
		t.Error("who comes over another connection is taken for who is here")
	}
	to, err := url.Parse("/live/main/" + location)
	if err != nil {
		t.Fatal(err)
	}
	b.body(t, to.String())
	file := tag(t, b.body(t, to.String()), `(?m)^(video.*m4s)$`)
	b.body(t, "/live/main/"+file)
	if n := len(b.Audience.Viewers()); n != 2 { // with the token and without
		t.Errorf("%d viewers", n)
	}
}

func TestAPlayerThatFallsSilentHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publish(120)
		list := b.open(t, "")
		b.body(t, list)
		time.Sleep(5 * time.Second)
		if len(b.Audience.Viewers()) != 1 {
			t.Error("left after 5 s")
		}
		time.Sleep(3 * time.Second)
		if len(b.Audience.Viewers()) != 0 {
			t.Error("still there after 8 s")
		}
		b.body(t, list)
		if len(b.Audience.Viewers()) != 1 {
			t.Error("cannot come back")
		}
	})
}

func TestSkippedSegmentsAreLost(t *testing.T) {
	b := newBox(t)
	b.publish(50 * 8)
	list := b.open(t, "")
	text := b.body(t, list)
	first := number(t, text, `#EXT-X-MEDIA-SEQUENCE:(\d+)`)
	for _, n := range []int{first, first + 1, first + 4} {
		b.body(t, fmt.Sprintf("%s/video-%d.m4s", path.Dir(list), n))
	}
	v := b.Audience.Viewers()[0]
	if lost := v.Lost.Load(); lost != 100 {
		t.Errorf("%d pictures lost, want two segments of 50", lost)
	}
	if lag := time.Duration(v.Lag.Load()); lag < 2*time.Second || lag > 6*time.Second {
		t.Errorf("lag %v", lag)
	}
}

func FuzzRequests(f *testing.F) {
	b := newBox(f)
	b.publish(120)
	for _, seed := range []string{"video.m3u8?_HLS_msn=1&_HLS_part=2&_HLS_skip=YES", "audio-1.2.m4s", "video-init-0.mp4", "video-t90000.m4s", "../index.m3u8?token=x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		file, query, _ := strings.Cut(target, "?")
		u := url.URL{Path: "/live/main/" + file, RawQuery: query}
		r := &http.Request{Method: http.MethodGet, URL: &u, Header: http.Header{}, RemoteAddr: "10.0.0.1:1"}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nobody waits here
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r.WithContext(ctx))
		if w.Code < 200 || w.Code > 503 {
			t.Errorf("status %d", w.Code)
		}
		if name, ok := cmaf.ParseFile(file); ok && name.String() != file {
			t.Errorf("%q is read as %v", file, name)
		}
	})
}
