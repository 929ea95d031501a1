//go:build board && (arm64 || amd64)

// Command flashbeep makes light and sound at the same instants, for measuring
// the A/V offset of what a box puts out: it plays silence with short beeps on
// the playback side of the loopback card and switches the brightness of the
// virtual camera at the moment at which the beep's first sample is played.
//
//	            ┌─ sound: writes ahead, places each beep at frame(instant) ─► hw:0,0 ─► daemon
//	instant n ──┤         frame(t) = rate·(t − zero), zero from PCM status
//	            └─ light: sleeps until the instant, VIDIOC_S_CTRL ─────────► vivid ───► daemon
//
// The instants lie -every apart, by default 1.037 s: no multiple of any usual
// frame interval, so that they drift over the frame's phase. Each is printed as
// one line of JSON when it is over; all times are CLOCK_MONOTONIC, the clock of
// the capture stamps.
//
// Accuracy. The loopback moves its pointer on each timer tick of the kernel
// (4 ms at HZ=250), so that a single look at it is up to one tick late. zero is
// the smallest t − hw_ptr/rate of the last seconds, which leaves the latency of
// the ioctl alone: well below 1 ms on an idle guest. The light is as exact as the
// scheduler wakes us; what it did is printed (light, light_done). Because
// the camera shows a change with its next picture, the first bright picture
// is stamped between 0 and one frame interval after the light, half an
// interval in the mean: subtract it. vivid stamps pictures when they are done,
// which on a busy host is tens of milliseconds later; with its control
// timestamp_source=1 it stamps them when they begin. Measured so at 10 fps:
// beeps within 0.1 ms of what is printed (one tick, 4 ms, at a load of 20 on two
// cores), first bright picture 51.6 ms after the light in the mean.
//
// It is for tests on the virtual board and no part of the product.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// event is a line of output. Times are nanoseconds of CLOCK_MONOTONIC.
type event struct {
	N         int   `json:"n"`
	At        int64 `json:"at"`         // the instant that was meant
	Beep      int64 `json:"beep"`       // when the beep's first sample was played; 0: it was not
	Light     int64 `json:"light"`      // just before the camera was told to be bright
	LightDone int64 `json:"light_done"` // just after
	Dark      int64 `json:"dark"`       // just before it was told to be dark again
	Xruns     int   `json:"xruns"`      // breaks in the sound so far; throw the events around one away
}

type options struct {
	pcm, camera        string
	rate               int
	count              int
	every, beep, light time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.pcm, "pcm", "/dev/snd/pcmC0D0p", "playback `device`")
	flag.StringVar(&o.camera, "camera", "/dev/video0", "vivid's `device`")
	flag.IntVar(&o.rate, "rate", 48000, "sample rate; the recording side must have the same")
	flag.IntVar(&o.count, "count", 20, "number of flashes; 0: until stopped")
	flag.DurationVar(&o.every, "every", 1037*time.Millisecond, "distance of the flashes")
	flag.DurationVar(&o.beep, "beep", 50*time.Millisecond, "length of the beep")
	flag.DurationVar(&o.light, "light", 100*time.Millisecond, "length of the light: at least one frame interval")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "flashbeep:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	lamp, err := openLamp(o.camera)
	if err != nil {
		return err
	}
	defer lamp.close()
	card, err := openPCM(o.pcm, o.rate)
	if err != nil {
		return err
	}
	defer card.close()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	player := &player{
		card: card, beep: int64(o.beep) * int64(o.rate) / int64(time.Second),
		start: monotonic() + int64(lead), every: int64(o.every),
	}
	var soundErr error
	var wait sync.WaitGroup
	wait.Go(func() {
		defer cancel()
		soundErr = player.run(ctx)
	})
	lightErr := flashes(ctx, o, lamp, player)
	cancel()
	wait.Wait()
	return errors.Join(lightErr, soundErr)
}

// flashes switches the light at each instant and prints what happened.
func flashes(ctx context.Context, o options, lamp *lamp, player *player) error {
	out := json.NewEncoder(os.Stdout)
	for n := 0; (o.count == 0 || n < o.count) && ctx.Err() == nil; n++ {
		at := player.start + int64(n)*player.every
		e := event{N: n, At: at}
		if err := sleepUntil(at); err != nil {
			return err
		}
		e.Light = monotonic()
		if err := lamp.set(lamp.bright); err != nil {
			return err
		}
		e.LightDone = monotonic()
		if err := sleepUntil(at + int64(o.light)); err != nil {
			return err
		}
		e.Dark = monotonic()
		if err := lamp.set(lamp.dark); err != nil {
			return err
		}
		e.Beep, e.Xruns = player.played(n)
		if err := out.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

// lead is the time from the start to the first instant: more than the sound
// that is written in advance.
const lead = 3 * time.Second

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // no kernel lacks this clock
	}
	return ts.Nano()
}

// sleepUntil returns at an instant of CLOCK_MONOTONIC, at once if it is past.
func sleepUntil(at int64) error {
	ts := unix.NsecToTimespec(at)
	for {
		err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
