package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"

	"encoderd.example/daemon"
	"encoderd.example/daemon/config"
	"encoderd.example/hw"
	"encoderd.example/hw/gpio"
	"encoderd.example/hw/led"
	"encoderd.example/hw/pion"
	"encoderd.example/hw/serial"
)

// A survey is what probe found.
type survey struct {
	Board    string         `json:"board"`
	Title    string         `json:"title"`
	Cameras  []cameraFound  `json:"cameras"`
	Mics     []deviceFound  `json:"sound_cards"`
	Encoders []encoderFound `json:"encoders"`
	Sound    []encoderFound `json:"sound_encoders"`
	Panel    *panelFound    `json:"panel"`
	GPIO     []gpio.Chip    `json:"gpio"`
	LEDs     []string       `json:"leds"`
	Serial   []serial.Port  `json:"serial"`
	Errors   []string       `json:"errors"`
}

type deviceFound struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type cameraFound struct {
	deviceFound
	Modes []string `json:"modes"`
	Error string   `json:"error,omitempty"`
	// Buffers say how its pictures would get to each encoder, and why so.
	Buffers []daemon.PairPlan `json:"buffers"`
}

type encoderFound struct {
	Name     string   `json:"name"`
	Hardware bool     `json:"hardware"`
	Codecs   []string `json:"codecs"`
	Error    string   `json:"error,omitempty"`
	// Budget is macroblocks a second for all its renditions together, zero if
	// it is not known; Measured is what probe --measure has just found.
	Budget   int `json:"budget,omitempty"`
	Measured int `json:"measured,omitempty"`
}

// A panelFound is the board's own face; a config may wire another.
type panelFound struct {
	Keys  []string `json:"keys"`
	Lamps []string `json:"lamps"`
}

// probe lists what the box has.
func (p program) probe(ctx context.Context, args []string) error {
	o, rest, err := p.parse("probe", args, func(fs *flag.FlagSet, o *options) {
		configFlag(fs, o)
		boardFlag(fs, o)
		stateFlag(fs, o)
		jsonFlag(fs, o)
		fs.BoolVar(&o.measure, "measure", false, "measure how much each hardware encoder codes")
	})
	if err = errors.Join(err, noMore(rest)); err != nil {
		return err
	}
	board, err := findBoard(o.board, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	drivers, err := daemon.Encoders(board, o.state)
	c, err2 := configOf(o)
	s := look(ctx, board, drivers, c.Video.Buffers)
	s.complain(err, err2)
	s.lookAtPorts()
	if o.measure {
		s.complain(s.measure(ctx, drivers, o.state))
	}
	if o.json {
		return p.printJSON(s)
	}
	p.tellSurvey(s)
	return nil
}

// configOf returns the box's config, or the default one and what is wrong with
// the box's.
func configOf(o options) (config.Config, error) {
	r, err := rules(o)
	if err != nil {
		return config.Default(), err
	}
	c, err := o.orDefault(config.Load(o.configFile(), r))
	if err != nil {
		return config.Default(), err
	}
	return c, nil
}

// look asks every driver; one that fails does not hide the others.
func look(ctx context.Context, b hw.Board, drivers []hw.EncoderDriver, buffers string) survey {
	s := survey{Board: b.Name, Title: b.Title, Cameras: []cameraFound{}, Mics: []deviceFound{}, Errors: []string{}}
	cameras, err := b.Cameras()
	mics, err2 := b.Mics()
	registry := pion.NewRegistry()
	s.complain(err, err2, registry.Sync(cameras, mics))
	for _, c := range registry.Cameras() {
		s.Cameras = append(s.Cameras, lookAtCamera(ctx, c, drivers, buffers))
	}
	for _, m := range registry.Mics() {
		s.Mics = append(s.Mics, deviceFound{m.ID(), m.Name()})
	}
	for _, d := range drivers {
		s.Encoders = append(s.Encoders, tryEncoder(d))
	}
	for _, d := range b.AudioEncoders {
		s.Sound = append(s.Sound, trySound(d))
	}
	s.Panel = lookAtFace(b)
	return s
}

// lookAtFace names what is on the board's face, if it has one.
func lookAtFace(b hw.Board) *panelFound {
	if len(b.Keys)+len(b.Lamps) == 0 {
		return nil
	}
	f := &panelFound{Keys: []string{}, Lamps: []string{}}
	for _, k := range b.Keys {
		f.Keys = append(f.Keys, k.Name)
	}
	for _, l := range b.Lamps {
		f.Lamps = append(f.Lamps, l.Name)
	}
	return f
}

// complain keeps errors.
func (s *survey) complain(errs ...error) {
	for _, err := range errs {
		if err != nil {
			s.Errors = append(s.Errors, err.Error())
		}
	}
}

// lookAtPorts lists what panels and switchers can be wired to.
func (s *survey) lookAtPorts() {
	chips, err := gpio.List()
	ports, err2 := serial.List()
	s.GPIO, s.Serial = append([]gpio.Chip{}, chips...), append([]serial.Port{}, ports...)
	s.LEDs = append([]string{}, led.Class{}.List()...)
	s.complain(err, err2)
}

func lookAtCamera(ctx context.Context, c hw.Camera, drivers []hw.EncoderDriver, buffers string) cameraFound {
	f := cameraFound{deviceFound: deviceFound{c.ID(), c.Name()}, Modes: []string{}}
	modes, err := c.Modes()
	if err == nil {
		f.Buffers, err = daemon.PlanPairs(ctx, c, drivers, buffers)
	}
	if err != nil {
		f.Error = err.Error()
	}
	f.Buffers = append([]daemon.PairPlan{}, f.Buffers...)
	for _, m := range modes {
		f.Modes = append(f.Modes, m.String())
	}
	return f
}

// tryEncoder opens an encoder for a moment: a library that is not installed
// shows here and not at the show.
func tryEncoder(d hw.EncoderDriver) encoderFound {
	f := encoderFound{Name: d.Name, Hardware: d.Hardware, Codecs: []string{}, Budget: d.Budget}
	for _, c := range d.Codecs {
		f.Codecs = append(f.Codecs, c.String())
	}
	e, err := d.Open(hw.EncoderConfig{
		Codec: d.Codecs[0], Width: 640, Height: 360, FPS: hw.Rate{Num: 30, Den: 1}, GOP: 60, Bitrate: 1_000_000,
	})
	if err == nil {
		err = e.Close()
	}
	if err != nil {
		f.Error = err.Error()
	}
	return f
}

func trySound(d hw.AudioEncoderDriver) encoderFound {
	f := encoderFound{Name: d.Name, Codecs: []string{d.Codec.String()}}
	e, err := d.Open(0)
	if err == nil {
		err = e.Close()
	}
	if err != nil {
		f.Error = err.Error()
	}
	return f
}

// modesShown is enough for people; --json has all.
const modesShown = 6

func (p program) tellSurvey(s survey) {
	w := p.stdout
	fmt.Fprintf(w, "board    %s (%s)\n", s.Board, s.Title)
	for _, c := range s.Cameras {
		fmt.Fprintf(w, "camera   %s  %s %s\n", c.ID, c.Name, c.Error)
		for _, m := range c.Modes[:min(len(c.Modes), modesShown)] {
			fmt.Fprintf(w, "           %s\n", m)
		}
		for _, b := range c.Buffers {
			fmt.Fprintf(w, "           to %s: %s: %s\n", b.Encoder, b.Way, b.Reason)
		}
		if more := len(c.Modes) - modesShown; more > 0 {
			fmt.Fprintf(w, "           and %d more, see --json\n", more)
		}
	}
	for _, m := range s.Mics {
		fmt.Fprintf(w, "sound    %s  %s\n", m.ID, m.Name)
	}
	for _, e := range append(s.Encoders, s.Sound...) {
		state := "ready"
		if e.Error != "" {
			state = e.Error
		}
		if e.Budget > 0 {
			state += fmt.Sprintf(", %d macroblocks a second", e.Budget)
		}
		if e.Measured > 0 {
			state += fmt.Sprintf(", %d measured", e.Measured)
		}
		fmt.Fprintf(w, "encoder  %s  %v: %s\n", e.Name, e.Codecs, state)
	}
	if s.Panel != nil {
		fmt.Fprintf(w, "panel    keys %v, lamps %v\n", s.Panel.Keys, s.Panel.Lamps)
	}
	for _, c := range s.GPIO {
		fmt.Fprintf(w, "gpio     %s  %s, %d lines: %s\n", c.Name, c.Label, len(c.Lines), strings.Join(lineNames(c), " "))
	}
	for _, name := range s.LEDs {
		fmt.Fprintf(w, "led      %s\n", name)
	}
	for _, port := range s.Serial {
		fmt.Fprintf(w, "serial   %s  %s\n", cmp.Or(port.ByPath, port.Path), port.USB)
	}
	for _, e := range s.Errors {
		fmt.Fprintf(w, "error    %s\n", e)
	}
}

// lineNames lists the lines of a chip that a pin can name.
func lineNames(c gpio.Chip) []string {
	var names []string
	for _, l := range c.Lines {
		if l.Name != "" {
			names = append(names, l.Name)
		}
	}
	return names
}
