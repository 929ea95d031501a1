package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// example is the file that the design page shows.
const example = `[box]
name = "Main hall"

[video]                       # what comes in
source = "auto"
width = 1920
height = 1080
fps = 30

[audio]
source = "auto"

[[rendition]]
name = "main"
codec = "h264"
bitrate = "6M"
gop = "2s"
encoder = "auto"              # auto | hardware | software

[[rendition]]
name = "sub"
width = 640
height = 360
bitrate = "800k"

[[output]]
name = "youtube"
url = "rtmps://a.rtmps.youtube.com:443/live2"
key = "secret:youtube"        # write-only: never shown again
rendition = "main"
start = "button"              # button | boot
required = true

[serve]
web = ":8080"                 # box images use 80 and 443
rtsp = ":8554"
rtmp = ":1935"
srt = ":8890"
webrtc = ":8189"              # one UDP and TCP port for ICE

[record]
dir = "recordings"            # relative to the state directory
`

// obsTally follows OBS, in five lines.
const obsTally = "[[tally]]\nprotocol = 'obs'\naddress = 'ws://h'\ninput = 's'\nname = 'a'\n"

var rules = Rules{
	Schemes: []string{"rtmp", "rtmps"},
	CheckURL: func(u string) error {
		if strings.Contains(u, ":99999") {
			return errors.New("the port is above 65535")
		}
		return nil
	},
	CheckOrder: func(order string) error {
		if order != "stream.start" && order != "stream.stop" && order != "factory.reset" {
			return fmt.Errorf("%q: no such action", order)
		}
		return nil
	},
	CameraModels: []string{"sony"},
	Secret: func(name string) (Secret, bool) {
		return named(name, "live-key"), name == "youtube"
	},
}

// equal compares configs; secrets and addresses by their real values.
func equal(t *testing.T, got, want Config) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Secret) bool { return a == b }),
		cmp.Comparer(func(a, b Address) bool { return a == b })); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}

func TestEmptyFileIsADefaultBox(t *testing.T) {
	got, err := Parse(nil, Rules{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, Config{
		Version: 1,
		Box:     Box{Name: "Encoder"},
		Video:   Video{Source: "auto", Width: 1920, Height: 1080, FPS: Rate{30, 1}, Buffers: Auto},
		Audio:   Audio{Source: "auto", Bitrate: 128000, Channels: Channels{1, 2, false}, Silence: -60, SilenceAfter: Span(30 * time.Second)},
		Renditions: []Rendition{{
			Name: "main", Codec: "h264", Width: 1920, Height: 1080, FPS: Rate{30, 1},
			Bitrate: 6_000_000, GOP: Span(2 * time.Second), Encoder: "auto",
		}},
		Serve:  Serve{Web: ":8080", RTSP: ":8554", Multicast: true},
		Watch:  Watch{Access: "open", User: "viewer", Readers: 500, ReadersPerAddress: 250},
		Record: Record{Dir: "recordings", Length: Span(time.Hour)},
		Panel:  Panel{Double: Span(400 * time.Millisecond), Confirm: Span(5 * time.Second), Stuck: Span(30 * time.Second)},
		PTZ:    PTZ{Baud: 9600, Camera: 1},
		Remote: Remote{Baud: 9600},
	})
	equal(t, got, Default())
}

func TestExampleFile(t *testing.T) {
	got, err := Parse([]byte(example), rules)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Box.Name = "Main hall"
	sub := want.Renditions[0]
	sub.Name, sub.Width, sub.Height, sub.Bitrate = "sub", 640, 360, 800_000
	want.Renditions = append(want.Renditions, sub)
	want.Outputs = []Output{{
		Name: "youtube", URL: NewAddress("rtmps://a.rtmps.youtube.com:443/live2"), Key: named("youtube", "live-key"),
		Rendition: "main", Start: "button", Required: true,
	}}
	want.Serve = Serve{Web: ":8080", RTSP: ":8554", RTMP: ":1935", SRT: ":8890", WebRTC: ":8189", Multicast: true}
	equal(t, got, want)
}

func TestValuesInAllTheirForms(t *testing.T) {
	tests := []struct {
		name string
		doc  string
		got  func(Config) any
		want any
	}{
		{"camera by its path", "[video]\nsource='v4l2:/dev/v4l/by-path/platform-fe801000.csi-video-index0'", source, "v4l2:/dev/v4l/by-path/platform-fe801000.csi-video-index0"},
		{"camera by its place on the bus, as probe lists it", "[video]\nsource='v4l2:platform:vivid-000'", source, "v4l2:platform:vivid-000"},
		{"camera in a program of its own", "[video]\nsource='external:rpicam'", source, "external:rpicam"},
		{"camera by its USB port, as probe lists it", "[video]\nsource='v4l2:usb-0000:01:00.0-1.3'", source, "v4l2:usb-0000:01:00.0-1.3"},
		{"bit rate with M", "[[rendition]]\nname='a'\nbitrate='2.5M'", bitrate, BitRate(2_500_000)},
		{"bit rate with k", "[[rendition]]\nname='a'\nbitrate='800k'", bitrate, BitRate(800_000)},
		{"bit rate as digits in quotes", "[[rendition]]\nname='a'\nbitrate='2500000'", bitrate, BitRate(2_500_000)},
		{"bit rate as a number", "[[rendition]]\nname='a'\nbitrate=2_500_000", bitrate, BitRate(2_500_000)},
		{"bit rate follows the size", "[[rendition]]\nname='a'\nwidth=1280\nheight=720", bitrate, BitRate(3_500_000)},
		{"bit rate follows the rate", "video={fps=60}", bitrate, BitRate(9_000_000)},
		{"fps as a number", "video.fps = 25", fps, Rate{25, 1}},
		{"fps as an NTSC decimal", "video.fps = 29.97", fps, Rate{30000, 1001}},
		{"fps as a short film decimal", "video.fps = 23.98", fps, Rate{24000, 1001}},
		{"fps as a fraction", "video.fps = '60000/1001'", fps, Rate{60000, 1001}},
		{"fps as any decimal", "video.fps = 12.5", fps, Rate{12500, 1000}},
		{"rendition follows the video's size", "video={width=1280,height=720}", func(c Config) any { return c.Renditions[0].Width }, 1280},
		{"sound can come earlier", "audio.delay='-40ms'", func(c Config) any { return c.Audio.Delay.Duration() }, -40 * time.Millisecond},
		{"gain as text", "audio.gain='-3.5dB'", func(c Config) any { return c.Audio.Gain }, Level(-3.5)},
		{"gain with a plus and a space", "audio.gain='+6 dB'", func(c Config) any { return c.Audio.Gain }, Level(6)},
		{"gain as a number", "audio.gain=12", func(c Config) any { return c.Audio.Gain }, Level(12)},
		{"gain to a tenth", "audio.gain=-0.123", func(c Config) any { return c.Audio.Gain }, Level(-0.1)},
		{"left channel", "audio.channels='left'", channels, Channels{1, 1, false}},
		{"right channel", "audio.channels='right'", channels, Channels{2, 2, false}},
		{"both in one", "audio.channels='mono'", channels, Channels{1, 2, true}},
		{"crossed", "audio.channels='swap'", channels, Channels{2, 1, false}},
		{"two of a mixer", "audio.channels='17+18'", channels, Channels{17, 18, false}},
		{"one of a mixer", "audio.channels='3'", channels, Channels{3, 3, false}},
		{"the first two by their numbers", "audio.channels='1+2'", channels, Stereo},
		{"silence is no fault", "audio.silence_after='0s'", func(c Config) any { return c.Audio.SilenceAfter }, Span(0)},
		{"an output takes the first rendition", "[[output]]\nname='o'\nurl='rtmp://h/a'", func(c Config) any { return c.Outputs[0].Rendition }, "main"},
		{"an output waits for the button", "[[output]]\nname='o'\nurl='rtmp://h/a'", func(c Config) any { return c.Outputs[0].Start }, "button"},
		{"a listener can be off", "serve.rtsp = ''", func(c Config) any { return c.Serve.RTSP }, ""},
		{"ports on different addresses do not collide", "serve={web='127.0.0.1:80',rtsp='10.0.0.1:80'}", func(c Config) any { return c.Serve.Web }, "127.0.0.1:80"},
		{"UDP and TCP do not collide", "serve={web=':80',srt=':80'}", func(c Config) any { return c.Serve.SRT }, ":80"},
		{"free ports do not collide", "serve={web=':0',rtsp=':0'}", func(c Config) any { return c.Serve.Web }, ":0"},
		{"addresses outside", "serve.public=['203.0.113.7','2001:db8::1']", func(c Config) any { return c.Serve.Public }, []string{"203.0.113.7", "2001:db8::1"}},
		{"a key", "[[key]]\nname='STREAM'\npull='none'\nhold='stream.stop'\nhold_time='2s'", func(c Config) any { return c.Keys[0] }, Key{Name: "STREAM", Active: Low, Pull: None, Debounce: 5e6, Hold: "stream.stop", HoldTime: 2e9}},
		{"a lamp", "[[lamp]]\nname='TALLY'\nred='gpio:R'\ngreen='led:g'", func(c Config) any { return c.Lamps[0] }, Lamp{Name: "TALLY", Red: "gpio:R", Green: "led:g", Active: High}},
		{
			"a tally", "[[tally]]\nname='obs'\nprotocol='obs'\naddress='ws://10.0.0.5:4455'\ninput='Camera 1'\npassword='sesame'", func(c Config) any { return c.Tallies[0] },
			Tally{Name: "obs", Protocol: OBS, Address: "ws://10.0.0.5:4455", Input: "Camera 1", Password: NewSecret("sesame"), Timeout: 10e9, PreviewBit: 1, ProgramBit: 2, Says: Program, Active: Low, Pull: Auto, Debounce: 5e6},
		},
		{"a tally beside another", obsTally + "password='sesame'\n" + strings.Replace(obsTally, "'a'", "'b'", 1) + "password='sesame'\n" + strings.Replace(obsTally, "'a'", "'c'", 1), func(c Config) any { return len(c.Tallies) }, 3},
		{"a factory reset that is confirmed", "[[key]]\nname='A'\nlong='factory.reset'\nconfirm=true", func(c Config) any { return c.Keys[0].Long }, "factory.reset"},
		{"a tally by serial line", "[[tally]]\nname='t'\nprotocol='tsl3.1'\naddress='serial:/dev/ttyS1'\ninput='3'", func(c Config) any { return c.Tallies[0].Address }, "serial:/dev/ttyS1"},
		{"a password", "[watch]\naccess='password'\npassword='sesame'", func(c Config) any { return c.Watch.Password.Reveal() }, "sesame"},
		{"links for one rendition", "[[rendition]]\nname='a'\naccess='link'", func(c Config) any { return c.Renditions[0].Access }, "link"},
		{"any number of readers", "watch.readers=0", func(c Config) any { return c.Watch.Readers }, 0},
		{"hosts", "serve.hosts=['box.example.org']", func(c Config) any { return c.Serve.Hosts }, []string{"box.example.org"}},
		{"a key in an inline list of outputs", "output=[{name='o',url='rtmp://h/a',key='k'}]", func(c Config) any { return c.Outputs[0].Key.Reveal() }, "k"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse([]byte(tt.doc), Rules{})
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.got(c); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func bitrate(c Config) any  { return c.Renditions[0].Bitrate }
func fps(c Config) any      { return c.Renditions[0].FPS }
func channels(c Config) any { return c.Audio.Channels }
func source(c Config) any   { return c.Video.Source }

func TestFaults(t *testing.T) {
	const out = "[[output]]\nname = 'o'\nurl = 'rtmp://h/a'\n"
	tests := []struct{ name, doc, want string }{
		{"mistyped key", "[[rendition]]\nname = 'a'\nbitrat = 1", `line 3: unknown key "bitrat" in [[rendition]], did you mean "bitrate"?`},
		{"mistyped section", "[vidoe]", `line 1: unknown key "vidoe" at the top of the file, did you mean "video"?`},
		{"key like no other", "[box]\ncolour = 'red'", `line 2: unknown key "colour" in [box], known keys are name`},
		{"not TOML", "[box]\nname = Main hall", `line 2: this is not TOML, write KEY = VALUE, texts in "quotes", sections as [NAME]`},
		{"key twice", "[box]\nname = 'a'\nname = 'b'", `line 3: this is not TOML, write KEY = VALUE, texts in "quotes", sections as [NAME]`},
		{"bytes that are not text", "\x00\x00", `the file is damaged: it holds bytes that are not text, restore it from a copy`},
		{"single brackets", "[rendition]", `line 1: rendition is a table, not a list, write [[rendition]] in double brackets`},
		{"value for a section", "serve = 80", `line 1: serve is a whole number, not a section, write [serve] on a line of its own`},
		{"number in quotes", "[video]\nwidth = '1920'", `line 2: width is text, not a whole number, write digits without quotes`},
		{"text without quotes", "[box]\nname = 7", `line 2: name is a whole number, not text, write it in quotes`},
		{"yes for true", out + "required = 'yes'", `line 4: required is text, not true or false, write true or false without quotes`},
		{"list of wrong things", "serve.hosts = [1]", `line 1: hosts holds a whole number, write a list of texts, for example hosts = ["one", "two"]`},
		{"newer file", "version = 2", `line 1: version 2 of the file is not known here, the latest is 1, update the box, or write version = 1`},
		{"version as text", "version = '1'", `line 1: version is text, not a whole number, write digits without quotes`},

		{"empty name", "[box]\nname = ''", `line 2: name must have 1 to 64 printable characters, choose another one`},
		{"unknown source", "[video]\nsource = 'webcam:x'", `line 2: source is of the unknown kind "webcam", write "auto", "test", "v4l2:/dev/v4l/by-path/…" or "external:PROGRAM"`},
		{"a program without a name", "[video]\nsource = 'external:'", `line 2: source is of the unknown kind "external", write "auto", "test", "v4l2:/dev/v4l/by-path/…" or "external:PROGRAM"`},
		{"device without a path", "[video]\nsource = 'v4l2:video0'", `line 2: source is a name that may mean another camera after the next start, write "v4l2:/dev/v4l/by-path/…" or a name that "encoderd probe" lists`},
		{"unknown sound", "[audio]\nsource = 'pulse'", `line 2: source is of the unknown kind "pulse", write "auto", "test", "none" or "alsa:CARDID"`},
		{"odd width", "[video]\nwidth = 1921", `line 2: width is odd, choose an even number, for example 1920`},
		{"odd height of a rendition", "[[rendition]]\nname = 'a'\nwidth = 640\nheight = 361", `line 4: height is odd, choose an even number, for example 360`},
		{"too wide", "[video]\nwidth = 8000", `line 2: width is out of range, from 64 to 4096, choose one within`},
		{"number beyond 32 bits", "[video]\nwidth = 4294967936", `line 2: width is out of range, from 64 to 4096, choose one within`},
		{"half a size", "[[rendition]]\nname = 'a'\nwidth = 640", `line 1: a size needs both width and height, write both, or none for the size of [video]`},
		{"too many pictures", "[video]\nfps = 240", `line 2: fps is out of range, from 1 to 120, choose one within`},
		{"no pictures", "[video]\nfps = 0", `line 2: fps is out of range, from 1 to 120, choose one within`},
		{"not a number of pictures", "[video]\nfps = nan", `line 2: fps is out of range, from 1 to 120, choose one within`},
		{"fraction over zero", "[video]\nfps = '30/0'", `line 2: fps is not a frame rate, write pictures per second, for example 30, 29.97 or "30000/1001"`},
		{"unit unknown", "[[rendition]]\nname = 'a'\nbitrate = '6X'", `line 3: bitrate is not a bit rate, write bit/s, for example "6M", "800k" or 2500000`},
		{"way of pictures unknown", "[video]\nbuffers = 'heap'", `line 2: buffers cannot be "heap", write "auto", "export", "import" or "copy"`},
		{"bit rate of zero", "[[rendition]]\nname = 'a'\nbitrate = 0", `line 3: bitrate must be above zero, write bit/s, for example "6M", "800k" or 2500000`},
		{"bit rate in Mbit/s", "[[rendition]]\nname = 'a'\nbitrate = 6", `line 3: bitrate is out of range, from 50k to 100M, choose one within`},
		{"sound above AAC", "[audio]\nbitrate = '1M'", `line 2: bitrate is out of range, from 32k to 320k, choose one within`},
		{"delay too long", "[audio]\ndelay = '3s'", `line 2: delay is out of range, from -2s to 2s, choose a smaller one`},
		{"gain without a number", "[audio]\ngain = 'loud'", `line 2: gain is not a level, write decibels, for example "6dB", "-3.5dB" or -12`},
		{"gain without end", "[audio]\ngain = nan", `line 2: gain is not a level, write decibels, for example "6dB", "-3.5dB" or -12`},
		{"gain as a switch", "[audio]\ngain = true", `line 2: gain is true or false, not a level, write decibels, for example "6dB", "-3.5dB" or -12`},
		{"gain too high", "[audio]\ngain = '30dB'", `line 2: gain is out of range, from -60dB to 24dB, choose one within`},
		{"gain far too low", "[audio]\ngain = -inf", `line 2: gain is out of range, from -60dB to 24dB, choose one within`},
		{"silence that is loud", "[audio]\nsilence = '0dB'", `line 2: silence is out of range, from -90dB to -20dB, choose one within`},
		{"silence noticed too late", "[audio]\nsilence_after = '2h'", `line 2: silence_after is out of range, from 0s to 1h0m0s, write "0s" for never`},
		{"channels unknown", "[audio]\nchannels = 'both'", `line 2: channels is no choice of channels, write "stereo", "left", "right", "mono", "swap", or channels of a larger card, for example "3+4"`},
		{"number of channels", "[audio]\nchannels = 2", `line 2: channels is a whole number, not a choice of channels, write "stereo", "left", "right", "mono", "swap", or channels of a larger card, for example "3+4"`},
		{"three channels", "[audio]\nchannels = '1+2+3'", `line 2: channels is no choice of channels, write "stereo", "left", "right", "mono", "swap", or channels of a larger card, for example "3+4"`},
		{"channels from zero", "[audio]\nchannels = '0+1'", `line 2: channels is out of range, from 1 to 64, choose channels that the card has`},
		{"duration without unit", "[[rendition]]\nname = 'a'\ngop = 2", `line 3: gop is a whole number, not a duration, write a number and a unit, for example "2s" or "500ms"`},
		{"endless gop", "[[rendition]]\nname = 'a'\ngop = '1m'", `line 3: gop is out of range, from 200ms to 10s, write for example "2s"`},
		{"codec unknown", "[[rendition]]\nname = 'a'\ncodec = 'av1'", `line 3: codec cannot be "av1", write "h264" or "h265"`},
		{"encoder unknown", "[[rendition]]\nname = 'a'\nencoder = 'gpu'", `line 3: encoder cannot be "gpu", write "auto", "hardware", "software" or "camera"`},
		{"camera beside another", "[[rendition]]\nname = 'a'\nencoder = 'camera'\n[[rendition]]\nname = 'b'", `line 3: a camera that codes by itself gives one rendition only, remove the others, or write encoder = "auto"`},
		{"camera of another size", "[[rendition]]\nname = 'a'\nencoder = 'camera'\nwidth = 640\nheight = 360", `line 4: a camera that codes by itself gives the size of [video] only, leave width and height out`},
		{"camera of another codec", "[[rendition]]\nname = 'a'\nencoder = 'camera'\ncodec = 'h265'", `line 4: a camera that codes by itself gives h264 only, write codec = "h264"`},
		{"profile of another codec", "[[rendition]]\nname = 'a'\ncodec = 'h265'\nprofile = 'high'", `line 4: profile of h265 cannot be "high", write "main"`},
		{"preset unknown", "[[rendition]]\nname = 'a'\npreset = 'turbo'", `line 3: preset cannot be "turbo", write "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower" or "veryslow"`},
		{"threads below zero", "[[rendition]]\nname = 'a'\nthreads = -1", `line 3: threads is out of range, from 0 to 16, write 0 to leave it to the encoder`},
		{"no name", "[[rendition]]", `line 1: the rendition has no name, write name = "main" or another one`},
		{"name with a slash", "[[rendition]]\nname = 'a/b'", `line 2: name must be 1 to 32 of a–z, 0–9, _ and -, choose another one`},
		{"same name twice", "[[rendition]]\nname = 'a'\n[[rendition]]\nname = 'a'", `line 4: two renditions have the name "a", the first in line 2, rename one of them`},

		{"no address", "[[output]]\nname = 'o'", `line 1: the output has no url, write url = "rtmp://SERVER/APP" or another address`},
		{"not an address", "[[output]]\nname = 'o'\nurl = 'sk-live-123'", `line 3: url is not an address, write it as SCHEME://SERVER/PATH`},
		{"address not in quotes", "[[output]]\nname = 'o'\nurl = 5", `line 3: url is a whole number, not an address, write it in quotes, for example "rtmp://server/app"`},
		{"unknown scheme", "[[output]]\nname = 'o'\nurl = 'rtmpx://h/a'", `line 3: url has the unknown scheme "rtmpx", known are "rtmp" or "rtmps"`},
		{"no server", "[[output]]\nname = 'o'\nurl = 'rtmp:///a'", `line 3: url names no server, write it as SCHEME://SERVER/PATH`},
		{"refused by the protocol", "[[output]]\nname = 'o'\nurl = 'rtmp://h:99999/a'", `line 3: url cannot be used: the port is above 65535, correct it`},
		{"rendition unknown", out + "rendition = 'mian'", `line 4: there is no rendition "mian", write "main"`},
		{"rendition that RTMP does not carry", out + "rendition = 'a'\n[[rendition]]\nname = 'a'\ncodec = 'h265'", `line 4: the rendition "a" is h265, which rtmp does not carry, write codec = "h264" there, or choose another rendition`},
		{"rendition that RTMPS does not carry", "[[rendition]]\nname = 'main'\ncodec = 'h265'\n[[output]]\nname = 'o'\nurl = 'rtmps://h/a'", `line 4: the rendition "main" is h265, which rtmps does not carry, write codec = "h264" there, or choose another rendition`},
		{"start unknown", out + "start = 'always'", `line 4: start cannot be "always", write "button" or "boot"`},
		{"secret not stored", out + "key = 'secret:twitch'", `line 4: no secret named "twitch" is stored, write twitch = "THE KEY" into secrets.toml in the state directory`},
		{"secret without a name", out + "key = 'secret:'", `line 4: key does not name a secret, write secret: and a name made of a–z, 0–9, _ and -`},
		{"key not in quotes", out + "key = 123", `line 4: key is a whole number, not a key, write "secret:NAME", or the key itself in quotes`},

		{"no port", "[serve]\nweb = 'localhost'", `line 2: web has no port, write for example ":8080", or "" to turn it off`},
		{"port too high", "[serve]\nweb = ':80800'", `line 2: web has an impossible port, choose one from 1 to 65535`},
		{"one port for two", "[serve]\nweb = ':8080'\nrtmp = '10.0.0.1:8080'", `line 3: rtmp and web listen on the same port, give one of them another port`},
		{"port of a default", "[serve]\nrtmp = ':8554'", `line 2: rtmp and rtsp listen on the same port, give one of them another port`},
		{"UDP against UDP", "[serve]\nsrt = ':9000'\nwebrtc = ':9000'", `line 3: webrtc and srt listen on the same port, give one of them another port`},
		{"no address outside", "[serve]\npublic = ['box.example.org']", `line 2: public holds something that is not an IP address, write addresses only, for example "203.0.113.7"`},
		{"no such access", "[watch]\naccess = 'everybody'", `line 2: access cannot be "everybody", write "open", "password" or "link"`},
		{"no such access of a rendition", "[[rendition]]\nname = 'a'\naccess = 'x'", `line 3: access cannot be "x", write "open", "password" or "link"`},
		{"no password", "[[rendition]]\nname = 'a'\naccess = 'password'", `a password is asked for, but there is none, write password = "secret:NAME", and NAME = "…" into secrets.toml`},
		{"a password that is not stored", "[watch]\npassword = 'secret:nobody'", `line 2: no secret named "nobody" is stored, write nobody = "THE KEY" into secrets.toml in the state directory`},
		{"a password that goes on and on", "[watch]\npassword = '" + strings.Repeat("x", 201) + "'", `line 2: user and password may have 200 letters each, choose shorter ones`},
		{"a user with a colon", "[watch]\nuser = 'a:b'", `line 2: user holds a character that players cannot send, leave colons out`},
		{"too many readers", "[watch]\nreaders = 100000", `line 2: readers is out of range, from 0 to 10000, write 0 for no limit`},
		{"host with a port", "[serve]\nhosts = ['box:80']", `line 2: hosts holds something that is not a host name, write names only, for example "box.example.org"`},
		{"a key without a name", "[[key]]\npress = 'stream.start'", `line 1: name must be 1 to 32 of A–Z, a–z, 0–9, _ and -, name the key as it is called on the box`},
		{"two keys of a name", "[[key]]\nname = 'A'\n[[key]]\nname = 'A'", `line 4: two keys have the name "A", the first in line 2, rename one of them`},
		{"a key on an LED", "[[key]]\nname = 'A'\npin = 'led:x'", `line 3: pin is not a place where a wire can be, write gpio:NAME or sim:NAME, as "encoderd probe" lists them`},
		{"a wire used twice", "[[key]]\nname = 'A'\npin = 'gpio:X'\n[[lamp]]\nname = 'A'\npin = 'gpio:X'", `line 6: gpio:X is in use already, in line 3, choose another one`},
		{"an order nobody knows", "[[key]]\nname = 'A'\npress = 'stream.strat'", `line 3: press cannot be ordered: "stream.strat": no such action, write an action, for example "stream.start"`},
		{"a level unknown", "[[key]]\nname = 'A'\nactive = 'on'", `line 3: active cannot be "on", write "low" or "high"`},
		{"a pull unknown", "[[key]]\nname = 'A'\npull = 'left'", `line 3: pull cannot be "left", write "auto", "up", "down" or "none"`},
		{"debounce of an hour", "[[key]]\nname = 'A'\ndebounce = '1h'", `line 3: debounce is out of range, from 0s to 1s, choose one within`},
		{"a hold of a moment", "[[key]]\nname = 'A'\nhold_time = '1ms'", `line 3: hold_time is out of range, from 200ms to 1m0s, choose one within`},
		{"a factory reset by holding", "[[key]]\nname = 'A'\nhold = 'factory.reset'", `line 3: a key that is held would forget settings, write confirm = true`},
		{"a factory reset by holding long", "[[key]]\nname = 'A'\nlong = 'factory.reset'\nhold = 'stream.stop'", `line 3: a key that is held would forget settings, write confirm = true`},
		{"a long hold that is short", "[[key]]\nname = 'A'\nhold_time = '5s'\nlong_time = '3s'", `line 4: long_time is not longer than hold_time, choose a longer one`},
		{"times of keys", "[panel]\nstuck = '1s'", `line 2: stuck is out of range, from 15s to 10m0s, choose one within`},
		{"a lamp of an unknown color", "[[lamp]]\nname = 'A'\nyellow = 'led:x'", `line 3: unknown key "yellow" in [[lamp]], known keys are active, blue, green, name, pin, red, shows`},
		{"a lamp with too many wires", "[[lamp]]\nname = 'A'\npin = 'led:x'\nred = 'led:y'", `line 4: the lamp has pin and colors, write pin for a lamp of one color, else red, green and blue`},
		{"a lamp outside /sys/class/leds", "[[lamp]]\nname = 'A'\npin = 'led:../../x'", `line 3: pin is not a place where a wire can be, write gpio:NAME or led:NAME or sim:NAME, as "encoderd probe" lists them`},
		{"a lamp for nothing", "[[lamp]]\nname = 'A'\nshows = 'mood'", `line 3: shows cannot be "mood", write "stream", "record", "mute", "tally", "stage", "reset", "program", "preview", "live", "recording" or "fault"`},
		{"tally by smoke", "[[tally]]\nname = 'a'\nprotocol = 'smoke'", `line 3: protocol cannot be "smoke", write "contact", "tsl3.1", "tsl5", "obs" or "vmix"`},
		{"tally without an input", "[[tally]]\nname = 'a'\nprotocol = 'tsl3.1'\naddress = 'udp://:8900'", `line 1: the tally does not say which input this camera is, write input = "3" or its name`},
		{"tally of a high address", "[[tally]]\nname = 'a'\nprotocol = 'tsl3.1'\naddress = 'udp://:8900'\ninput = '127'", `line 5: input is not an address of TSL 3.1, write a number from 0 to 126 in quotes`},
		{"tally by a wrong road", "[[tally]]\nname = 'a'\nprotocol = 'obs'\naddress = 'tcp://h:1'\ninput = 's'", `line 4: address is of an unknown kind, write "ws" or "wss", for example "ws://HOST:4455"`},
		{"tally with a password in its address", "[[tally]]\nname = 'a'\nprotocol = 'obs'\naddress = 'ws://x:sesame@h'\ninput = 's'", `line 4: address cannot be used, write for example "ws://HOST:4455"`},
		{"tally with a password behind its address", "[[tally]]\nname = 'a'\nprotocol = 'obs'\naddress = 'ws://h/?password=sesame'\ninput = 's'", `line 4: address cannot be used, write for example "ws://HOST:4455"`},
		{"tally with a fragment", "[[tally]]\nname = 'a'\nprotocol = 'obs'\naddress = 'ws://h#sesame'\ninput = 's'", `line 4: address cannot be used, write for example "ws://HOST:4455"`},
		{"a display with a question", "[[tally_out]]\nname = 'a'\naddress = 'udp://h:8900?x'", `line 3: address cannot be used, write for example "udp://DISPLAY:8900"`},
		{"a switcher with two passwords", obsTally + "password = 'sesame'\n" + strings.Replace(obsTally, "'a'", "'b'", 1) + "password = 'simsim'\n", `line 12: the switcher has another password already, in line 6, write the same one, or one only`},
		{"tally without a port", "[[tally]]\nname = 'a'\nprotocol = 'vmix'\naddress = 'tcp://h'\ninput = '1'", `line 4: address has no port, write for example "tcp://HOST:8099"`},
		{"tally from nowhere", "[[tally]]\nname = 'a'\nprotocol = 'vmix'\naddress = 'tcp://:8099'\ninput = '1'", `line 4: address names no switcher, write for example "tcp://HOST:8099"`},
		{"tally of one bit", "[[tally]]\nname = 'a'\nprotocol = 'tsl3.1'\naddress = 'udp://:8900'\ninput = '1'\nprogram_bit = 1", `line 6: preview_bit and program_bit must be two of 1 to 4, look up which tally of the switcher means what`},
		{"a contact without a wire", "[[tally]]\nname = 'a'\nprotocol = 'contact'", `line 1: the contact has no address, write address = "gpio:NAME"`},
		{"a contact that says off", "[[tally]]\nname = 'a'\nprotocol = 'contact'\naddress = 'gpio:X'\nsays = 'off'", `line 5: says cannot be "off", write "program" or "preview"`},
		{"tally to nowhere", "[[tally_out]]\nname = 'a'\naddress = 'udp://:8900'", `line 3: address names no display, write for example "udp://10.0.0.5:8900"`},
		{"tally to nobody", "[[tally_out]]\nname = 'a'\naddress = 'udp://h:8900'\ninput = 200", `line 4: input is out of range, from 0 to 126, write the address of the display`},
		{"a port that is no port", "[ptz]\nport = '/dev/ttyUSB0'", `line 2: port is not a serial port, write "serial:/dev/serial/by-path/…", as "encoderd probe" lists them`},
		{"a port for two", "[ptz]\nport = 'serial:/dev/ttyS1'\n[remote]\nport = 'serial:/dev/ttyS1'", `line 4: the serial port is in use already, in line 2, choose another one`},
		{"a rate of its own", "[remote]\nport = 'serial:/dev/ttyS1'\nbaud = 12345", `line 3: baud is no usual rate, write 9600, or what the other side has`},
		{"a camera too many", "[ptz]\nport = 'serial:/dev/ttyS1'\ncamera = 8", `line 3: camera is out of range, from 1 to 7, write 1 for the first camera of the chain`},
		{"a camera nobody knows", "[ptz]\nport = 'serial:/dev/ttyS1'\nmodel = 'box'", `line 3: model cannot be "box", write "sony"`},
		{"no folder", "[record]\ndir = ''", `line 2: dir is empty, write dir = "recordings" or another folder`},
		{"the state's folder", "[record]\ndir = './x/..'", `line 2: dir is not a folder of its own in the state directory, write dir = "recordings" or another folder`},
		{"a folder outside", "[record]\ndir = 'a/../../b'", `line 2: dir is not a folder of its own in the state directory, write dir = "recordings" or another folder`},
		{"a folder that is taken", "[record]\ndir = 'requests/x'", `line 2: dir is not a folder of its own in the state directory, write dir = "recordings" or another folder`},
		{"a file that is taken", "[record]\ndir = './tls.pem'", `line 2: dir is not a folder of its own in the state directory, write dir = "recordings" or another folder`},
		{"another file that is taken", "[record]\ndir = 'wanted.json/x'", `line 2: dir is not a folder of its own in the state directory, write dir = "recordings" or another folder`},
		{"the system's folder", "[record]\ndir = '/media/../dev/shm'", `line 2: dir is a folder of the system, write dir = "recordings" or another folder`},
		{"everything", "[record]\ndir = '//'", `line 2: dir is a folder of the system, write dir = "recordings" or another folder`},
		{"a folder of bytes", "[record]\ndir = \"a\\u0000b\"", `line 2: dir must have 1 to 1000 printable characters, write dir = "recordings" or another folder`},
		{"a recording of nothing", "[record]\nrendition = 'sub'", `line 2: there is no rendition "sub", write "main"`},
		{"files of a second", "[record]\nlength = '1s'", `line 2: length is out of range, from 1m0s to 24h0m0s, write for example "1h"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.doc), rules)
			if err == nil {
				t.Fatal("accepted")
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got:  %s\nwant: %s", got, tt.want)
			}
		})
	}
}

func TestEveryFaultIsReportedAtOnceInTheOrderOfLines(t *testing.T) {
	doc := `[serve]
web = "x"
[video]
width = 1921
fps = "fast"
[[rendition]]
name = "a b"
colour = 1
gop = 2
[[output]]
name = "o"
url = "gopher://h"
rendition = "none"
`
	_, err := Parse([]byte(doc), rules)
	faults, ok := errors.AsType[Faults](err)
	if !ok {
		t.Fatalf("not Faults: %v", err)
	}
	var got []string
	for _, f := range faults {
		got = append(got, f.Path)
	}
	want := []string{
		"serve.web", "video.width", "video.fps", "rendition[0].name", "rendition[0].colour", "rendition[0].gop",
		"output[0].url", "output[0].rendition",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestOldLayoutsAreMigratedStepByStep(t *testing.T) {
	steps := []migration{
		func(tree map[string]any) { tree["order"] = "one" },
		func(tree map[string]any) { tree["order"] = tree["order"].(string) + " two" },
	}
	tests := []struct {
		name string
		tree map[string]any
		want any
	}{
		{"no version is the first", map[string]any{}, "one two"},
		{"one step behind", map[string]any{"version": int64(2), "order": ""}, " two"},
		{"the latest stays", map[string]any{"version": int64(3), "order": "as is"}, "as is"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := migrate(tt.tree, steps); err != nil {
				t.Fatal(err)
			}
			if tt.tree["order"] != tt.want || tt.tree["version"] != int64(3) {
				t.Errorf("got %v", tt.tree)
			}
		})
	}
	if migrate(map[string]any{"version": int64(4)}, steps) == nil {
		t.Error("a layout from the future was accepted")
	}
}

// FuzzParse checks that no file makes Parse panic, that faults have texts, and
// that what was accepted means the same after it was written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(""))
	f.Add([]byte("version = 1\nvideo.fps = 29.97\naudio = {delay = '-40ms'}\n"))
	f.Add([]byte("[audio]\nchannels='7+3'\ngain=-0.04\nsilence='-44.4dB'\nsilence_after='1m'"))
	f.Add([]byte("[[rendition]]\nname='a'\nwidth=640\nheight=360\nfps=12.5\nbitrate=2500001\n[rendition.x]\ny=1"))
	f.Add([]byte("output=[{name='o',url='srt://h:1?a=b&c=<d>',key='secret:k',start='boot'},[1]]\nserve.hosts=['a']"))
	f.Add([]byte("[box]\nname = \"\\u0000\\U0001F3A5\"\n[box.name]\n"))
	f.Add([]byte("[[key]]\nname='STREAM'\nhold='stream.stop grace=20s'\n[[lamp]]\nname='A'\nred='gpio:x:1'\n[ptz]\nport='serial:/dev/ttyS1'"))
	f.Add([]byte("[[tally]]\nname='a'\nprotocol='obs'\naddress='ws://h'\ninput='s'\npassword='p'\n[[tally_out]]\nname='b'\naddress='udp://h:1'\ninput=3"))
	f.Add([]byte("'a.b[' = {c = [{d = [[{e = 1}]]}]}\n\"\" = 1979-05-27"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, err := Parse(doc, Rules{})
		if err != nil {
			if fs, ok := errors.AsType[Faults](err); !ok || len(fs) == 0 || fs[0].Text == "" {
				t.Fatalf("not faults: %v", err)
			}
			return
		}
		for _, k := range secrets(&c) {
			if k.inFile() {
				*k.secret = Secret{ref: "k"}
			}
		}
		written, err := encode(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(written, Rules{})
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if !reflect.DeepEqual(again, c) {
			t.Errorf("%+v\nbecame\n%+v\n%s", c, again, written)
		}
	})
}

func TestALargeFileOfNonsenseIsRefusedQuickly(t *testing.T) {
	var doc strings.Builder
	for i := 0; doc.Len() < maxSize-100; i++ {
		fmt.Fprintf(&doc, "k%d=1\n", i)
	}
	start := time.Now()
	_, err := Parse([]byte(doc.String()), Rules{})
	if faults, _ := errors.AsType[Faults](err); len(faults) < 1000 || faults[999].Line != 1000 {
		t.Errorf("%d faults", len(faults))
	}
	if d := time.Since(start); d > time.Minute { // 3 s of a processor under the race detector
		t.Errorf("took %v", d)
	}
}

func TestOverloadIsAskedOfGoodConfigsOnly(t *testing.T) {
	asked := 0
	rules := Rules{Overload: func(c Config) (int, string, string, bool) {
		asked++
		return 1, "too much for " + c.Renditions[1].Name, "make it smaller", false
	}}
	const doc = "[[rendition]]\nname = \"a\"\n[[rendition]]\nname = \"b\"\nencoder = \"hardware\"\n"
	_, err := Parse([]byte(doc), rules)
	if err == nil || err.Error() != "line 5: too much for b, make it smaller" || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if _, err := Parse([]byte(doc+"bitrate = 1\n"), rules); err == nil || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}
