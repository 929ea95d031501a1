// Package config turns the box's TOML file into typed values and back.
//
//	file ─► TOML tree ─► migrate ─► decode ─► defaults ─► validate ─► Config
//	                                   └── every fault at once, with its line ──► Faults
//
// A [Config] is plain data that its holder owns: copy it, compare its parts,
// change a copy. Stream keys are of type [Secret] and live in [Secrets], a file
// of their own; the config file refers to them as "secret:NAME".
package config

// Config is the whole configuration. Its parts, apart from the lists, compare
// with ==.
type Config struct {
	// Version is the layout of the file; a file without one has version 1.
	Version int `toml:"version"`

	Box        Box         `toml:"box"`
	Video      Video       `toml:"video"`
	Audio      Audio       `toml:"audio"`
	Renditions []Rendition `toml:"rendition"` // at least one
	Outputs    []Output    `toml:"output,omitempty"`
	Serve      Serve       `toml:"serve"`
	Watch      Watch       `toml:"watch"`
	Record     Record      `toml:"record"`

	Panel     Panel      `toml:"panel"`
	Keys      []Key      `toml:"key,omitempty"`
	Lamps     []Lamp     `toml:"lamp,omitempty"`
	Tallies   []Tally    `toml:"tally,omitempty"`
	TallyOuts []TallyOut `toml:"tally_out,omitempty"`
	PTZ       PTZ        `toml:"ptz,omitempty"`
	Remote    Remote     `toml:"remote,omitempty"`
}

// Box is about the box as a whole.
type Box struct {
	Name string `toml:"name"` // for people, 1–64 characters
}

// Video is the picture that comes in.
type Video struct {
	// Source is "auto", "test" or "v4l2:" and a camera's stable name: a path
	// below /dev/v4l/by-path or, where udev has none for it, its place on the bus;
	// or "external:" and the name of a device program.
	Source string `toml:"source"`
	Width  int    `toml:"width"`  // pixels, even
	Height int    `toml:"height"` // pixels, even
	FPS    Rate   `toml:"fps"`
	// Buffers says how pictures may get to an encoder of hardware: Auto takes
	// the best way, Export, Import and Copy allow that one.
	Buffers string `toml:"buffers"`
}

// Audio is the sound that comes in, and how it is coded.
type Audio struct {
	// Source is "auto", "test", "none" or "alsa:" and the card's id.
	Source  string  `toml:"source"`
	Bitrate BitRate `toml:"bitrate"`
	// Delay moves the sound later against the picture; negative is earlier.
	Delay Span `toml:"delay"`
	// Channels says which of the card's channels are heard.
	Channels Channels `toml:"channels"`
	// Gain makes the sound louder or softer.
	Gain Level `toml:"gain"`
	// Silence is the peak level (dBFS, after the gain) below which sound counts
	// as silent, and SilenceAfter the time after which that is a fault; zero
	// means never.
	Silence      Level `toml:"silence"`
	SilenceAfter Span  `toml:"silence_after"`
}

// A Rendition is one coding of the picture, with the sound.
type Rendition struct {
	Name    string  `toml:"name"`
	Codec   string  `toml:"codec"`            // h264 | h265
	Width   int     `toml:"width,omitempty"`  // pixels, even; the file may leave size and fps to [Video]
	Height  int     `toml:"height,omitempty"` // pixels, even
	FPS     Rate    `toml:"fps,omitempty"`
	Bitrate BitRate `toml:"bitrate"`
	GOP     Span    `toml:"gop"`     // from key picture to key picture
	Encoder string  `toml:"encoder"` // auto | hardware | software | camera
	// Profile is "" (the encoder's best) or a name from the codec's standard.
	Profile string `toml:"profile,omitempty"`
	// Preset is "" (the encoder's default) or one of libx264's speed presets.
	Preset string `toml:"preset,omitempty"`
	// Threads is for software encoders; 0 leaves it to the encoder.
	Threads int `toml:"threads,omitempty"`
	// Access says who may watch it, if not whom [Watch] lets in: "" or one of
	// the values of [Watch.Access].
	Access string `toml:"access,omitempty"`
}

// An Output is one destination.
type Output struct {
	Name      string  `toml:"name"`
	URL       Address `toml:"url"`
	Key       Secret  `toml:"key,omitempty"`
	Rendition string  `toml:"rendition"`
	Start     string  `toml:"start"` // button | boot
	// Required says that the show is not well while this output is down.
	Required bool `toml:"required"`
}

// Serve lists the listeners, each as HOST:PORT or :PORT; "" is off.
type Serve struct {
	Web    string `toml:"web"`
	RTSP   string `toml:"rtsp"`
	RTMP   string `toml:"rtmp"`
	SRT    string `toml:"srt"`    // UDP
	WebRTC string `toml:"webrtc"` // UDP and TCP
	RTSPS  string `toml:"rtsps"`  // RTSP over TLS, with SRTP
	RTMPS  string `toml:"rtmps"`  // RTMP over TLS
	// Multicast offers renditions that are open to everybody to RTSP players
	// by multicast, too; it is sent while one asks for it.
	Multicast bool `toml:"multicast"`
	// Public are IP addresses at which viewers outside reach the box, for WebRTC
	// through address translation.
	Public []string `toml:"public,omitempty"`
	// Hosts are further names under which browsers may reach the web page,
	// beside IP addresses, localhost, *.local and the box's host name.
	Hosts []string `toml:"hosts,omitempty"`
}

// Watch says who may watch the renditions that the box serves.
type Watch struct {
	// Access is Open, Password or Link. A link opens what a password does, too.
	Access   string `toml:"access"`
	User     string `toml:"user"`
	Password Secret `toml:"password,omitempty"`
	// Readers and ReadersPerAddress bound how many watch at a time, in all and
	// from one IPv4 address or IPv6 /64; 0 is no limit.
	Readers           int `toml:"readers"`
	ReadersPerAddress int `toml:"readers_per_address"`
}

// The values of Watch.Access.
const (
	Open     = "open"     // everybody
	Password = "password" // who knows user and password, or has a link
	Link     = "link"     // who has a link that the box signed
)

// Record is about recordings.
type Record struct {
	// Dir is relative to the state directory, where it is made if need be, or
	// absolute, where it has to be there: a medium may be out.
	Dir string `toml:"dir"`
	// Rendition is the name of the one that is recorded, "" the first.
	Rendition string `toml:"rendition,omitempty"`
	// Length is how long a file gets before the next one begins.
	Length Span `toml:"length"`
}

// The values of Rendition.Encoder.
const (
	Auto     = "auto"
	Hardware = "hardware"
	Software = "software"
	// Camera passes on what the camera codes by itself; an encoder codes only
	// the slate.
	Camera = "camera"
)

// The values of Video.Buffers, beside [Auto]. Where a device cannot do what is
// asked for, pictures are copied.
const (
	Export = "export" // the encoder reads the camera's memory
	Import = "import" // the camera writes into the encoder's memory
	Copy   = "copy"   // no memory is shared
)

// The values of Output.Start.
const (
	OnButton = "button"
	OnBoot   = "boot"
)

// currentVersion is the layout that this program writes.
const currentVersion = 1

// Default is what an empty file means, and the one place of all defaults.
// Values not given in a rendition or output come from defaultRendition and
// defaultOutput below.
func Default() Config {
	c := Config{
		Version: currentVersion,
		Box:     Box{Name: "Encoder"},
		Video:   Video{Source: "auto", Width: 1920, Height: 1080, FPS: Rate{30, 1}, Buffers: Auto},
		Audio:   Audio{Source: "auto", Bitrate: 128_000, Channels: Stereo, Silence: -60, SilenceAfter: 30e9},
		Serve:   Serve{Web: ":8080", RTSP: ":8554", Multicast: true},
		Watch:   Watch{Access: Open, User: "viewer", Readers: 500, ReadersPerAddress: 250},
		Record:  Record{Dir: "recordings", Length: 3600e9},
		Panel:   Panel{Double: 400e6, Confirm: 5e9, Stuck: 30e9},
		PTZ:     PTZ{Baud: 9600, Camera: 1},
		Remote:  Remote{Baud: 9600},
	}
	main := defaultRendition()
	main.Name = "main"
	main.inherit(c.Video)
	c.Renditions = []Rendition{main}
	return c
}

func defaultRendition() Rendition {
	return Rendition{Codec: "h264", GOP: 2e9, Encoder: Auto}
}

func defaultOutput() Output { return Output{Start: OnButton} }

// inherit fills what the file left open: size and rate of the picture that
// comes in, and a bit rate that fits both.
func (r *Rendition) inherit(v Video) {
	if r.Width == 0 && r.Height == 0 {
		r.Width, r.Height = v.Width, v.Height
	}
	if r.FPS == (Rate{}) {
		r.FPS = v.FPS
	}
	if r.Bitrate == 0 {
		r.Bitrate = usualBitRate(r.Width*r.Height, r.FPS)
	}
}

// usualBitRates are common choices for live H.264 at up to 30 pictures a
// second, by pixels of a picture.
var usualBitRates = []struct {
	pixels int
	rate   BitRate
}{
	{640 * 360, 800_000},
	{960 * 540, 2_000_000},
	{1280 * 720, 3_500_000},
	{1920 * 1080, 6_000_000},
	{2560 * 1440, 10_000_000},
	{4096 * 2304, 20_000_000},
}

// usualBitRate allows half as much again above 30 pictures a second.
func usualBitRate(pixels int, fps Rate) BitRate {
	rate := usualBitRates[len(usualBitRates)-1].rate
	for _, u := range usualBitRates {
		if pixels <= u.pixels {
			rate = u.rate
			break
		}
	}
	if fps.Float() > 30 {
		rate += rate / 2
	}
	return rate
}

// Recorded returns the name of the rendition that is recorded.
func (c Config) Recorded() string {
	if c.Record.Rendition == "" && len(c.Renditions) > 0 {
		return c.Renditions[0].Name
	}
	return c.Record.Rendition
}

// Rendition returns the rendition of that name.
func (c Config) Rendition(name string) (Rendition, bool) {
	for _, r := range c.Renditions {
		if r.Name == name {
			return r, true
		}
	}
	return Rendition{}, false
}
