package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/status"
)

func socketPath(state string) string { return filepath.Join(state, socketName) }

// errNotRunning says that nobody answers on the control socket.
var errNotRunning = errors.New("encoderd does not run")

// client speaks HTTP through the control socket.
func client(state string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socketPath(state))
		},
	}}
}

// ask sends a request to the running box; the caller closes the body.
func ask(ctx context.Context, state, method, path string, body any) (*http.Response, error) {
	var content io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("ask the box: %w", err)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://box"+path, content)
	if err != nil {
		return nil, fmt.Errorf("ask the box: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client(state).Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w with state directory %s, or you may not talk to it: %w", errNotRunning, state, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer func() { _ = resp.Body.Close() }()
		return nil, problem(resp)
	}
	return resp, nil
}

// problem turns an answer of RFC 9457 into an error: its detail, which says it
// all, or else its title.
func problem(resp *http.Response) error {
	var p struct{ Title, Detail string }
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Title == "" {
		return fmt.Errorf("the box answers %s", resp.Status)
	}
	return errors.New(cmp.Or(p.Detail, p.Title))
}

// status tells how the running box is.
func (p program) status(ctx context.Context, args []string) error {
	o, rest, err := p.parse("status", args, func(fs *flag.FlagSet, o *options) {
		stateFlag(fs, o)
		jsonFlag(fs, o)
		fs.BoolVar(&o.watch, "watch", false, "go on: draw keys, lamps, tally and outputs at every change")
	})
	if err = errors.Join(err, noMore(rest)); err != nil {
		return err
	}
	if o.watch {
		return p.watch(ctx, o)
	}
	resp, err := ask(ctx, o.state, http.MethodGet, "/api/v1/status", nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	doc, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	return p.show(o, doc)
}

// watch draws the panel, or prints the status as JSON, at every change until ctx
// ends or the box stops.
func (p program) watch(ctx context.Context, o options) error {
	resp, err := ask(ctx, o.state, http.MethodGet, "/api/v1/events", nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	var event string
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			event = name
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || event != "status" { // a box that changes nothing says that it is alive
			continue
		}
		if err := p.draw(o, []byte(data)); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errNotRunning
}

// draw shows one of many statuses: in the place of the one before, if stdout is
// a terminal.
func (p program) draw(o options, doc []byte) error {
	if o.json {
		fmt.Fprintln(p.stdout, string(doc)) // one line each, for programs
		return nil
	}
	var b status.Box
	if err := json.Unmarshal(doc, &b); err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	s, isTerminal := screen(p.stdout)
	if isTerminal {
		fmt.Fprint(p.stdout, "\x1b[H\x1b[2J") // home, clear
	}
	fmt.Fprint(p.stdout, panel.Text(b, s, time.Now()))
	if !isTerminal {
		fmt.Fprintln(p.stdout)
	}
	return nil
}

// screen is how large a terminal is.
func screen(w io.Writer) (s panel.Screen, isTerminal bool) {
	f, ok := w.(*os.File)
	if !ok {
		return s, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return s, false
	}
	return panel.Screen{Width: int(size.Col), Color: true}, true
}

// show prints one status.
func (p program) show(o options, doc []byte) error {
	if o.json {
		var out bytes.Buffer
		if err := json.Indent(&out, bytes.TrimSpace(doc), "", "  "); err != nil {
			return fmt.Errorf("read the status: %w", err)
		}
		fmt.Fprintln(p.stdout, out.String())
		return nil
	}
	var b status.Box
	if err := json.Unmarshal(doc, &b); err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	p.tell(b)
	return nil
}

// tell prints the status for people.
func (p program) tell(b status.Box) {
	w := p.stdout
	fmt.Fprintf(w, "%s (%s, encoderd %s): %s\n", b.Name, b.Board, b.Version, strings.ToUpper(b.State))
	in := "NO SIGNAL, the slate is shown"
	if b.Input.Signal {
		in = fmt.Sprintf("%s %dx%d %.4g fps %s", b.Input.Name, b.Input.Width, b.Input.Height, b.Input.FPS, b.Input.Format)
	}
	fmt.Fprintf(w, "  input    %s (missed %d, damaged %d)\n", in, b.Input.Missed, b.Input.Damaged)
	sound := "silence is filled in"
	if b.Sound.Signal {
		sound = fmt.Sprintf("%s, peak %.1f dBFS, drift %.1f ppm, xruns %d", b.Sound.Name, b.Sound.PeakDBFS, b.Sound.DriftPPM, b.Sound.Xruns)
	}
	if b.Sound.Source == "none" {
		sound = "none"
	}
	if b.Sound.Muted {
		sound += ", MUTED"
	}
	fmt.Fprintf(w, "  sound    %s\n", sound)
	for _, r := range b.Renditions {
		fmt.Fprintf(w, "  encode   %s: %s %dx%d %.4g fps %.2f Mbit/s by %s, %d frames, %d dropped %s\n",
			r.Name, r.State, r.Width, r.Height, r.FPS, float64(r.Bitrate)/1e6, r.Encoder, r.Frames, r.Dropped, r.Error)
	}
	for _, o := range b.Outputs {
		fmt.Fprintf(w, "  output   %s: %s %s lost %d %s\n", o.Name, o.State, o.URL, o.Lost, o.Error)
	}
	fmt.Fprintf(w, "  readers  %d\n", len(b.Readers))
	fmt.Fprintf(w, "  tally    %s (%s)\n", b.Tally.State, b.Tally.Reason)
	for _, name := range slices.Sorted(maps.Keys(b.Lamps)) {
		fmt.Fprintf(w, "  lamp     %s: %s (%s)\n", name, b.Lamps[name].Pattern, b.Lamps[name].Reason)
	}
	for _, f := range b.Faults {
		fmt.Fprintf(w, "  FAULT    %s: %s\n", f.Title, f.Text)
	}
}

// do orders the running box to do something.
func (p program) do(ctx context.Context, args []string) error {
	o, rest, err := p.parse("do", args, stateFlag)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return fmt.Errorf("%w: do needs an action, for example stream.start", errUsage)
	}
	given := map[string]string{}
	for _, a := range rest[1:] {
		key, value, ok := strings.Cut(a, "=")
		if !ok || key == "" {
			return fmt.Errorf("%w: %q is not KEY=VALUE", errUsage, a)
		}
		given[key] = value
	}
	resp, err := ask(ctx, o.state, http.MethodPost, "/api/v1/actions/"+rest[0], given)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
