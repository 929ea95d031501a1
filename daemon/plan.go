package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/supervise"
	"encoderd.example/hw"
	"encoderd.example/stream"
)

// Wanted is what people asked for by key, page or command, beyond the config.
// It outlives power cuts: what was on air comes back on air.
type Wanted struct {
	// Outputs says which outputs that start by button are on. Those that start
	// at boot are on unless they stand here with false.
	Outputs map[string]bool `json:"outputs"`
	Muted   bool            `json:"muted"`
	Record  bool            `json:"record"`
	// Restarts counts starts of each output, so that one that ended for good
	// runs again.
	Restarts map[string]int `json:"-"`
	// Recordings counts starts of a recording that had failed, so that it is
	// tried again at once.
	Recordings int `json:"-"`
	// Lingering are outputs that were stopped and stay connected for a moment.
	Lingering map[string]bool `json:"-"`
	// Returns counts how often each encoder that was gone came back.
	Returns map[string]int `json:"-"`
}

// on reports whether an output is wanted.
func (w Wanted) on(o config.Output) bool {
	if on, told := w.Outputs[o.Name]; told {
		return on
	}
	return o.Start == config.OnBoot
}

// The configs of the services: each holds exactly what its service depends on,
// because a difference restarts it. What can change while a service runs (bit
// rate, delay, mute) is not in here; see [Daemon.turnKnobs].
type (
	deviceConfig struct{ Board string }
	cameraConfig struct {
		Source        string
		Width, Height int
		FPS           hw.Rate
		Coded         bool // by the camera itself
		Buffers       string
	}
	pictureConfig struct {
		Box           string
		Width, Height int
		FPS           hw.Rate
	}
	micConfig    struct{ Source string }
	soundConfig  struct{ Bitrate int }
	encodeConfig struct {
		Rendition string
		Choice    string // auto, hardware, software
		Drivers   string // names of the encoders it may use, in order
		Tracks    string
		Returns   int // of those encoders
		hw.EncoderConfig
	}
	pushConfig struct {
		Output, Rendition, Tracks string
		URL                       config.Address
		Key                       config.Secret
		Restart                   int
	}
	recordConfig struct {
		Dir, Rendition, Tracks string
		Length                 time.Duration
		Restart                int
	}
	rtspConfig struct {
		Addr, Tracks      string
		Secure, Multicast bool
	}
	rtmpConfig struct {
		Addr   string
		Secure bool
	}
	webrtcConfig struct{ Addr, Public string }
	liveConfig   struct{}
	webConfig    struct{ Addr, Hosts string }
	panelConfig  struct{ Board, Wires string }
	// tallyConfig is of what watches over all sources of the tally.
	tallyConfig    struct{}
	switcherConfig struct {
		Link, Sources string
		Password      config.Secret
		Timeout       time.Duration
	}
	tallyOutConfig struct {
		Address string
		Input   int
		Text    string
	}
	ptzConfig    config.PTZ
	remoteConfig config.Remote
)

// plan says which services a config wants on a board whose encoders are all in
// its Encoders, in start order; they stop in reverse, so that the lamps go out
// last. It is pure, and the only place that knows what depends on what. The
// services have no Run yet; see [Daemon.bind].
//
// Hardly anything needs another service: the slate stands in for a camera,
// silence for a microphone, and renditions stay while encoders come and go.
func plan(c config.Config, b hw.Board, w Wanted) []supervise.Service {
	p := planner{config: c, fps: hw.Rate(c.Video.FPS)}
	if w := wire(c, b); b.OpenPanel != nil && len(w.keys)+len(w.lamps) > 0 {
		p.add("panel", panelConfig{b.Name, w.text()})
	}
	p.add("devices", deviceConfig{b.Name})
	p.add("camera", cameraConfig{c.Video.Source, c.Video.Width, c.Video.Height, p.fps, p.coded(), c.Video.Buffers}, "devices")
	p.add("picture", pictureConfig{c.Box.Name, c.Video.Width, c.Video.Height, p.fps})
	if p.sound() {
		p.add("mic", micConfig{c.Audio.Source}, "devices")
		p.add("sound", soundConfig{int(c.Audio.Bitrate)})
	}
	for i, at := range p.place(b.Encoders) {
		r := p.encode(c.Renditions[i])
		r.Drivers = strings.Join(at.Drivers, " ")
		for _, name := range at.Drivers {
			r.Returns += w.Returns[name]
		}
		p.add("encode/"+r.Rendition, r)
	}
	if name := c.Recorded(); w.Record {
		p.add("record", recordConfig{c.Record.Dir, name, p.tracksOf(name), c.Record.Length.Duration(), w.Recordings})
	}
	p.serve(c)
	for _, o := range c.Outputs {
		if w.on(o) || w.Lingering[o.Name] {
			p.add("push/"+o.Name, pushConfig{o.Name, o.Rendition, p.tracksOf(o.Rendition), o.URL, o.Key, w.Restarts[o.Name]})
		}
	}
	p.control(c)
	if c.Serve.Web != "" {
		p.add("web", webConfig{c.Serve.Web, strings.Join(c.Serve.Hosts, " ")})
	}
	return p.services
}

// control plans who else tells this box what to do, and whom it tells.
func (p *planner) control(c config.Config) {
	if len(c.Tallies) > 0 {
		p.add("tally", tallyConfig{})
	}
	for _, s := range switchers(c) {
		t := switcherConfig{Link: s.key, Password: s.password, Timeout: s.timeout}
		for _, f := range sources(s.tallies) {
			t.Sources += fmt.Sprintf("%+v\n", f)
		}
		p.add("tally/"+s.name, t)
	}
	for _, o := range c.TallyOuts {
		p.add("tally-out/"+o.Name, tallyOutConfig{o.Address, o.Input, c.Box.Name})
	}
	if c.PTZ.Port != "" {
		p.add("ptz", ptzConfig(c.PTZ))
	}
	if c.Remote.Port != "" {
		p.add("remote", remoteConfig(c.Remote))
	}
}

// serve adds the servers of renditions. Players of RTSP have to connect anew
// when a rendition carries other kinds of tracks.
func (p *planner) serve(c config.Config) {
	rtsp := rtspConfig{Tracks: p.tracks("video"), Multicast: c.Serve.Multicast}
	if rtsp.Addr = c.Serve.RTSP; rtsp.Addr != "" {
		p.add("rtsp", rtsp)
	}
	if rtsp.Addr = c.Serve.RTSPS; rtsp.Addr != "" {
		rtsp.Secure, rtsp.Multicast = true, false
		p.add("rtsps", rtsp)
	}
	if c.Serve.RTMP != "" {
		p.add("rtmp", rtmpConfig{c.Serve.RTMP, false})
	}
	if c.Serve.RTMPS != "" {
		p.add("rtmps", rtmpConfig{c.Serve.RTMPS, true})
	}
	if c.Serve.WebRTC != "" {
		p.add("webrtc", webrtcConfig{c.Serve.WebRTC, strings.Join(c.Serve.Public, " ")})
	}
	if c.Serve.Web != "" {
		p.add("live", liveConfig{})
	}
}

type planner struct {
	config   config.Config
	fps      hw.Rate
	services []supervise.Service
}

func (p *planner) add(name string, conf any, needs ...string) {
	p.services = append(p.services, supervise.Service{Name: name, Needs: needs, Config: conf})
}

func (p *planner) sound() bool { return p.config.Audio.Source != "none" }

// withSound is the end of what a rendition carries, if it carries sound.
const withSound = "+aac"

// codecs are the video codecs by their names in the config.
var codecs = map[string]stream.Codec{"h264": stream.H264, "h265": stream.H265}

// coded reports whether the camera is to code by itself.
func (p *planner) coded() bool {
	return slices.ContainsFunc(p.config.Renditions, func(r config.Rendition) bool { return r.Encoder == config.Camera })
}

// tracks says what a rendition of that video carries, as "h264+aac".
func (p *planner) tracks(video string) string {
	if p.sound() {
		return video + withSound
	}
	return video
}

func (p *planner) tracksOf(rendition string) string {
	r, _ := p.config.Rendition(rendition)
	return p.tracks(r.Codec)
}

func (p *planner) encode(r config.Rendition) encodeConfig {
	fps := p.fps
	if r.FPS != (config.Rate{}) {
		fps = hw.Rate(r.FPS)
	}
	gop := max(int(fps.Float()*time.Duration(r.GOP).Seconds()+0.5), 1)
	return encodeConfig{
		Rendition: r.Name, Choice: r.Encoder, Tracks: p.tracks(r.Codec),
		EncoderConfig: hw.EncoderConfig{
			Codec: codecs[r.Codec], Width: r.Width, Height: r.Height, FPS: fps,
			GOP: gop, Profile: r.Profile, Preset: r.Preset, Threads: r.Threads,
		},
	}
}

// place finds encoders for the config's renditions.
func (p *planner) place(drivers []hw.EncoderDriver) []placement {
	var list []encodeConfig
	for _, r := range p.config.Renditions {
		list = append(list, p.encode(r))
	}
	return place(list, drivers)
}

// A ServicePlan is one line of a plan for people and programs; it holds no
// secrets.
type ServicePlan struct {
	Name  string   `json:"name"`
	Does  string   `json:"does"`
	Needs []string `json:"needs"`
}

// Plan says what a config would run on a board with those encoders, with
// everything on air and recording; see [Encoders].
func Plan(c config.Config, b hw.Board, drivers []hw.EncoderDriver) []ServicePlan {
	all := Wanted{Outputs: map[string]bool{}, Record: true}
	for _, o := range c.Outputs {
		all.Outputs[o.Name] = true
	}
	b.Encoders = drivers
	placed := placements(c, drivers)
	var list []ServicePlan
	for _, s := range plan(c, b, all) {
		does := line(s.Config)
		if s.Name == "sound" {
			does += soundSettings(c.Audio)
		}
		if e, ok := s.Config.(encodeConfig); ok && placed[e.Rendition].Reason != "" {
			does += "; " + placed[e.Rendition].Reason
		}
		list = append(list, ServicePlan{s.Name, does, append([]string{}, s.Needs...)})
	}
	return list
}

// Describe returns the plan as text, one service a line.
func Describe(c config.Config, b hw.Board, drivers []hw.EncoderDriver) string {
	var s strings.Builder
	for _, v := range Plan(c, b, drivers) {
		fmt.Fprintf(&s, "  %-16s %s\n", v.Name, v.Does)
	}
	return s.String()
}

// line says what a service will do.
func line(conf any) string {
	switch c := conf.(type) {
	case deviceConfig:
		return "watch what is plugged into board " + c.Board
	case cameraConfig:
		how := ""
		if c.Coded {
			how = ", coded by the camera"
		}
		if c.Buffers != config.Auto {
			how += ", buffers " + c.Buffers
		}
		return fmt.Sprintf("capture %s at %dx%d, %.4g fps%s", c.Source, c.Width, c.Height, c.FPS.Float(), how)
	case pictureConfig:
		return fmt.Sprintf("slate when nothing comes in, %dx%d", c.Width, c.Height)
	case micConfig:
		return "capture sound from " + c.Source
	case soundConfig:
		return fmt.Sprintf("aac %d kbit/s", c.Bitrate/1000)
	case encodeConfig:
		return fmt.Sprintf("%s %dx%d %.4g fps, key frame every %d, encoder %s%s", c.Codec, c.Width, c.Height, c.FPS.Float(), c.GOP, c.Choice, byDrivers(c))
	case pushConfig:
		return fmt.Sprintf("push %s to %s", c.Rendition, c.URL)
	case recordConfig:
		return fmt.Sprintf("record %s to %s", c.Rendition, c.Dir)
	case rtspConfig:
		return "serve " + secured("RTSP", c.Secure) + " on " + c.Addr
	case rtmpConfig:
		return "serve " + secured("RTMP", c.Secure) + " on " + c.Addr
	case webrtcConfig:
		return "serve WebRTC on " + c.Addr
	case liveConfig:
		return "serve HLS, DASH, FLV, TS, MP4 and JPEG by the page's server"
	case panelConfig:
		return "keys and lamps of board " + c.Board
	case tallyConfig:
		return "forget what switchers said when they fall silent"
	case switcherConfig:
		return "listen for tally: " + c.Link
	case tallyOutConfig:
		return fmt.Sprintf("show the tally at %s, display %d", c.Address, c.Input)
	case ptzConfig:
		return fmt.Sprintf("move camera %d at %s", c.Camera, c.Port)
	case remoteConfig:
		return "start and stop from " + c.Port
	case webConfig:
		return "serve the page on " + c.Addr
	default:
		return fmt.Sprintf("%T", conf)
	}
}

// secured is the protocol's name, over TLS or not.
func secured(protocol string, secure bool) string {
	if secure {
		return protocol + "S"
	}
	return protocol
}

// byDrivers says which encoders there are for a rendition, if any is known.
func byDrivers(c encodeConfig) string {
	if c.Drivers == "" {
		return ""
	}
	return ": " + strings.ReplaceAll(c.Drivers, " ", ", else ")
}
