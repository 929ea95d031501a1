package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// A history is what the event stream told about the first output.
type history struct {
	mu     sync.Mutex
	states []string
}

// follow listens to the event stream until the box or the test ends.
func (p *process) follow() *history {
	p.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://box/api/v1/events", nil)
	if err != nil {
		p.tb.Fatal(err)
	}
	req.Close = true
	resp, err := client(p.state).Do(req)
	if err != nil {
		p.tb.Fatal(err)
	}
	h := &history{}
	var wg sync.WaitGroup
	wg.Go(func() {
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				h.note(data)
			}
		}
	})
	p.tb.Cleanup(func() {
		cancel()
		wg.Wait()
		resp.Body.Close()
	})
	return h
}

func (h *history) note(data string) {
	var b status.Box
	if json.Unmarshal([]byte(data), &b) != nil || len(b.Outputs) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := b.Outputs[0].State; len(h.states) == 0 || h.states[len(h.states)-1] != s {
		h.states = append(h.states, s)
	}
}

// has reports whether the states came in that order, others in between.
func (h *history) has(states ...string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	rest := h.states
	for _, s := range states {
		i := slices.Index(rest, s)
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
	return true
}

func (h *history) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.states, " → ")
}

func TestAPushSurvivesItsServerAndLosesNothingOnTheWay(t *testing.T) {
	n := peer.StartNginx(t)
	p := start(t, settings{outputs: hall(n.URL("live"))})
	h := p.follow()
	before := p.now()
	p.do("stream.start")
	p.until("confirmation", outputIs(status.Live))
	peer.Await(t, "the events", func() bool { return h.has(status.Live) })
	if !h.has(status.Unconfirmed, status.Live) {
		t.Errorf("live without being unconfirmed before: %v", h)
	}
	p.frames(90)
	middle := p.now()
	n.Kill()
	down := p.until("the loss to be seen", outputIs(status.Backoff))
	o := down.Outputs[0]
	if !down.Has(status.OutputRetrying) || o.RetryAt == nil || o.Error == "" || down.State != status.Degraded {
		t.Errorf("while the server is away: %+v, faults %+v", o, down.Faults)
	}
	n.Restart(t)
	back := p.until("the output to come back by itself", outputIs(status.Live))
	if back.Has(status.OutputRetrying) {
		t.Errorf("faults after the return: %+v", back.Faults)
	}
	p.frames(90)
	after := p.now()
	p.stop()
	if !h.has(status.Unconfirmed, status.Live, status.Backoff, status.Unconfirmed, status.Live) {
		t.Errorf("the output went through %v", h)
	}
	peer.Await(t, "the goodbye", func() bool { return strings.Contains(n.Log(), "deleteStream") })
	n.Kill()
	records := n.Recordings(t)
	if len(records) != 2 {
		t.Fatalf("recordings: %v", records)
	}
	first, second := decode(t, records[0], 320, 180), decode(t, records[1], 320, 180)
	first.whole(t, before, middle)
	second.whole(t, before, after)
	first.inStep(t, 2)
	second.inStep(t, 2)
	_, end := first.counters(t)
	begin, _ := second.counters(t)
	// A new connection begins with the latest key picture, up to a second old.
	if gop := uint32(30); begin+gop <= end {
		t.Errorf("the second recording begins with picture %d, the first ended with %d", begin, end)
	}
	t.Logf("the output went through %v; the recordings end with picture %d and begin with %d", h, end, begin)
}

func TestFFmpegAsServerGetsEveryPictureOnceAndSound(t *testing.T) {
	f := peer.StartFFmpegRTMP(t)
	p := prepare(t, settings{outputs: strings.ReplaceAll(hall(f.URL), "secret:canary", f.Key)})
	p.launch()
	p.until("all renditions to be live", onDuty)
	before := p.now()
	p.do("output.start", "name=hall")
	p.until("confirmation", outputIs(status.Live))
	p.frames(60)
	after := p.now()
	p.do("stream.stop")
	p.until("the output to be off", outputIs(status.Off))
	if err := f.Wait(t); err != nil {
		t.Errorf("ffmpeg ended with %v", err)
	}
	m := decode(t, f.File, 320, 180)
	m.whole(t, before, after)
	m.inStep(t, 2)
	if strings.Contains(p.stderr.String(), f.Key) {
		t.Error("stderr holds the key")
	}
}

// A server of other people's making that asks for a password which we do not
// have.
func startLogin(t *testing.T) (address string) {
	t.Helper()
	var serving sync.WaitGroup
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				sc := &gortmplib.ServerConn{RW: c}
				if sc.Initialize() == nil {
					_ = sc.CheckCredentials("hall", "something else") // its answer is what we are after
				}
			})
		}
	})
	return ln.Addr().String()
}

func TestARefusalIsAFaultThatTellsNobodyTheSecrets(t *testing.T) {
	p := start(t, settings{outputs: hall("rtmp://hall:" + canary + "@" + startLogin(t) + "/live")})
	p.do("stream.start")
	b := p.until("the refusal", outputIs(status.Failed))
	if !b.Has(status.OutputRefused) || b.State != status.Broken {
		t.Errorf("state %s, output %+v, faults %+v", b.State, b.Outputs[0], b.Faults)
	}
	t.Logf("it says: %s", b.Outputs[0].Error)
	if l := b.Lamps["STREAM"]; l.Pattern != "amber blink 3" {
		t.Errorf("lamp %+v", l)
	}
	p.hushed()
	p.frames(30)
	if strings.Count(p.stderr.String(), "failed for good") != 1 {
		t.Error("the box tries a refused password again")
	}
	p.do("stream.start") // people can
	peer.Await(t, "the next attempt", func() bool { return strings.Count(p.stderr.String(), "failed for good") == 2 })
}

// nginx hangs up on a wrong key without a word: the box goes on trying, and
// says what it may be.
func TestAServerThatHangsUpIsTriedAgainAndTheKeyIsTheFirstSuspect(t *testing.T) {
	n := peer.StartNginx(t)
	p := start(t, settings{outputs: hall(n.URL("deny"))})
	p.do("stream.start")
	b := p.until("the second attempt to fail", func(b status.Box) bool { return outputIs(status.Backoff)(b) && b.Outputs[0].Attempt >= 2 })
	if !b.Has(status.OutputRetrying) || !strings.Contains(b.Outputs[0].Error, "stream key") || b.Outputs[0].RetryAt == nil {
		t.Errorf("output %+v, faults %+v", b.Outputs[0], b.Faults)
	}
	p.hushed()
}

// hushed wants nothing that the box says to hold the key.
func (p *process) hushed() {
	p.tb.Helper()
	for _, path := range []string{"/api/v1/status", "/metrics", "/", "/page/page.js", "/api/openapi.yaml", "/api/v1/actions", "/healthz"} {
		_, body, err := p.get(path)
		if err != nil {
			p.tb.Fatal(err)
		}
		p.clean(path, string(body))
	}
	for _, args := range [][]string{
		{"status", "--state", p.state},
		{"status", "--json", "--state", p.state},
		{"check", "--board", "sim", "--state", p.state, "--config", p.config},
		{"check", "--board", "sim", "--state", p.state, "--config", p.config, "--json"},
	} {
		code, stdout, stderr := p.command(args...)
		if code != exitOK {
			p.tb.Errorf("%v ends with %d: %s", args, code, stderr)
		}
		p.clean(args[0], stdout+stderr)
	}
}

// A machine that takes the call and never says a word is no destination.
func TestASilentServerIsNeverLive(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
		for _, c := range conns {
			c.Close()
		}
	})
	p := start(t, settings{outputs: hall("rtmp://" + ln.Addr().String() + "/live")})
	h := p.follow()
	p.do("stream.start")
	b := p.until("the box to give up waiting", outputIs(status.Backoff))
	if h.has(status.Unconfirmed) || h.has(status.Live) {
		t.Errorf("the output went through %v", h)
	}
	if b.Outputs[0].Error == "" || b.Lamps["STREAM"].Pattern == "red" {
		t.Errorf("output %+v, lamp %+v", b.Outputs[0], b.Lamps["STREAM"])
	}
	t.Logf("it says: %s", b.Outputs[0].Error)
	if took := p.stop(); took > 10*time.Second {
		t.Errorf("the box took %v to end", took)
	}
}
