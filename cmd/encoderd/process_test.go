package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// patience is how long a busy machine may take for a single thing.
const patience = 45 * time.Second

// canary is the stream key of the tests: it must show up nowhere.
const canary = "canary-0f3c9a-stream-key"

// settings are what a test's config differs in.
type settings struct {
	bitrate, gop string
	sub          bool   // a second rendition
	outputs      string // [[output]] tables
	video        string // further lines of [video]
	rendition    string // further lines of the first [[rendition]]
	serve        string // further lines of [serve]
	watch        string // lines of [watch]
}

// A process is a running encoderd on the software board.
type process struct {
	tb        testing.TB
	state     string
	config    string
	web, rtsp string // addresses
	program   string // that is run

	cmd    *exec.Cmd
	stderr *lockedBuffer
	done   chan struct{} // closed when the program has ended
	err    *error        // of Wait, after done
}

// in returns p for a subtest.
func (p *process) in(tb testing.TB) *process {
	tb.Helper()
	q := *p
	q.tb = tb
	return &q
}

// start writes a config, starts the program, and returns once every rendition
// is live. The program ends with the test, in order, or the test fails.
func start(tb testing.TB, s settings) *process {
	tb.Helper()
	p := prepare(tb, s)
	p.launch()
	p.until("all renditions to be live", onDuty)
	return p
}

// prepare chooses addresses and writes the config.
func prepare(tb testing.TB, s settings) *process {
	tb.Helper()
	p := &process{tb: tb, program: built, state: tb.TempDir(), web: peer.FreeAddress(tb), rtsp: peer.FreeAddress(tb)}
	p.config = filepath.Join(tb.TempDir(), "config.toml")
	p.write(filepath.Join(p.state, "secrets.toml"), fmt.Sprintf("canary = %q\n", canary))
	p.configure(s)
	return p
}

func (p *process) write(path, text string) {
	p.tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.tb.Fatal(err)
	}
}

// configure writes the config: a small picture, so that two cores can do more
// than one of them.
func (p *process) configure(s settings) {
	p.tb.Helper()
	sub := ""
	if s.sub {
		sub = "[[rendition]]\nname = \"sub\"\nwidth = 160\nheight = 90\nfps = 15\nbitrate = \"150k\"\ngop = \"1s\"\npreset = \"ultrafast\"\nthreads = 1\n"
	}
	p.write(p.config, fmt.Sprintf(`[box]
name = "Test hall"
[video]
width = 320
height = 180
fps = 30
%s
[[rendition]]
name = "main"
bitrate = %q
gop = %q
preset = "ultrafast"
threads = 1
%s%s%s
[serve]
web = %q
rtsp = %q
%s
[watch]
%s
`, s.video, or(s.bitrate, "500k"), or(s.gop, "1s"), s.rendition, sub, s.outputs, p.web, p.rtsp, s.serve, s.watch))
}

func or(s, usual string) string {
	if s == "" {
		return usual
	}
	return s
}

// hall returns the [[output]] table of an output of that name.
func hall(url string) string {
	return fmt.Sprintf("[[output]]\nname = \"hall\"\nurl = %q\nkey = \"secret:canary\"\nrendition = \"main\"\nrequired = true\n", url)
}

// launch starts the program, with further environment.
func (p *process) launch(env ...string) {
	p.tb.Helper()
	p.stderr, p.done = &lockedBuffer{}, make(chan struct{})
	p.cmd = exec.Command(p.program, "run", "--board", "sim", "--state", p.state, "--config", p.config)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.stderr, p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.tb.Fatal(err)
	}
	p.err = new(error)
	cmd, done, end := p.cmd, p.done, p.err
	go func() {
		*end = cmd.Wait()
		close(done)
	}()
	p.tb.Cleanup(func() {
		select {
		case <-done:
		default:
			p.stop()
		}
		if p.tb.Failed() {
			p.tb.Logf("encoderd wrote:\n%s", p.stderr)
		}
	})
}

// ended reports whether the program has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the program as systemd does, and wants it to end well, quickly and
// without having said what it must not say.
func (p *process) stop() (took time.Duration) {
	p.tb.Helper()
	if p.ended() {
		p.tb.Fatalf("encoderd has ended by itself: %v\n%s", *p.err, p.stderr)
	}
	began := time.Now()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // it writes where it hangs
		<-p.done
		p.tb.Errorf("encoderd did not end within %v", patience)
	}
	if *p.err != nil {
		p.tb.Errorf("encoderd ended with %v", *p.err)
	}
	p.clean("stderr", p.stderr.String())
	return time.Since(began)
}

func (p *process) signal(s os.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.tb.Fatal(err)
	}
}

// kill ends the program as a power cut does.
func (p *process) kill() {
	p.tb.Helper()
	p.signal(syscall.SIGKILL)
	<-p.done
}

// clean wants a text without crash and secret.
func (p *process) clean(what, text string) {
	p.tb.Helper()
	for _, bad := range []string{"panic", "DATA RACE", "fatal error", canary} {
		if strings.Contains(text, bad) {
			p.tb.Errorf("%s holds %q", what, bad)
		}
	}
}

// logged waits for a word on stderr.
func (p *process) logged(word string) {
	p.tb.Helper()
	peer.Await(p.tb, "encoderd to say "+word, func() bool { return strings.Contains(p.stderr.String(), word) })
}

// get asks over the control socket.
func (p *process) get(path string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://box"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Close = true
	resp, err := client(p.state).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// status returns the state of the box.
func (p *process) status() (status.Box, error) {
	var b status.Box
	code, body, err := p.get("/api/v1/status")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("status %d", code)
	}
	if err == nil {
		err = json.Unmarshal(body, &b)
	}
	return b, err
}

// now returns the state of a box that must be there.
func (p *process) now() status.Box {
	p.tb.Helper()
	b, err := p.status()
	if err != nil {
		p.tb.Fatal(err)
	}
	return b
}

// until waits for a state of the box.
func (p *process) until(what string, ok func(status.Box) bool) status.Box {
	p.tb.Helper()
	var b status.Box
	var err error
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	asked := peer.Until(ctx, 40*time.Millisecond, func() bool {
		if p.ended() {
			p.tb.Fatalf("encoderd ended while we waited for %s: %v", what, *p.err)
		}
		b, err = p.status()
		return err == nil && ok(b)
	})
	if asked {
		return b
	}
	doc, _ := json.MarshalIndent(b, "", "  ")
	p.tb.Fatalf("waited %v in vain for %s: %v\n%s", patience, what, err, doc)
	return b
}

// frames waits until n more pictures have been coded.
func (p *process) frames(n uint64) {
	p.tb.Helper()
	from := p.now().Renditions[0].Frames
	p.until(fmt.Sprintf("%d more pictures", n), func(b status.Box) bool { return b.Renditions[0].Frames >= from+n })
}

// command runs another encoderd and returns its exit code and what it wrote.
func (p *process) command(args ...string) (code int, stdout, stderr string) {
	p.tb.Helper()
	cmd := exec.Command(built, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		p.tb.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// do orders an action by the command line and wants it to be taken.
func (p *process) do(action string, args ...string) {
	p.tb.Helper()
	if code, _, stderr := p.command(append([]string{"do", "--state", p.state, action}, args...)...); code != exitOK {
		p.tb.Fatalf("do %s %v: exit code %d: %s", action, args, code, stderr)
	}
}

// fault breaks or mends the board.
func (p *process) fault(name string, on bool) {
	p.tb.Helper()
	p.do("board.fault", "name="+name, fmt.Sprintf("on=%t", on))
}

// onDuty says that all encoders and the sound run.
func onDuty(b status.Box) bool {
	return len(b.Renditions) > 0 &&
		!slices.ContainsFunc(b.Renditions, func(r status.Rendition) bool { return r.State != status.Live || r.Frames == 0 }) &&
		b.Input.Signal && b.Sound.Signal
}

// outputIs asks for the state of the first output.
func outputIs(state string) func(status.Box) bool {
	return func(b status.Box) bool { return len(b.Outputs) > 0 && b.Outputs[0].State == state }
}

// watched asks for a number of readers.
func watched(n int) func(status.Box) bool {
	return func(b status.Box) bool { return len(b.Readers) == n }
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// containsAll reports whether s holds every word.
func containsAll(s string, words ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(s, w) })
}
