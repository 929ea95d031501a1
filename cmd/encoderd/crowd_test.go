package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/streamtest/peer"
)

// A player is the least that an RTSP player can be: it counts packets.
type player struct {
	conn *net.TCPConn
	br   *bufio.Reader
	seq  int
	id   string

	awake   sync.Mutex // held by others while the player is not to read
	wake    func()     // after sleep
	packets atomic.Uint64
	lost    atomic.Uint64 // by the sequence numbers of RTP
	gaps    atomic.Uint64 // of the picture
	badGaps atomic.Uint64 // after which no key picture came
	ended   atomic.Bool
}

// newPlayer plays a rendition over TCP. A small one has hardly any buffer.
func newPlayer(p *process, rendition string, small bool) (*player, error) {
	conn, err := net.DialTimeout("tcp", p.rtsp, patience)
	if err != nil {
		return nil, err
	}
	pl := &player{conn: conn.(*net.TCPConn), br: bufio.NewReaderSize(conn, 32<<10)}
	if small {
		pl.br = bufio.NewReaderSize(conn, 2<<10)
		_ = pl.conn.SetReadBuffer(4 << 10)
	}
	url := "rtsp://" + p.rtsp + "/" + rendition
	for _, r := range [][2]string{
		{"SETUP " + url + "/trackID=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"},
		{"SETUP " + url + "/trackID=1", "Transport: RTP/AVP/TCP;unicast;interleaved=2-3\r\n"},
		{"PLAY " + url, ""},
	} {
		if err := pl.request(r[0], r[1]); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return pl, nil
}

// request sends a request and reads its answer.
func (pl *player) request(line, header string) error {
	pl.seq++
	_ = pl.conn.SetDeadline(time.Now().Add(patience))
	if pl.id != "" {
		header += "Session: " + pl.id + "\r\n"
	}
	if _, err := fmt.Fprintf(pl.conn, "%s RTSP/1.0\r\nCSeq: %d\r\n%s\r\n", line, pl.seq, header); err != nil {
		return err
	}
	tp := textproto.NewReader(pl.br)
	answer, err := tp.ReadLine()
	if err != nil {
		return err
	}
	h, err := tp.ReadMIMEHeader()
	if err != nil || !strings.HasPrefix(answer, "RTSP/1.0 200") {
		return fmt.Errorf("%s: %q, %w", line, answer, err)
	}
	pl.id, _, _ = strings.Cut(h.Get("Session"), ";")
	return pl.conn.SetDeadline(time.Time{})
}

// sleep makes the player stop reading until wake.
func (pl *player) sleep(t *testing.T) {
	t.Helper()
	pl.awake.Lock()
	pl.wake = sync.OnceFunc(pl.awake.Unlock)
	t.Cleanup(pl.wake)
}

// run reads until the connection ends.
func (pl *player) run() {
	defer pl.ended.Store(true)
	var next [2]int // sequence number expected, by medium; 0 is unknown
	buf := make([]byte, 64<<10)
	for {
		pl.awake.Lock()
		pl.awake.Unlock() //nolint:staticcheck // this is where it sleeps
		if _, err := io.ReadFull(pl.br, buf[:4]); err != nil || buf[0] != '$' {
			return
		}
		channel, packet := buf[1], buf[4:4+binary.BigEndian.Uint16(buf[2:])]
		if _, err := io.ReadFull(pl.br, packet); err != nil {
			return
		}
		if channel%2 == 1 || len(packet) < 14 {
			continue // RTCP
		}
		medium, seq := channel/2, int(binary.BigEndian.Uint16(packet[2:]))
		if want := next[medium]; want != 0 && seq != want-1 {
			pl.lost.Add(uint64((seq - want + 1) & 0xffff))
			if medium == 0 {
				pl.gaps.Add(1)
				if !startsKey(packet[12:]) {
					pl.badGaps.Add(1)
				}
			}
		}
		next[medium] = (seq+1)&0xffff + 1
		pl.packets.Add(1)
	}
}

// startsKey reports whether an RTP payload (RFC 6184) begins with the
// parameter sets that stand before a key picture.
func startsKey(payload []byte) bool {
	const single, aggregate = 0x1f, 24
	kind := payload[0] & single
	if kind == aggregate && len(payload) > 3 {
		kind = payload[3] & single
	}
	return kind == h264.TypeSPS
}

// crowd starts n players; they end with the test.
func crowd(t *testing.T, p *process, n int, small bool) []*player {
	t.Helper()
	players, err := gather(t, p, n, small)
	if err != nil {
		t.Fatal(err)
	}
	return players
}

// gather is crowd for any goroutine.
func gather(t *testing.T, p *process, n int, small bool) (players []*player, err error) {
	t.Helper()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	for range n {
		pl, err := newPlayer(p, "main", small)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { pl.conn.Close() })
		wg.Go(pl.run)
		players = append(players, pl)
	}
	return players, nil
}

// memory returns the resident memory of the program, in MiB (man 5 proc).
func (p *process) memory() int {
	p.tb.Helper()
	doc, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.tb.Fatal(err)
	}
	for line := range strings.Lines(string(doc)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kb >> 10
		}
	}
	p.tb.Fatal("no VmRSS")
	return 0
}

var nap = flag.Duration("nap", 12*time.Second, "how long readers of the crowd do not read")

func TestTwoHundredReadersOfWhichFiftyStopReadingAndTwentyVanish(t *testing.T) {
	if !peer.Root(t) {
		return
	}
	n := peer.StartNginx(t)
	v := open(t, settings{bitrate: "1M", outputs: hall(n.URL("live"))})
	v.begin()
	p := v.process
	before := p.now()
	p.do("stream.start")
	viewers := []viewer{p.view("main", "tcp"), p.view("main", "tcp"), p.view("main", "tcp")}
	p.until("viewers and output on air", func(b status.Box) bool { return watched(3)(b) && outputIs(status.Live)(b) })
	alone := p.memory()
	good := crowd(t, p, 127, false)
	asleep := crowd(t, p, 50, true)
	away := newElsewhere(t)
	away.crowd(t, p, 20)
	onAir := p.until("200 readers", watched(200))
	full := p.memory()
	for _, pl := range asleep {
		pl.sleep(t)
	}
	away.cut(t) // and no word of those there ever comes again
	for range *nap / time.Second {
		p.frames(30)
		full = max(full, p.memory())
	}
	here := p.until("the vanished to be gone from the list", func(b status.Box) bool {
		return !slices.ContainsFunc(b.Readers, func(r status.Reader) bool { return away.holds(r.Peer) })
	})
	had := make(map[*player]uint64)
	for _, pl := range asleep {
		had[pl] = pl.packets.Load()
		_ = pl.conn.SetReadBuffer(1 << 20)
		pl.wake()
	}
	for _, pl := range asleep {
		peer.Await(t, "a sleeper to go on", func() bool { return pl.ended.Load() || pl.packets.Load() > had[pl]+300 })
	}
	p.frames(60)
	after := p.now()

	if len(here.Readers) != 180 {
		t.Errorf("%d readers are left of 180", len(here.Readers))
	}
	gaps := uint64(0)
	for i, pl := range asleep {
		gaps += pl.gaps.Load()
		if pl.ended.Load() || pl.badGaps.Load() > 0 {
			t.Errorf("sleeper %d: ended %t, %d gaps of which %d without a key picture behind", i, pl.ended.Load(), pl.gaps.Load(), pl.badGaps.Load())
		}
	}
	for i, pl := range good {
		if pl.ended.Load() || pl.lost.Load() > 0 || pl.packets.Load() == 0 {
			t.Errorf("player %d: %d packets, %d lost, ended %t", i, pl.packets.Load(), pl.lost.Load(), pl.ended.Load())
		}
	}
	if o := after.Outputs[0]; o.State != status.Live || o.Lost > 0 || !o.Since.Equal(*onAir.Outputs[0].Since) {
		t.Errorf("the output is %+v", o)
	}
	for _, pl := range slices.Concat(good, asleep) {
		_ = pl.conn.Close()
	}
	p.until("the crowd to be gone", watched(len(viewers)))
	p.memoryReturns(alone, full)
	t.Logf("%d sleepers went on, after %d gaps", len(asleep), gaps)
	for _, v := range viewers {
		v.Kill()
	}
	p.do("stream.stop")
	p.until("the output to be off the air", outputIs("off"))
	end := p.now()
	p.stop()
	n.Kill()
	for _, v := range viewers {
		decode(t, v.file, 320, 180).whole(t, before, end)
	}
	decode(t, n.Recordings(t)[0], 320, 180).whole(t, before, end)
}

// memoryReturns waits until the program holds hardly more memory than before
// the crowd came.
func (p *process) memoryReturns(alone, full int) {
	p.tb.Helper()
	const slack = 24 // MiB: garbage that waits to be collected
	now := 0
	peer.Await(p.tb, fmt.Sprintf("memory to return to %d MiB", alone), func() bool {
		now = p.memory()
		return now <= alone+slack
	})
	p.tb.Logf("memory: %d MiB before the crowd, %d with it, %d after", alone, full, now)
}
