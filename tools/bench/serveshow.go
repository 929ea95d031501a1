package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Targets of serving crowds, at the largest crowd.
const (
	mostRTSP      = 0.25 // of MediaMTX's CPU
	mostRTSPFloor = 1.5  // of a bare writer's
	mostUDP       = 0.4  // of MediaMTX's
	mostRTMP      = 1.0  // of nginx-rtmp's, and of its 99th percentile of latency
	mostFLV       = 1.0  // of our RTMP's
	mostHLS       = 0.4  // of MediaMTX's
	mostMemory    = 1.0  // of MediaMTX's
)

// showOptions say what of "serve" is measured.
type showOptions struct {
	window    time.Duration
	protocols string
	readers   string
	show      string
	profile   string
}

func (o *showOptions) flags(f *flag.FlagSet) {
	f.DurationVar(&o.window, "serve-window", 4*time.Second, "how long each crowd of \"serve\" is measured")
	f.StringVar(&o.protocols, "serve-protocols", strings.Join(served, ","), "what \"serve\" measures, with commas")
	f.StringVar(&o.readers, "serve-readers", "1,50,200", "how many readers, with commas")
	f.StringVar(&o.show, "serve-show", "", "a file of the coded material, instead of coding it anew")
	f.StringVar(&o.profile, "serve-profile", "", "write a CPU profile of our servers with the last crowd to this file")
}

func (o *showOptions) crowds() ([]int, error) {
	var crowds []int
	for word := range strings.SplitSeq(o.readers, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-serve-readers %q: %w", o.readers, errChild)
		}
		crowds = append(crowds, n)
	}
	return crowds, nil
}

// A turn is one server with one crowd.
type turn struct {
	protocol, server string
	readers          int
}

// An outcome is what was measured in a turn, one value a round.
type outcome struct {
	cpu     []float64 // ms for each reader and second
	memory  []float64 // MB
	first   []float64 // ms, median
	latency []float64 // ms, median
	late    []float64 // ms, 99th percentile
	lost    []float64 // of all
	gone    int
}

// serve measures servers beside each other, on the same coded material.
func (b *bench) serve(ctx context.Context) error {
	crowds, err := b.show.crowds()
	if err != nil {
		return err
	}
	show := b.show.show
	if show == "" {
		if show, err = b.makeShow(ctx); err != nil {
			return err
		}
	}
	here, programs := b.invited()
	outcomes := map[turn]*outcome{}
	for round := range b.rounds {
		for protocol := range strings.SplitSeq(b.show.protocols, ",") {
			for _, v := range here {
				if !slices.Contains(v.protocols, protocol) {
					continue
				}
				if err := b.turns(ctx, v, programs[v.name], show, protocol, crowds, outcomes); err != nil {
					return fmt.Errorf("%s by %s: %w", protocol, v.name, err)
				}
			}
		}
		fmt.Fprintf(b.out, "  round %d of %d done\n", round+1, b.rounds)
	}
	b.tellServed(outcomes, crowds)
	return nil
}

// turns measures a server of its own with each crowd.
func (b *bench) turns(ctx context.Context, v rival, program, show, protocol string, crowds []int, outcomes map[turn]*outcome) error {
	c, err := v.start(ctx, b, program, show)
	if err != nil {
		return err
	}
	defer c.end()
	if err := b.awaitShow(ctx, c, turn{protocol, v.name, 1}); err != nil {
		return err
	}
	for _, n := range crowds {
		t := turn{protocol, v.name, n}
		o := outcomes[t]
		if o == nil {
			o = &outcome{}
			outcomes[t] = o
		}
		if err := b.turn(ctx, c, t, o); err != nil {
			return err
		}
	}
	return nil
}

// awaitShow waits until a reader gets a picture: some servers take seconds to
// take a publisher in.
func (b *bench) awaitShow(ctx context.Context, c *host, t turn) error {
	if t.server == bare {
		return nil
	}
	for range 20 {
		l, err := b.startCrowd(c, t)
		if err != nil {
			return err
		}
		seen, err := l.leave()
		if err != nil || len(seen.First) > 0 {
			return err
		}
		if err := wait(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("no reader ever got a picture: %w", errServer)
}

func (b *bench) turn(ctx context.Context, c *host, t turn, o *outcome) error {
	l, err := b.startCrowd(c, t)
	if err != nil {
		return err
	}
	u, err := b.watchTurn(ctx, c, t)
	seen, heard := l.leave()
	if err = errors.Join(err, heard, c.alive()); err != nil {
		return fmt.Errorf("%w\n%s", err, l.log.String())
	}
	o.note(t, u, seen)
	fmt.Fprintf(b.out, "  %s, %s, %d readers: %s ms/reader-s, %s MB\n", t.protocol, t.server, t.readers, number(1000*u.share/float64(t.readers)), number(u.rss))
	return nil
}

// startCrowd returns once all readers have a picture, or have gone.
func (b *bench) startCrowd(c *host, t turn) (*load, error) {
	job := crowdJob{Protocol: t.protocol, URL: c.url[t.protocol], Readers: t.readers}
	if t.server == bare {
		job.Protocol = overBare
	}
	doc, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	l, err := b.startLoad("crowd", string(doc))
	return l, errors.Join(err, c.alive())
}

// leave ends a "crowd" child and returns what it saw.
func (l *load) leave() (seen crowded, err error) {
	_ = l.stdin.Close()
	err = json.NewDecoder(l.lines).Decode(&seen)
	go func() { _, _ = io.Copy(io.Discard, l.lines) }() // ends with the process
	l.stop()
	return seen, err
}

func (b *bench) watchTurn(ctx context.Context, c *host, t turn) (usage, error) {
	if b.show.profile == "" || t.server != ours {
		return c.measure(ctx, settle/2, b.show.window)
	}
	profiled := make(chan error, 1)
	go func() {
		profiled <- fetchProfile(ctx, c.url[profile], b.show.window+settle, b.show.profile)
	}()
	u, err := c.measure(ctx, settle/2, b.show.window)
	return u, errors.Join(err, <-profiled)
}

func (o *outcome) note(t turn, u usage, seen crowded) {
	o.cpu = append(o.cpu, 1000*u.share/float64(t.readers))
	o.memory = append(o.memory, u.rss)
	o.gone += seen.Gone
	if t.server == bare {
		return
	}
	o.first = append(o.first, median(seen.First))
	o.latency = append(o.latency, quantile(seen.Latency, 0.5))
	o.late = append(o.late, quantile(seen.Latency, 0.99))
	o.lost = append(o.lost, float64(seen.Lost)/max(float64(seen.Lost+seen.Seen), 1))
}

// A yardstick is what a value of ours at the largest crowd is held against.
type yardstick struct {
	protocol, server string
	against          string // protocol of the other; "" is the same
	what, unit       string
	values           func(*outcome) []float64
	most             float64
}

func cpuOf(o *outcome) []float64    { return o.cpu }
func memoryOf(o *outcome) []float64 { return o.memory }
func lateOf(o *outcome) []float64   { return o.late }

var yardsticks = []yardstick{
	{overRTSP, mediamtx, "", "CPU", "ms/reader-s", cpuOf, mostRTSP},
	{overRTSP, bare, "", "CPU", "ms/reader-s", cpuOf, mostRTSPFloor},
	{overUDP, mediamtx, "", "CPU", "ms/reader-s", cpuOf, mostUDP},
	{overRTMP, nginx, "", "CPU", "ms/reader-s", cpuOf, mostRTMP},
	{overRTMP, nginx, "", "latency, 99th percentile", "ms", lateOf, mostRTMP},
	{overFLV, ours, overRTMP, "CPU", "ms/reader-s", cpuOf, mostFLV},
	{overHLS, mediamtx, "", "CPU", "ms/reader-s", cpuOf, mostHLS},
	{overRTSP, mediamtx, "", "memory", "MB", memoryOf, mostMemory},
	{overUDP, mediamtx, "", "memory", "MB", memoryOf, mostMemory},
	{overRTMP, mediamtx, "", "memory", "MB", memoryOf, mostMemory},
	{overHLS, mediamtx, "", "memory", "MB", memoryOf, mostMemory},
}

// tellServed adds the targets as rows and everything else as notes.
func (b *bench) tellServed(outcomes map[turn]*outcome, crowds []int) {
	most := slices.Max(crowds)
	for _, y := range yardsticks {
		other := y.protocol
		if y.against != "" {
			other = y.against
		}
		a, p := outcomes[turn{y.protocol, ours, most}], outcomes[turn{other, y.server, most}]
		if a == nil || p == nil {
			continue
		}
		b.table.compare(fmt.Sprintf("%s to %d readers beside %s, %s", y.protocol, most, beside(y), y.what), y.unit, y.values(a), y.values(p), y.most)
	}
	for _, protocol := range served {
		for _, v := range rivals {
			for _, n := range crowds {
				if o := outcomes[turn{protocol, v.name, n}]; o != nil {
					b.table.note("%s, %s, %d readers: %s", protocol, v.name, n, o)
				}
			}
		}
	}
}

func beside(y yardstick) string {
	if y.against != "" {
		return "our " + y.against
	}
	return y.server
}

// String returns the medians.
func (o *outcome) String() string {
	s := fmt.Sprintf("%s ms/reader-s; %s MB", number(median(o.cpu)), number(median(o.memory)))
	if len(o.first) > 0 && !math.IsNaN(median(o.first)) {
		s += fmt.Sprintf("; first picture after %s ms; latency %s ms, 99th percentile %s; lost %.2g %%",
			number(median(o.first)), number(median(o.latency)), number(median(o.late)), 100*median(o.lost))
	}
	if o.gone > 0 {
		s += fmt.Sprintf("; %d readers were hung up on", o.gone)
	}
	return s
}

// fetchProfile writes a profile of so long to a file.
func fetchProfile(ctx context.Context, address string, length time.Duration, file string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write the profile: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := &hlsReader{seat: &seat{crowd: new(crowd)}}
	u, err := url.Parse(fmt.Sprintf("%s?seconds=%d", address, int(length.Seconds())))
	if err != nil {
		return err
	}
	return h.get(ctx, u, f)
}
