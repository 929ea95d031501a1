package rtmp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
	"encoderd.example/stream/flv/amf0"
	"encoderd.example/stream/streamtest/peer"
)

func TestAPlayerStartsAtTheCachedKeyPictureAtTimeZero(t *testing.T) {
	enc := newFake(64, 10, 100)
	for range 13 {
		enc.publish()
	}
	audience := &stream.Audience{}
	v := visit(t, startServer(t, &Server{Find: only(enc.r), Audience: audience}))
	v.play(t)
	words, times := v.tags(t, 6)
	if got := strings.Join(words, " "); got != "M vh ah V a v" {
		t.Errorf("got %s", got)
	}
	if times[0] != 0 || times[3] != 0 || times[5] != 40*time.Millisecond {
		t.Errorf("times %v", times)
	}
	viewers := audience.Viewers()
	if len(viewers) != 1 || viewers[0].Protocol != "rtmp" || viewers[0].Rendition != "main" || viewers[0].Bytes.Load() == 0 {
		t.Errorf("viewers %+v", viewers)
	}
	v.say(t, "closeStream", 0, amf0.Null{})
	peer.Await(t, "the player to leave", func() bool { return len(audience.Viewers()) == 0 })
}

func TestNewParametersBringNewHeaders(t *testing.T) {
	enc := newFake(64, 2, 100)
	enc.publish()
	v := visit(t, startServer(t, &Server{Find: only(enc.r)}))
	v.play(t)
	v.tags(t, 5)
	enc.publish()
	video, sound := *enc.video, *enc.sound
	enc.video, enc.sound = &video, &sound
	enc.publish()
	words, _ := v.tags(t, 8)
	if got := strings.Join(words, " "); got != "v a M vh V M ah a" {
		t.Errorf("got %s", got)
	}
}

func TestPauseGoesOnAtALaterKeyPictureUnderTheSameClock(t *testing.T) {
	enc := newFake(64, 5, 100)
	enc.publish()
	v := visit(t, startServer(t, &Server{Find: only(enc.r)}))
	v.play(t)
	v.tags(t, 5)
	v.say(t, "pause", 0, amf0.Null{}, amf0.Bool(true), amf0.Number(0))
	for v.answer(t, "onStatus").status().code != "NetStream.Pause.Notify" {
	}
	enc.publish() // number 2: nobody sees it
	v.say(t, "pause", 0, amf0.Null{}, amf0.Bool(false), amf0.Number(0))
	for v.answer(t, "onStatus").status().code != "NetStream.Unpause.Notify" {
	}
	for range 5 {
		enc.publish() // number 6 is a key
	}
	words, times := v.tags(t, 5)
	if got := strings.Join(words, " "); got != "M vh V a v" {
		t.Errorf("got %s", got)
	}
	if want := 5 * 40 * time.Millisecond; times[2] != want {
		t.Errorf("goes on at %v instead of %v", times[2], want)
	}
}

// A guard that knows one token and one password.
type guard struct{}

func (guard) Allow(_ string, c stream.Credentials) error {
	switch {
	case c.Empty():
		return stream.ErrLocked
	case c.Token == "canary" || c.User == "u" && c.Password == "canary":
		return nil
	default:
		return stream.ErrDenied
	}
}

func TestWhoIsLetIn(t *testing.T) {
	enc := newFake(8, 1, 100)
	enc.publish()
	audience := &stream.Audience{}
	audience.SetDoor(guard{}, stream.Limits{Total: 1})
	var log lockedLog
	addr := startServer(t, &Server{Find: only(enc.r), Audience: audience, Log: log.logger()})
	tests := []struct{ name, app, ask, want string }{
		{"no such stream", "live", "other", "NetStream.Play.StreamNotFound there is no such stream"},
		{"nothing shown", "live", "main", "NetStream.Play.Failed this picture needs a password or a link"},
		{"a wrong token", "live", "main?token=x", "NetStream.Play.Failed wrong or expired password or link"},
		{"a token", "live", "main?token=canary", "NetStream.Play.Reset main"},
		{"user and password", "live", "main?user=u&password=canary", "NetStream.Play.Reset main"},
		{"a token with the application", "live?token=canary", "main", "NetStream.Play.Reset main"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := visit(t, addr)
			v.enter(t, tt.app)
			v.ask(t, tt.ask)
			s := v.answer(t, "onStatus").status()
			if got := s.code + " " + s.text; got != tt.want {
				t.Errorf("got %s", got)
			}
			v.nc.Close()
			peer.Await(t, "the player to leave", func() bool { return len(audience.Viewers()) == 0 })
		})
	}
	first := visit(t, addr)
	first.enter(t, "live?token=canary")
	first.ask(t, "main")
	first.tags(t, 1)
	second := visit(t, addr)
	second.enter(t, "live?token=canary")
	second.ask(t, "main")
	if s := second.answer(t, "onStatus").status(); s.code != "NetStream.Play.Failed" || !strings.Contains(s.text, "too many viewers") {
		t.Errorf("beyond the limit: %+v", s)
	}
	if strings.Contains(log.String(), "canary") {
		t.Error("the log shows a secret")
	}
}

func TestWhatIsNotServedIsRefusedAndHungUpOn(t *testing.T) {
	enc := newFake(8, 1, 100)
	enc.publish()
	addr := startServer(t, &Server{Find: only(enc.r)})
	tests := []struct {
		name string
		do   func(t *testing.T, v *visitor)
	}{
		{"another application", func(t *testing.T, v *visitor) {
			t.Helper()
			v.say(t, "connect", 1, amf0.Object{{Name: "app", Value: amf0.String("vod")}})
			if s := v.answer(t, "_error").status(); s.code != "NetConnection.Connect.InvalidApp" {
				t.Errorf("got %+v", s)
			}
		}},
		{"publishing", func(t *testing.T, v *visitor) {
			t.Helper()
			v.enter(t, "live")
			v.say(t, "publish", 3, amf0.Null{}, amf0.String("main"), amf0.String("live"))
			if s := v.answer(t, "onStatus").status(); s.code != "NetStream.Publish.Denied" {
				t.Errorf("got %+v", s)
			}
		}},
		{"play before connect", func(t *testing.T, v *visitor) { t.Helper(); v.ask(t, "main") }},
		{"play before createStream", func(t *testing.T, v *visitor) {
			t.Helper()
			v.say(t, "connect", 1, amf0.Object{{Name: "app", Value: amf0.String("live")}})
			v.answer(t, "_result")
			v.ask(t, "main")
		}},
		{"a second connect", func(t *testing.T, v *visitor) {
			t.Helper()
			v.enter(t, "live")
			v.say(t, "connect", 1, amf0.Object{{Name: "app", Value: amf0.String("live")}})
		}},
		{"asking in vain three times", func(t *testing.T, v *visitor) {
			t.Helper()
			v.enter(t, "live")
			for range maxRefusals {
				v.ask(t, "other")
			}
		}},
		{"a message that is too long", func(t *testing.T, v *visitor) {
			t.Helper()
			v.w.message(csCommand, msgCommand, 0, 0, make([]byte, maxPlayerMessage+1), nil)
		}},
		{"a command without a name", func(t *testing.T, v *visitor) {
			t.Helper()
			v.w.message(csCommand, msgCommand, 0, 0, []byte{0xff, 0xff}, nil)
		}},
		{"too many chunk streams", func(t *testing.T, v *visitor) {
			t.Helper()
			for id := range byte(maxPlayerStreams + 1) {
				v.w.message(10+id, 99, 0, 0, []byte{1}, nil)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := visit(t, addr)
			tt.do(t, v)
			v.closed(t)
		})
	}
}

func TestASecondStreamIsRefusedAndTheFirstGoesOn(t *testing.T) {
	enc := newFake(8, 1, 100)
	enc.publish()
	v := visit(t, startServer(t, &Server{Find: only(enc.r)}))
	v.play(t)
	v.say(t, "createStream", 9, amf0.Null{})
	if c := v.answer(t, "_error"); c.id != 9 {
		t.Errorf("got %+v", c)
	}
	enc.publish()
	v.tags(t, 1)
}

func TestPingsAreAnsweredAndQuestionsToo(t *testing.T) {
	enc := newFake(8, 1, 100)
	v := visit(t, startServer(t, &Server{Find: only(enc.r)}))
	v.enter(t, "live")
	v.say(t, "FCSubscribe", 0, amf0.Null{}, amf0.String("main"))
	v.answer(t, "onFCSubscribe")
	v.say(t, "getStreamLength", 7, amf0.Null{}, amf0.String("main"))
	if n, ok := v.answer(t, "_result").number(); !ok || n != 0 {
		t.Errorf("a live stream is %v seconds long", n)
	}
	v.say(t, "_checkbw", 8, amf0.Null{})
	v.w.message(csControl, msgUser, 0, 0, []byte{0, 3, 0, 0, 0, 1, 0, 0, 1, 0}, nil) // SetBufferLength
	v.w.message(csControl, msgUser, 0, 0, []byte{0, eventPing, 1, 2, 3, 4}, nil)
	m, err := v.hear()
	if err != nil || m.Type != msgUser || !bytes.Equal(m.Body, []byte{0, eventPong, 1, 2, 3, 4}) {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestH265NeedsAPlayerThatKnowsIt(t *testing.T) {
	r := stream.NewRendition("main", 8, stream.H265)
	track := &stream.Track{Codec: stream.H265, Setup: []byte{1, 2, 3}, Width: 640, Height: 360, FPS: 25}
	r.Publish(&stream.Unit{Track: track, Key: true, PTS: 40 * time.Millisecond, Data: []byte{0, 0, 0, 2, 0x26, 1}})
	addr := startServer(t, &Server{Find: only(r)})
	old := visit(t, addr)
	old.enter(t, "live")
	old.ask(t, "main")
	if s := old.answer(t, "onStatus").status(); s.code != "NetStream.Play.Failed" || !strings.Contains(s.text, "H.265") {
		t.Errorf("got %+v", s)
	}
	knows := []amf0.Property{
		{Name: "fourCcList", Value: amf0.List{amf0.String("av01"), amf0.String("hvc1")}},
		{Name: "fourCcList", Value: amf0.List{amf0.String("*")}},
		{Name: "videoFourCcInfoMap", Value: amf0.Object{{Name: "hvc1", Value: amf0.Number(1)}}},
	}
	for _, about := range knows {
		v := visit(t, addr)
		v.enter(t, "live", about)
		v.ask(t, "main")
		var bodies [][]byte
		for len(bodies) < 2 {
			m, err := v.hear()
			if err != nil {
				t.Fatal(err)
			}
			if m.Type == 9 {
				bodies = append(bodies, m.Body)
			}
		}
		if want := []byte("\x90hvc1\x01\x02\x03"); !bytes.Equal(bodies[0], want) {
			t.Errorf("header %x", bodies[0])
		}
		if want := []byte("\x91hvc1\x00\x00\x28\x00\x00\x00\x02\x26\x01"); !bytes.Equal(bodies[1], want) {
			t.Errorf("picture %x", bodies[1])
		}
	}
}

// Time stamps above 0xffffff stand in every chunk of a message, and wrap after
// 49.7 days.
func TestTimeGoesOnForDaysAndWraps(t *testing.T) {
	enc := newFake(64, 1, 100)
	enc.publish()
	v := visit(t, startServer(t, &Server{Find: only(enc.r)}))
	v.play(t)
	v.tags(t, 5)
	days := []time.Duration{5 * time.Hour, 40 * 24 * time.Hour, 1<<32*time.Millisecond - time.Millisecond, 1<<32*time.Millisecond + time.Second}
	for i, d := range days {
		data := bytes.Repeat([]byte{0, 0, 0, 1, byte(i)}, 50_000) // several chunks
		enc.r.Publish(&stream.Unit{Track: enc.video, Key: true, PTS: time.Hour + d, DTS: time.Hour + d, Data: data})
		m, err := v.hear()
		if err != nil {
			t.Fatal(err)
		}
		if want := time.Duration(uint32(d.Milliseconds())) * time.Millisecond; m.Timestamp != want || !bytes.Equal(m.Body[5:], data) {
			t.Errorf("after %v the stamp is %v, want %v", d, m.Timestamp, want)
		}
	}
}

func TestTheEndIsSaid(t *testing.T) {
	enc := newFake(8, 1, 100)
	enc.publish()
	for name, end := range map[string]func(cancel context.CancelFunc){
		"of the server":    func(cancel context.CancelFunc) { cancel() },
		"of the rendition": func(context.CancelFunc) { enc.r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			enc = newFake(8, 1, 100)
			enc.publish()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			s := &Server{Find: func(string) *stream.Rendition { return enc.r }, Listener: l}
			go func() { done <- s.Run(ctx) }()
			v := visit(t, l.Addr().String())
			v.play(t)
			v.tags(t, 5)
			end(cancel)
			for v.answer(t, "onStatus").status().code != "NetStream.Play.Stop" {
			}
			v.closed(t)
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCallersThatDawdleAreHungUpOn(t *testing.T) {
	enc := newFake(8, 1, 100)
	s := &Server{Find: only(enc.r), limits: limits{arrival: 300 * time.Millisecond, tracks: time.Millisecond}}
	addr := startServer(t, s)
	mute, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	slow, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.Write([]byte{version, 1, 2, 3})
	stranger, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	io.WriteString(stranger, "GET / HTTP/1.1\r\n\r\n")
	half := visit(t, addr)
	half.say(t, "connect", 1, amf0.Object{{Name: "app", Value: amf0.String("live")}})
	for name, nc := range map[string]net.Conn{"mute": mute, "slow": slow, "a stranger": stranger, "half": half.nc} {
		nc.SetReadDeadline(time.Now().Add(10 * time.Second))
		var timeout net.Error
		if err := rest(nc); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: not hung up on", name)
		}
	}
	early := visit(t, addr)
	early.enter(t, "live")
	early.ask(t, "main")
	if s := early.answer(t, "onStatus").status(); s.code != "NetStream.Play.Failed" || !strings.Contains(s.text, "not begun") {
		t.Errorf("before the first picture: %+v", s)
	}
}

func TestTheGateHoldsBackACrowd(t *testing.T) {
	enc := newFake(8, 1, 100)
	enc.publish()
	addr := startServer(t, &Server{Find: only(enc.r), MaxConnsPerIP: 2})
	a := visit(t, addr)
	a.play(t)
	var idle []*visitor
	for range 5 {
		idle = append(idle, visit(t, addr)) // in, at the cost of the one before
	}
	for _, v := range idle[:4] {
		v.closed(t)
	}
	idle[4].play(t)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := handshake(c); err == nil {
		t.Error("a third caller was let in while two play")
	}
	enc.publish()
	a.tags(t, 2)
}

func TestTenThousandCallersInARowHarmNobody(t *testing.T) {
	enc := newFake(64, 20, 5000)
	enc.publish()
	addr := startServer(t, &Server{Find: only(enc.r)})
	v := visit(t, addr)
	v.play(t)
	v.tags(t, 5)
	before, goroutines := heap(), runtime.NumGoroutine()
	for i := range 10_000 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.(*net.TCPConn).SetLinger(0) // vanishes, and leaves no port waiting
		if i%2 == 0 {
			nc.Write([]byte{version, 0, 0})
		}
		nc.Close()
		if i%500 == 0 {
			enc.publish()
			if words, _ := v.tags(t, 2); len(words) != 2 {
				t.Fatal(words)
			}
		}
	}
	peer.Await(t, "all of them to be forgotten", func() bool { return runtime.NumGoroutine() <= goroutines })
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("heap grew by %d kB", grown>>10)
	}
}

func TestStalledPlayersHarmNobody(t *testing.T) {
	const players, stalled, pictures = 50, 10, 300
	enc := newFake(64, 20, 5000)
	enc.publish()
	addr := startServer(t, &Server{Find: only(enc.r), limits: limits{write: time.Minute}})
	visitors := make([]*visitor, players)
	for i := range visitors {
		visitors[i] = visit(t, addr)
		if i < stalled {
			visitors[i].nc.(*net.TCPConn).SetReadBuffer(4 << 10)
		}
		visitors[i].play(t)
	}
	tallies := make([]tally, players)
	var wg sync.WaitGroup
	follow := func(i int) {
		for tallies[i].last.Load() < pictures {
			m, err := visitors[i].hear()
			if err != nil {
				t.Errorf("player %d: %v", i, err)
				return
			}
			if w := word(m); w == "v" || w == "V" {
				tallies[i].take(number(m), w == "V", len(m.Body) == enc.size+4+5)
			}
		}
	}
	for i := stalled; i < players; i++ {
		wg.Go(func() { follow(i) })
	}
	before := heap()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range pictures {
		enc.publish()
		<-tick.C
		for !t.Failed() && enc.n > slowest(tallies[stalled:])+20 { // a busy machine is no stalled reader
			<-tick.C
		}
	}
	wg.Wait()
	for i := stalled; i < players; i++ {
		if s := &tallies[i]; s.gaps > 0 || s.torn > 0 {
			t.Errorf("player %d: %d gaps, %d torn", i, s.gaps, s.torn)
		}
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("heap grew by %d kB beside %d stalled players", grown>>10, stalled)
	}
	for i := range stalled {
		visitors[i].nc.(*net.TCPConn).SetReadBuffer(1 << 20)
		wg.Go(func() { follow(i) })
	}
	for range 3 * enc.gop {
		enc.publish()
		<-tick.C
	}
	wg.Wait()
	for i := range stalled {
		if s := &tallies[i]; s.gaps == 0 || s.torn > 0 {
			t.Errorf("stalled player %d: %d gaps, %d torn; want gaps, and nothing torn", i, s.gaps, s.torn)
		}
	}
}

// A tally checks the pictures that one player gets.
type tally struct {
	last       atomic.Uint32
	gaps, torn int
}

// slowest returns the number of the picture that all have.
func slowest(tallies []tally) uint32 {
	least := ^uint32(0)
	for i := range tallies {
		least = min(least, tallies[i].last.Load())
	}
	return least
}

func (s *tally) take(n uint32, key, whole bool) {
	last := s.last.Swap(n)
	gap := last != 0 && n != last+1
	if gap {
		s.gaps++
	}
	if !whole || gap && !key {
		s.torn++
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAUnitIsOneWrite(t *testing.T) {
	const pictures = 200
	enc := newFake(64, 10, 40_000)
	enc.publish()
	v := visit(t, startServer(t, &Server{Find: only(enc.r)}))
	v.play(t)
	v.tags(t, 5)
	before := segments(t, v.nc)
	for range pictures {
		enc.publish()
		v.tags(t, 2)
	}
	if n := segments(t, v.nc) - before; n < pictures || n > 2*pictures*5/4 {
		t.Errorf("%d writes for %d units", n, 2*pictures)
	}
}

// segments counts the segments with data that have come (tcp(7), TCP_INFO):
// over loopback, each write of less than 64 KiB is one.
func segments(t *testing.T, nc net.Conn) int {
	t.Helper()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return int(info.Data_segs_in)
}

func TestAUnitCostsAPlayerNoMemory(t *testing.T) {
	near, far := pair(t)
	go rest(far)
	w := newWriter(near, patience)
	enc := newFake(8, 1, 20_000)
	mux, err := flv.NewMuxer([]*stream.Track{enc.video, enc.sound}, encoderName)
	if err != nil {
		t.Fatal(err)
	}
	p := newPlayer(&caller{w: w}, enc.r, mux, &stream.Viewer{})
	picture := &stream.Unit{Track: enc.video, Key: true, Data: make([]byte, 100_000)}
	sound := &stream.Unit{Track: enc.sound, Data: make([]byte, 200)}
	send := func(u *stream.Unit) {
		_, taking := p.Take(u, nil)
		err = errors.Join(err, taking)
		for out := false; !out && err == nil; {
			out, err = p.Push()
		}
	}
	allocated := testing.AllocsPerRun(100, func() {
		send(picture)
		send(sound)
	})
	if allocated > 0 || err != nil {
		t.Errorf("%v allocations for a picture and a sound, %v", allocated, err)
	}
}

func TestPlayersGetTheSameByPlatesAndWithout(t *testing.T) {
	enc := newFake(8, 1, 100)
	at := func(d time.Duration, track *stream.Track, size int) *stream.Unit {
		return &stream.Unit{Track: track, Key: track == enc.video, PTS: time.Hour + d, DTS: time.Hour + d, Data: bytes.Repeat([]byte{byte(size)}, size)}
	}
	const long = 0xffffff * time.Millisecond // from here on, times are extended for who was there at the start
	units := []*stream.Unit{
		at(0, enc.video, 1000), at(20*time.Millisecond, enc.sound, 300),
		at(40*time.Millisecond, enc.video, mostPrinted-1), at(60*time.Millisecond, enc.video, mostPrinted), at(80*time.Millisecond, enc.video, 300_000),
		at(long-time.Millisecond, enc.video, 1001), at(long, enc.video, 1002), at(long+time.Millisecond, enc.sound, 301),
		at(long+2*time.Millisecond, enc.video, mostPrinted-1), at(long+3*time.Millisecond, enc.video, 300_000),
		at(2*long+time.Millisecond, enc.sound, 302), at(2*long+2*time.Millisecond, enc.video, 1003),
	}
	by := func(plates bool) (got [3][]byte) {
		var players [3]*player
		var writers [3]*wire
		var reading sync.WaitGroup
		for i := range players {
			near, far := pair(t)
			reading.Go(func() { got[i], _ = io.ReadAll(far) })
			mux, err := flv.NewMuxer([]*stream.Track{enc.video, enc.sound}, encoderName)
			if err != nil {
				t.Fatal(err)
			}
			players[i], writers[i] = newPlayer(&caller{w: newWriter(near, patience)}, enc.r, mux, &stream.Viewer{}), near
		}
		for n, u := range units {
			var plate *stream.Plate
			if plates {
				plate = new(stream.Plate)
			}
			for i, p := range players {
				if n < 2*i {
					continue // comes later
				}
				if _, err := p.Take(u, plate); err != nil {
					t.Fatal(err)
				}
				if err := p.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, w := range writers {
			_ = w.Close()
		}
		reading.Wait()
		return got
	}
	got, want := by(true), by(false)
	for i := range got {
		if len(want[i]) < 600_000 || !bytes.Equal(got[i], want[i]) {
			t.Errorf("player %d got %d bytes by plates, %d without, which are not the same", i, len(got[i]), len(want[i]))
		}
	}
}

func TestAPlayerThatTakesNothingIsDropped(t *testing.T) {
	enc := newFake(64, 5, 200_000)
	enc.publish()
	audience := &stream.Audience{}
	addr := startServer(t, &Server{Find: only(enc.r), Audience: audience, limits: limits{write: 100 * time.Millisecond}})
	v := visit(t, addr)
	v.play(t)
	peer.Await(t, "the player to be dropped", func() bool {
		enc.publish()
		return len(audience.Viewers()) == 0
	})
}

func TestTheSignedHandshakeProvesThatItReadTheCallersDigest(t *testing.T) {
	for _, second := range []bool{false, true} {
		c1, s1, s2 := make([]byte, handshakeSize), make([]byte, handshakeSize), make([]byte, handshakeSize)
		for _, p := range [][]byte{c1, s1, s2} {
			rand.Read(p)
		}
		c1[4] = 9
		at := digestAt(c1, second)
		copy(c1[at:], digest(c1, at, playerName))
		answer(s1, s2, c1)
		if _, ok := findDigest(s1, serverName); !ok {
			t.Error("S1 is not signed")
		}
		key := sign(serverKey, c1[at:at+digestSize])
		if want := sign(key, s2[:handshakeSize-digestSize]); !bytes.Equal(s2[handshakeSize-digestSize:], want) {
			t.Error("S2 is not signed")
		}
	}
	plain, s1, s2 := make([]byte, handshakeSize), make([]byte, handshakeSize), make([]byte, handshakeSize)
	rand.Read(plain[4:])
	answer(s1, s2, plain)
	if !bytes.Equal(plain, s2) || !bytes.Equal(s1, make([]byte, handshakeSize)) {
		t.Error("who did not sign is not answered in the plain way")
	}
}

func FuzzCaller(f *testing.F) {
	enc := newFake(8, 1, 100)
	enc.publish()
	command := func(name string, values ...amf0.Value) []byte {
		return amf0.Append(amf0.Append(nil, amf0.String(name), amf0.Number(1)), values...)
	}
	f.Add(byte(msgCommand), command("connect", amf0.Object{{Name: "app", Value: amf0.String("live")}, {Name: "fourCcList", Value: amf0.List{amf0.String("hvc1")}}}))
	f.Add(byte(msgCommand), command("createStream", amf0.Null{}))
	f.Add(byte(msgCommand), command("pause", amf0.Null{}, amf0.Bool(true)))
	f.Add(byte(msgCommand), command("play", amf0.Null{}, amf0.String("other?token=%zz&user=")))
	f.Add(byte(msgUser), []byte{0, eventPing, 1, 2, 3, 4})
	f.Add(byte(msgWindow), []byte{0, 0, 0, 1})
	near, far := pair(f)
	go rest(far)
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		sv := &service{Server: &Server{Find: func(string) *stream.Rendition { return nil }}, log: (&lockedLog{}).logger()}
		for stage := range ready + 1 {
			c := &caller{service: sv, wire: near, conn: near, stage: stage, r: newPlayerReader(far), w: newWriter(near, patience), log: sv.log}
			if err := c.take(t.Context(), message{kind, slices.Clone(body)}); err == nil && c.player != nil {
				t.Error("plays what is not there")
			}
		}
	})
}
