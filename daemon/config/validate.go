package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The ranges of numbers.
const (
	minSide, maxSide       = 64, 4096
	minFPS, maxFPS         = 1, 120
	minBitRate, maxBitRate = BitRate(50_000), BitRate(100_000_000)
	minSound, maxSound     = BitRate(32_000), BitRate(320_000)
	minGOP, maxGOP         = Span(200 * time.Millisecond), Span(10 * time.Second)
	maxDelay               = Span(2 * time.Second)
	minGain, maxGain       = Level(-60), Level(24)
	minSilence, maxSilence = Level(-90), Level(-20)
	maxSilenceAfter        = Span(time.Hour)
	maxChannel             = 64
	maxThreads             = 16
	maxReaders             = 10_000
	maxCredential          = 200 // bytes: servers look at no more than 256
	maxNameLength          = 32
	minLength, maxLength   = Span(time.Minute), Span(24 * time.Hour)
	maxPath                = 1000 // bytes
	maxTitleLength         = 64
)

// The words that settings may have.
var (
	codecs   = []string{"h264", "h265"}
	encoders = []string{Auto, Hardware, Software, Camera}
	buffers  = []string{Auto, Export, Import, Copy}
	starts   = []string{OnButton, OnBoot}
	accesses = []string{Open, Password, Link}
	profiles = map[string][]string{
		"h264": {"baseline", "main", "high"},
		"h265": {"main"},
	}
	presets = []string{"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"}
)

// nameLetters describes what validName allows.
const nameLetters = "a–z, 0–9, _ and -"

// validName reports whether s can be part of addresses, labels and file names.
func validName(s string) bool {
	return s != "" && len(s) <= maxNameLength &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// A validator adds to the decoder's faults.
type validator struct {
	*decoder
	rules Rules
}

func (v *validator) config(c *Config) {
	v.box(c.Box)
	v.video(c.Video)
	v.audio(c.Audio)
	names := map[string]string{}
	for i, r := range c.Renditions {
		at := fmt.Sprintf("rendition[%d]", i)
		v.name(at, "rendition", r.Name, names)
		v.rendition(at, r)
		v.byCamera(at, r, c)
	}
	names = map[string]string{}
	for i := range c.Outputs {
		at := fmt.Sprintf("output[%d]", i)
		v.name(at, "output", c.Outputs[i].Name, names)
		v.output(at, &c.Outputs[i], c)
	}
	v.serve(c.Serve)
	v.watch(c)
	v.panel(c)
	v.record(c)
}

func (v *validator) record(c *Config) {
	v.folder(c.Record.Dir)
	if name := c.Record.Rendition; name != "" {
		if _, ok := c.Rendition(name); !ok {
			v.noRendition("record.rendition", name, c)
		}
	}
	if l := c.Record.Length; l < minLength || l > maxLength {
		v.fault("record.length", fmt.Sprintf("length is out of range, from %v to %v", minLength, maxLength), `write for example "1h"`)
	}
}

// ours are names in the state directory that are not for recordings, and systems
// folders of the system.
var (
	ours = []string{
		"requests", "factory-reset", "lock", "control.sock", "config.toml", "config.toml" + previousSuffix, secretsFile,
		"wanted.json", "usage.json", "lamps.json", "budget.json", "tls.pem",
	}
	systems = []string{"/", "/proc", "/sys", "/dev", "/etc", "/boot", "/usr"}
)

// folder checks where recordings go. A relative one stays below the state
// directory, which is not for recordings itself.
func (v *validator) folder(dir string) {
	const another = `write dir = "recordings" or another folder`
	clean := path.Clean(dir)
	top, _, _ := strings.Cut(clean, "/")
	within := func(d string) bool { return clean == d || d != "/" && strings.HasPrefix(clean, d+"/") }
	switch {
	case dir == "":
		v.fault("record.dir", "dir is empty", another)
	case len(dir) > maxPath || !utf8.ValidString(dir) || strings.ContainsFunc(dir, unicode.IsControl):
		v.fault("record.dir", fmt.Sprintf("dir must have 1 to %d printable characters", maxPath), another)
	case clean == ".", top == "..", slices.Contains(ours, top):
		v.fault("record.dir", "dir is not a folder of its own in the state directory", another)
	case slices.ContainsFunc(systems, within):
		v.fault("record.dir", "dir is a folder of the system", another)
	}
}

func (v *validator) box(b Box) {
	n := utf8.RuneCountInString(b.Name)
	if n == 0 || n > maxTitleLength || strings.ContainsFunc(b.Name, unicode.IsControl) {
		v.fault("box.name", fmt.Sprintf("name must have 1 to %d printable characters", maxTitleLength), "choose another one")
	}
}

func (v *validator) video(s Video) {
	program, isProgram := strings.CutPrefix(s.Source, "external:")
	if camera, isDevice := strings.CutPrefix(s.Source, "v4l2:"); isDevice && !stable(camera) {
		v.fault("video.source", "source is a name that may mean another camera after the next start",
			`write "v4l2:/dev/v4l/by-path/…" or a name that "encoderd probe" lists`)
	} else if !isDevice && (!isProgram || program == "") && s.Source != "auto" && s.Source != "test" {
		v.fault("video.source", fmt.Sprintf("source is of the unknown kind %q", sourceKind(s.Source)),
			`write "auto", "test", "v4l2:/dev/v4l/by-path/…" or "external:PROGRAM"`)
	}
	v.side("video.width", "width", s.Width)
	v.side("video.height", "height", s.Height)
	v.fps("video.fps", s.FPS)
	v.word("video.buffers", "buffers", s.Buffers, buffers)
}

func (v *validator) audio(s Audio) {
	card, isCard := strings.CutPrefix(s.Source, "alsa:")
	if !slices.Contains([]string{"auto", "test", "none"}, s.Source) && (!isCard || card == "") {
		v.fault("audio.source", fmt.Sprintf("source is of the unknown kind %q", sourceKind(s.Source)),
			`write "auto", "test", "none" or "alsa:CARDID"`)
	}
	v.bitRate("audio.bitrate", s.Bitrate, minSound, maxSound)
	if s.Delay < -maxDelay || s.Delay > maxDelay {
		v.fault("audio.delay", fmt.Sprintf("delay is out of range, from -%v to %v", maxDelay, maxDelay), "choose a smaller one")
	}
	if c := s.Channels; min(c.Left, c.Right) < 1 || max(c.Left, c.Right) > maxChannel {
		v.fault("audio.channels", fmt.Sprintf("channels is out of range, from 1 to %d", maxChannel), "choose channels that the card has")
	}
	v.level("audio.gain", "gain", s.Gain, minGain, maxGain)
	v.level("audio.silence", "silence", s.Silence, minSilence, maxSilence)
	if s.SilenceAfter < 0 || s.SilenceAfter > maxSilenceAfter {
		v.fault("audio.silence_after", fmt.Sprintf("silence_after is out of range, from 0s to %v", maxSilenceAfter), `write "0s" for never`)
	}
}

func (v *validator) level(path, key string, l, least, most Level) {
	if l < least || l > most {
		v.fault(path, fmt.Sprintf("%s is out of range, from %v to %v", key, least, most), "choose one within")
	}
}

// stable reports whether a camera's name is a path or its place on a bus, such
// as "usb-0000:01:00.0-1.3"; "video0" is neither.
func stable(camera string) bool {
	return strings.HasPrefix(camera, "/") || strings.ContainsAny(camera, ":-")
}

// sourceKind is the part before the colon: what follows may hold a password.
func sourceKind(source string) string {
	kind, _, _ := strings.Cut(source, ":")
	return kind
}

// name checks a name and that no other one in seen is the same.
func (v *validator) name(at, what, name string, seen map[string]string) {
	path := at + ".name"
	if name == "" {
		v.fault(path, "the "+what+" has no name", fmt.Sprintf("write name = %q or another one", "main"))
		return
	}
	if !validName(name) {
		v.fault(path, fmt.Sprintf("name must be 1 to %d of %s", maxNameLength, nameLetters), "choose another one")
	}
	if first, ok := seen[name]; ok {
		v.fault(path, fmt.Sprintf("two %ss have the name %q, the first in line %d", what, name, v.lines.of(first)), "rename one of them")
		return
	}
	seen[name] = path
}

func (v *validator) rendition(at string, r Rendition) {
	v.word(at+".codec", "codec", r.Codec, codecs)
	v.word(at+".encoder", "encoder", r.Encoder, encoders)
	if r.Profile != "" && profiles[r.Codec] != nil {
		v.word(at+".profile", "profile of "+r.Codec, r.Profile, profiles[r.Codec])
	}
	if r.Preset != "" {
		v.word(at+".preset", "preset", r.Preset, presets)
	}
	// What was inherited is checked, and reported, where it stands.
	if v.given(at+".width") || v.given(at+".height") {
		v.size(at, r)
	}
	if v.given(at + ".fps") {
		v.fps(at+".fps", r.FPS)
	}
	v.bitRate(at+".bitrate", r.Bitrate, minBitRate, maxBitRate)
	if r.GOP < minGOP || r.GOP > maxGOP {
		v.fault(at+".gop", fmt.Sprintf("gop is out of range, from %v to %v", minGOP, maxGOP), `write for example "2s"`)
	}
	if r.Threads < 0 || r.Threads > maxThreads {
		v.fault(at+".threads", fmt.Sprintf("threads is out of range, from 0 to %d", maxThreads), "write 0 to leave it to the encoder")
	}
}

// byCamera checks a rendition that the camera itself codes: that is one stream,
// as it comes, and there is nothing to make another one of.
func (v *validator) byCamera(at string, r Rendition, c *Config) {
	if r.Encoder != Camera {
		return
	}
	if len(c.Renditions) > 1 {
		v.fault(at+".encoder", "a camera that codes by itself gives one rendition only", `remove the others, or write encoder = "auto"`)
	}
	if r.Width != c.Video.Width || r.Height != c.Video.Height {
		v.fault(at+".width", "a camera that codes by itself gives the size of [video] only", "leave width and height out")
	}
	if r.Codec != "h264" {
		v.fault(at+".codec", "a camera that codes by itself gives h264 only", `write codec = "h264"`)
	}
}

func (v *validator) size(at string, r Rendition) {
	if !v.given(at+".width") || !v.given(at+".height") {
		v.fault(at, "a size needs both width and height", "write both, or none for the size of [video]")
		return
	}
	v.side(at+".width", "width", r.Width)
	v.side(at+".height", "height", r.Height)
}

// given reports whether the file has that key.
func (v *validator) given(path string) bool { return v.lines[path] > 0 }

// side checks one side of a picture: 4:2:0 pictures have even ones.
func (v *validator) side(path, key string, n int) {
	if n < minSide || n > maxSide {
		v.fault(path, fmt.Sprintf("%s is out of range, from %d to %d", key, minSide, maxSide), "choose one within")
		return
	}
	if n%2 != 0 {
		v.fault(path, fmt.Sprintf("%s is odd", key), fmt.Sprintf("choose an even number, for example %d", n-1))
	}
}

func (v *validator) fps(path string, r Rate) {
	if f := r.Float(); f < minFPS || f > maxFPS {
		v.fault(path, fmt.Sprintf("fps is out of range, from %d to %d", minFPS, maxFPS), "choose one within")
	}
}

func (v *validator) bitRate(path string, b, least, most BitRate) {
	if b < least || b > most {
		v.fault(path, fmt.Sprintf("bitrate is out of range, from %v to %v", least, most), "choose one within")
	}
}

func (v *validator) word(path, key, got string, known []string) {
	if !slices.Contains(known, got) {
		v.fault(path, fmt.Sprintf("%s cannot be %q", key, got), "write "+list(known))
	}
}

func (v *validator) output(at string, o *Output, c *Config) {
	v.address(at+".url", o.URL)
	v.resolve(at+".key", &o.Key)
	v.word(at+".start", "start", o.Start, starts)
	if r, ok := c.Rendition(o.Rendition); ok {
		v.carries(at, o, r)
		return
	}
	v.noRendition(at+".rendition", o.Rendition, c)
}

func (v *validator) noRendition(path, name string, c *Config) {
	var names []string
	for _, r := range c.Renditions {
		names = append(names, r.Name)
	}
	v.fault(path, fmt.Sprintf("there is no rendition %q", name), "write "+list(names))
}

// onlyH264 are the schemes of protocols that carry no other pictures.
var onlyH264 = []string{"rtmp", "rtmps"}

// carries checks that the protocol of an output takes the codec of its
// rendition.
func (v *validator) carries(at string, o *Output, r Rendition) {
	if r.Codec == "h265" && slices.Contains(onlyH264, o.URL.Scheme()) {
		v.fault(at+".rendition", fmt.Sprintf("the rendition %q is h265, which %s does not carry", r.Name, o.URL.Scheme()),
			`write codec = "h264" there, or choose another rendition`)
	}
}

// A listener is one of the addresses under [serve].
type listener struct {
	key, address string
	tcp, udp     bool
}

func (v *validator) serve(s Serve) {
	listeners := []listener{
		{"web", s.Web, true, false},
		{"rtsp", s.RTSP, true, false},
		{"rtmp", s.RTMP, true, false},
		{"srt", s.SRT, false, true},
		{"webrtc", s.WebRTC, true, true},
		{"rtsps", s.RTSPS, true, false},
		{"rtmps", s.RTMPS, true, false},
	}
	var open []listener
	for _, l := range listeners {
		if l.address == "" || !v.listen(l) {
			continue
		}
		for _, o := range open {
			if l.collides(o) {
				v.fault("serve."+l.key, fmt.Sprintf("%s and %s listen on the same port", l.key, o.key), "give one of them another port")
			}
		}
		open = append(open, l)
	}
	for i, a := range s.Public {
		if _, err := netip.ParseAddr(a); err != nil {
			v.fault(fmt.Sprintf("serve.public[%d]", i), "public holds something that is not an IP address", `write addresses only, for example "203.0.113.7"`)
		}
	}
	for i, h := range s.Hosts {
		if h == "" || strings.ContainsAny(h, ":/ *") {
			v.fault(fmt.Sprintf("serve.hosts[%d]", i), "hosts holds something that is not a host name", `write names only, for example "box.example.org"`)
		}
	}
}

// watch checks who may watch, and settles the password.
func (v *validator) watch(c *Config) {
	w := &c.Watch
	v.resolve("watch.password", &w.Password)
	v.word("watch.access", "access", w.Access, accesses)
	v.readers("watch.readers", "readers", w.Readers)
	v.readers("watch.readers_per_address", "readers_per_address", w.ReadersPerAddress)
	if len(w.User) > maxCredential || len(w.Password.Reveal()) > maxCredential {
		v.fault("watch.password", fmt.Sprintf("user and password may have %d letters each", maxCredential), "choose shorter ones")
	}
	if strings.ContainsFunc(w.User, unicode.IsControl) || strings.Contains(w.User, ":") {
		v.fault("watch.user", "user holds a character that players cannot send", "leave colons out")
	}
	asked := w.Access == Password
	for i, r := range c.Renditions {
		if r.Access == "" {
			continue
		}
		v.word(fmt.Sprintf("rendition[%d].access", i), "access", r.Access, accesses)
		asked = asked || r.Access == Password
	}
	if asked && w.Password == (Secret{}) {
		v.fault("watch.password", "a password is asked for, but there is none", `write password = "secret:NAME", and NAME = "…" into secrets.toml`)
	}
}

func (v *validator) readers(path, key string, n int) {
	if n < 0 || n > maxReaders {
		v.fault(path, fmt.Sprintf("%s is out of range, from 0 to %d", key, maxReaders), "write 0 for no limit")
	}
}

// listen checks the form of an address.
func (v *validator) listen(l listener) bool {
	_, port, err := net.SplitHostPort(l.address)
	if err != nil || port == "" {
		v.fault("serve."+l.key, l.key+" has no port", `write for example ":8080", or "" to turn it off`)
		return false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		v.fault("serve."+l.key, l.key+" has an impossible port", "choose one from 1 to 65535")
		return false
	}
	return true
}

// collides reports whether both cannot be open together. Port 0 is a free port
// of the kernel's choice.
func (l listener) collides(o listener) bool {
	sameNet := l.tcp && o.tcp || l.udp && o.udp
	host1, port1, _ := net.SplitHostPort(l.address) // both passed listen
	host2, port2, _ := net.SplitHostPort(o.address)
	n1, _ := strconv.Atoi(port1)
	n2, _ := strconv.Atoi(port2)
	return sameNet && n1 == n2 && n1 != 0 && (host1 == host2 || everywhere(host1) || everywhere(host2))
}

func everywhere(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }

// list writes words for people: "a, b or c".
func list(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	if len(quoted) < 2 {
		return strings.Join(quoted, "")
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}
