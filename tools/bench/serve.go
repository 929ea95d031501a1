package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Targets of serving.
const (
	mostLatency = 1.0 // of a frame's period, for nearly all pictures
	mostAllocs  = 20  // for each unit: a handful, however many readers
	mostServe   = 3.0 // times the floor
)

// audiences are how many readers a test has, and costs for whom CPU counts.
var (
	audiences = []int{0, 1, 20}
	crowds    = []int{1, 20, 100}
)

// A load is a child process under way.
type load struct {
	*process
	first string        // line that it printed
	lines *bufio.Reader // what it prints after that
	out   *io.PipeReader
}

func (b *bench) startLoad(args ...string) (*load, error) {
	r, w := io.Pipe()
	p, err := start(w, b.self, append([]string{childWord}, args...)...)
	if err != nil {
		return nil, err
	}
	l := &load{process: p, lines: bufio.NewReader(r), out: r}
	go func() { // ends with the process
		<-p.done
		_ = w.Close()
	}()
	if l.first, err = l.lines.ReadString('\n'); err != nil {
		l.stop()
		return nil, errors.Join(fmt.Errorf("start the load: %w", err), p.alive())
	}
	l.first = strings.TrimSpace(l.first)
	return l, nil
}

// finish ends a "read" child and returns what it saw.
func (l *load) finish() (w watched, err error) {
	_ = l.stdin.Close()
	err = json.NewDecoder(l.lines).Decode(&w)
	go func() { _, _ = io.Copy(io.Discard, l.lines) }() // ends with the process
	l.stop()
	if err != nil {
		return w, fmt.Errorf("hear from the readers: %w\n%s", err, l.log.String())
	}
	return w, nil
}

func (x *box) url() string { return "rtsp://" + x.rtsp + "/main" }

// latency measures from the capture of a picture to the moment at which a
// reader has parsed its last packet.
func (b *bench) latency(ctx context.Context) error {
	x, err := b.startBox(ctx, "", true)
	if err != nil {
		return err
	}
	defer x.stop()
	const period = 1000.0 / fps
	for _, n := range []int{1, 20} {
		w, err := b.listen(ctx, x, n, max(b.window, 700*time.Second/fps)+settle)
		if err != nil {
			return err
		}
		for _, q := range []struct {
			name string
			part float64
			most float64
		}{{"median", 0.5, mostLatency / 2}, {"99th percentile", 0.99, mostLatency}} {
			ms := quantile(w.Latency, q.part)
			b.table.add(row{
				What: fmt.Sprintf("latency to RTSP reader, %d readers, %s (peer: a frame's period)", n, q.name),
				Unit: "ms", Ours: ms, Peer: period, Ratio: ms / period, Most: q.most,
			})
		}
		b.table.note("latency with %d readers: %d pictures, from the camera's stamp (RTP time and sender report) to the last packet parsed", n, len(w.Latency))
	}
	return nil
}

// listen lets n readers play for a while.
func (b *bench) listen(ctx context.Context, x *box, n int, d time.Duration) (watched, error) {
	l, err := b.startLoad("read", x.url(), strconv.Itoa(n))
	if err != nil {
		return watched{}, err
	}
	err = wait(ctx, d)
	w, heard := l.finish()
	return w, errors.Join(err, heard, x.alive())
}

// allocs measures allocations for each unit that the box publishes.
func (b *bench) allocs(ctx context.Context) error {
	x, err := b.startBox(ctx, "", true)
	if err != nil {
		return err
	}
	defer x.stop()
	for _, n := range audiences {
		var l *load
		if n > 0 {
			if l, err = b.startLoad("read", x.url(), strconv.Itoa(n)); err != nil {
				return err
			}
		}
		mallocs, pictures, units, err := b.countAllocs(ctx, x)
		if l != nil {
			_, heard := l.finish()
			err = errors.Join(err, heard)
		}
		if err != nil {
			return err
		}
		b.table.tell(fmt.Sprintf("allocations per picture, %d readers", n), "objects", mallocs/pictures, 0)
		b.table.tell(fmt.Sprintf("allocations per unit (pictures and sound), %d readers", n), "objects", mallocs/units, mostAllocs)
	}
	return nil
}

// countAllocs looks at the runtime's counter twice, and takes off what looking
// costs.
func (b *bench) countAllocs(ctx context.Context, x *box) (mallocs, pictures, units float64, err error) {
	if err := wait(ctx, b.warm); err != nil {
		return 0, 0, 0, err
	}
	const counter, frames = "go_memstats_mallocs_total", "encoderd_rendition_frames_total"
	var seen [4]map[string]float64 // two at the beginning, two at the end
	began := time.Now()
	for i := range seen {
		if i == 2 {
			if err := wait(ctx, b.window); err != nil {
				return 0, 0, 0, err
			}
		}
		if seen[i], err = x.metrics(ctx); err != nil {
			return 0, 0, 0, err
		}
	}
	look := min(seen[1][counter]-seen[0][counter], seen[3][counter]-seen[2][counter])
	mallocs = seen[2][counter] - seen[1][counter] - look
	pictures = seen[2][frames] - seen[1][frames]
	sound := time.Since(began).Seconds() * soundRate / soundFrame
	if pictures == 0 {
		return 0, 0, 0, errors.New("the box published nothing")
	}
	return mallocs, pictures, pictures + sound, nil
}

// whole measures what each RTSP reader costs the box, and a bare program.
func (b *bench) whole(ctx context.Context) error {
	x, err := b.startBox(ctx, "", true)
	if err != nil {
		return err
	}
	defer x.stop()
	w, err := b.listen(ctx, x, 1, b.window/2+settle)
	if err != nil {
		return err
	}
	file := filepath.Join(b.dir, "units.json")
	doc, err := json.Marshal(w.Units)
	if err == nil {
		err = os.WriteFile(file, doc, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the units: %w", err)
	}
	for _, n := range crowds {
		var ours, bare []float64
		for range b.rounds {
			o, err := b.crowd(ctx, x, n)
			if err != nil {
				return err
			}
			f, err := b.bareCrowd(ctx, file, n)
			if err != nil {
				return err
			}
			ours, bare = append(ours, o), append(bare, f)
		}
		most := mostServe
		if n == 1 {
			most = 0 // the cost of packets stands against nothing
		}
		b.table.compare(fmt.Sprintf("RTSP over TCP to %d readers, beside a bare writer", n), "ms/reader-s", ours, bare, most)
	}
	return nil
}

// crowd returns the box's CPU in ms for each of n readers and second: with
// them, less the mean of without them right before and right after, because a
// busy machine's speed wanders.
func (b *bench) crowd(ctx context.Context, x *box, n int) (float64, error) {
	before, err := x.measure(ctx, settle, b.window/2)
	if err != nil {
		return 0, err
	}
	l, err := b.startLoad("read", x.url(), strconv.Itoa(n))
	if err != nil {
		return 0, err
	}
	with, err := x.measure(ctx, settle, b.window/2)
	_, heard := l.finish()
	if err := errors.Join(err, heard); err != nil {
		return 0, err
	}
	after, err := x.measure(ctx, settle, b.window/2)
	return 1000 * (with.share - (before.share+after.share)/2) / float64(n), err
}

func (b *bench) bareCrowd(ctx context.Context, file string, n int) (float64, error) {
	f, err := b.startLoad("floor", file)
	if err != nil {
		return 0, err
	}
	defer f.stop()
	d, err := b.startLoad("drain", f.first, strconv.Itoa(n))
	if err != nil {
		return 0, err
	}
	defer d.stop()
	u, err := f.measure(ctx, settle, b.window/2)
	return 1000 * u.share / float64(n), err
}
