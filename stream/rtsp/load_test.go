package rtsp

import (
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/rtp"
)

// A tally checks what one reader gets.
type tally struct {
	next  [2]uint16 // sequence number awaited
	began [2]bool
	gaps  int
	open  bool // inside a picture
	torn  int  // pictures that were not whole
	seen  uint32
}

// take notes one packet of a fake encoder.
func (s *tally) take(f frame) {
	if f.channel%2 == 1 {
		return
	}
	m := f.channel / 2
	seq := binary.BigEndian.Uint16(f.packet[2:])
	gap := s.began[m] && seq != s.next[m]
	s.began[m], s.next[m] = true, seq+1
	if m != 0 {
		return
	}
	if gap {
		s.gaps++
		if s.open {
			s.torn++
		}
		s.open = false
		if f.packet[12]&0x1f != 24 {
			s.torn++ // goes on without parameter sets: not at a key picture
		}
	}
	if f.packet[12]&0x1f == 28 && f.packet[13]&0x80 != 0 { // a picture's first fragment
		s.seen = binary.BigEndian.Uint32(f.packet[14:])
	}
	s.open = f.packet[1]&0x80 == 0
}

func TestStalledReadersHarmNobody(t *testing.T) {
	const readers, stalled, pictures = 100, 20, 400
	enc := newFake(t, 20, 5000)
	enc.r = stream.NewRendition("main", 64, stream.H264, stream.AAC)
	enc.publish()
	enc.r.Resize(64)
	addr := start(t, &Server{Find: only(enc.r), MaxConnsPerIP: 200, limits: limits{write: time.Minute}})
	clients := make([]*client, readers)
	for i := range clients {
		clients[i] = dial(t, addr, "main")
		if i < stalled {
			if err := clients[i].nc.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
				t.Fatal(err)
			}
		}
		clients[i].play(t)
	}
	var wg sync.WaitGroup
	tallies := make([]tally, readers)
	at := make([]atomic.Uint32, readers) // the picture that each has seen
	follow := func(i int) {
		for tallies[i].seen < pictures {
			f, err := clients[i].frame()
			if err != nil {
				t.Errorf("reader %d: %v", i, err)
				return
			}
			tallies[i].take(f)
			at[i].Store(tallies[i].seen)
		}
	}
	slowest := func() uint32 { // of those that read
		n := uint32(pictures)
		for i := stalled; i < readers; i++ {
			n = min(n, at[i].Load())
		}
		return n
	}
	for i := stalled; i < readers; i++ {
		wg.Go(func() { follow(i) })
	}
	before := heap()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := range uint32(pictures) { // as fast as this machine can show it to the others
		enc.publish()
		for <-tick.C; n > slowest()+10; {
			<-tick.C
		}
	}
	wg.Wait()
	for i := stalled; i < readers; i++ {
		if s := tallies[i]; s.gaps > 0 || s.torn > 0 {
			t.Errorf("reader %d: %d gaps, %d torn pictures; want none", i, s.gaps, s.torn)
		}
	}
	// Rendition and ring hold 64 units each; 2 MB went by since.
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("heap grew by %d kB beside %d stalled readers", grown>>10, stalled)
	}
	// The stalled ones wake up: they go on at a key picture, with nothing torn.
	for i := range stalled {
		wg.Go(func() { follow(i) })
	}
	for range 3 * enc.gop {
		enc.publish()
		<-tick.C
	}
	wg.Wait()
	for i := range stalled {
		if s := tallies[i]; s.gaps == 0 || s.torn > 0 {
			t.Errorf("stalled reader %d: %d gaps, %d torn pictures; want some and none", i, s.gaps, s.torn)
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestPacketiserRunsOnlyWhileWatched(t *testing.T) {
	enc := newFake(t, 30, 500)
	enc.publish()
	video, sound := fakeTracks(t)
	sv := &service{Server: &Server{}, log: nil}
	f, release, err := sv.feeds.open(enc.r, []*stream.Track{video, sound}, sv)
	if err != nil {
		t.Fatal(err)
	}
	again, releaseAgain, err := sv.feeds.open(enc.r, []*stream.Track{video, sound}, sv)
	if err != nil || again != f {
		t.Fatalf("second session got another feed, %v", err)
	}
	rd, leave := f.Watch(t.Context())
	first, err := rd.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, leaveToo := f.Watch(t.Context())
	leave()
	if !f.Watched() {
		t.Error("stopped under its second watcher")
	}
	leaveToo()
	if f.Watched() {
		t.Error("still running without watchers")
	}
	rd, leave = f.Watch(t.Context())
	second, err := rd.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second.Seq[rtp.Video] == first.Seq[rtp.Video] {
		t.Error("sequence numbers began anew")
	}
	leave()
	release()
	releaseAgain()
	if len(sv.feeds.of) != 0 {
		t.Error("a feed is left without sessions")
	}
}

// BenchmarkServe measures process CPU for readers of a stream of 6 Mbit/s at
// 30 pictures a second, beside the floor: the same bytes, one write per
// picture, to as many sockets. The sockets are drained in this process, too,
// which costs both the same. Pictures come in real time, so that ns/op says
// nothing.
func BenchmarkServe(b *testing.B) {
	for _, readers := range []int{1, 50, 200} {
		b.Run(fmt.Sprintf("server/%d", readers), func(b *testing.B) { benchServer(b, readers) })
		b.Run(fmt.Sprintf("floor/%d", readers), func(b *testing.B) { benchFloor(b, readers) })
	}
}

const benchPicture = 25_000

func benchServer(b *testing.B, readers int) {
	b.Helper()
	enc := newFake(b, 30, benchPicture)
	enc.publish()
	audience := &stream.Audience{}
	addr := start(b, &Server{Find: only(enc.r), MaxConnsPerIP: readers, Audience: audience})
	var wg sync.WaitGroup
	for range readers {
		c := dial(b, addr, "main")
		c.play(b)
		wg.Go(func() { drain(c.nc) })
	}
	measure(b, readers, enc.publish)
	for _, v := range audience.Viewers() {
		if n := v.Lost.Load(); n > 0 {
			b.Errorf("a reader lost %d units", n)
		}
	}
}

func benchFloor(b *testing.B, readers int) {
	b.Helper()
	ln, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	var conns []net.Conn
	for range readers {
		c := dial(b, ln.Addr().String(), "")
		nc, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		conns = append(conns, nc)
		wg.Go(func() { drain(c.nc) })
	}
	enc := newFake(b, 30, benchPicture)
	p, err := rtp.NewPacketizer(0, enc.video, enc.sound)
	if err != nil {
		b.Fatal(err)
	}
	nal := make([]byte, benchPicture)
	nal[0] = 0x41
	batch, err := p.Batch(&stream.Unit{Track: enc.video, Data: h264.AppendNAL(nil, nal)})
	if err != nil {
		b.Fatal(err)
	}
	sound, err := p.Batch(&stream.Unit{Track: enc.sound, Data: make([]byte, 200)})
	if err != nil {
		b.Fatal(err)
	}
	both := rtp.Set(0).With(rtp.Video).With(rtp.Sound)
	measure(b, readers, func() {
		for _, nc := range conns {
			for _, data := range [][]byte{sound.Bytes(both), batch.Bytes(both)} {
				if _, err := nc.Write(data); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	for _, nc := range conns {
		nc.Close()
	}
	wg.Wait()
}

func drain(nc net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		if _, err := nc.Read(buf); err != nil {
			return
		}
	}
}

// measure reports CPU time and allocations of one picture per reader.
func measure(b *testing.B, readers int, picture func()) {
	b.Helper()
	b.ReportAllocs()
	tick := time.NewTicker(time.Second / 30)
	defer tick.Stop()
	before := cpu(b)
	for b.Loop() {
		picture()
		<-tick.C
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/float64(readers), "cpu-ns/reader/picture")
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
