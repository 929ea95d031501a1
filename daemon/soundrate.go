package daemon

import (
	"context"
	"strings"
	"time"

	"encoderd.example/hw"
)

// rateEvery is how often an HDMI input is asked for the rate of its sound,
// which changes with whatever is plugged in.
const rateEvery = 2 * time.Second

// tellRate tells a sound card at which rate its sound really comes, for as long
// as the camera that it belongs to knows.
func (d *Daemon) tellRate(ctx context.Context, mic hw.Mic, s hw.MicStream) {
	card, ok := s.(hw.RatedMicStream)
	if !ok {
		return
	}
	tick := time.NewTicker(rateEvery)
	defer tick.Stop()
	for {
		if hz := d.soundRate(ctx, mic); hz > 0 {
			card.TrueRate(hz)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// soundRate asks the camera in use for the rate of a card's sound; zero says
// that it does not know, or does not answer.
func (d *Daemon) soundRate(ctx context.Context, mic hw.Mic) int {
	d.mu.Lock()
	cam := d.notes.camera
	d.mu.Unlock()
	c, ok := cam.(hw.SoundCamera)
	if !ok || !together(cam, mic) {
		return 0
	}
	what := "ask for the sound of " + cam.ID()
	if d.calls.hangs(what) {
		return 0
	}
	hz, err := attempt(&d.calls, ctx.Done(), askPatience, what, c.SoundRate, func(int) {})
	if err != nil {
		return 0 // the card finds out by itself, only later
	}
	return hz
}

// receivers are in the names of cards behind HDMI inputs of the board itself.
var receivers = []string{"hdmi", "tc358743"}

// together reports whether a card carries the sound that comes in with a
// camera's picture: both are parts of one USB device, or both are on the board
// and the card's name says so.
func together(cam hw.Camera, mic hw.Mic) bool {
	if p := parentOf(cam); p != "" {
		return partOf(mic, p)
	}
	if parentOf(mic) != "" {
		return false
	}
	name := strings.ToLower(mic.ID() + " " + mic.Name())
	for _, r := range receivers {
		if strings.Contains(name, r) {
			return true
		}
	}
	return false
}

// parentOf returns the USB device that v is a part of, or "".
func parentOf(v any) string {
	if a, ok := v.(hw.Attached); ok {
		return a.Parent()
	}
	return ""
}

// cameraParent returns the USB device that the configured camera is a part of,
// or "".
func (d *Daemon) cameraParent(ctx context.Context) string {
	d.mu.Lock()
	source := d.config.Video.Source
	d.mu.Unlock()
	cam, ok := choose(d.devices.registry.Cameras(), patient(ctx, d.devices, d.Board.FindCamera), source, hw.Camera.ID)
	if !ok {
		return ""
	}
	return parentOf(cam)
}
