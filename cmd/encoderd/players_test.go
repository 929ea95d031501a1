package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// A venue is a box that serves by every protocol, at an address that others in
// the building could reach.
type venue struct {
	*process
	rtmp, rtmps, rtsps, webrtc string // addresses

	services string // the lines of [serve] that say so
}

// open prepares a venue; launch starts it.
func open(t *testing.T, s settings) venue {
	t.Helper()
	own := ownAddress(t)
	v := venue{process: prepare(t, s)}
	for _, address := range []*string{&v.web, &v.rtsp, &v.rtmp, &v.rtmps, &v.rtsps, &v.webrtc} {
		*address = freeAddress(t, own)
	}
	v.services = fmt.Sprintf("rtmp = %q\nrtmps = %q\nrtsps = %q\nwebrtc = %q\nmulticast = true\n", v.rtmp, v.rtmps, v.rtsps, v.webrtc)
	v.configure(s)
	return v
}

// configure writes the config with all services on.
func (v venue) configure(s settings) {
	v.tb.Helper()
	s.serve = v.services
	v.process.configure(s)
}

// begin starts the box and returns when it has pictures to show.
func (v venue) begin() {
	v.tb.Helper()
	v.launch()
	v.until("all renditions to be live", onDuty)
	v.frames(30)
}

// ownAddress returns an IPv4 address of this machine on a network that can
// carry multicast.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&(net.FlagMulticast|net.FlagUp|net.FlagLoopback) != net.FlagMulticast|net.FlagUp {
			continue
		}
		addresses, _ := i.Addrs()
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				return p.Addr().String()
			}
		}
	}
	t.Fatal("this machine has no network with multicast: one is needed here, as by `ip link add … type dummy`")
	return ""
}

func freeAddress(t *testing.T, host string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A watch is one program that plays one address.
type watch struct {
	name, url string
	player    func(url, file string) []string // the command; it ends by itself
	ending    string                          // of the file that it leaves
}

// watches lists who reads what of a box.
func (v venue) watches() []watch {
	live := "http://" + v.web + "/live/"
	return []watch{
		{"RTSP TCP, ffmpeg", "rtsp://" + v.rtsp + "/main", ffmpeg("-rtsp_transport", "tcp"), "nut"},
		{"RTSP UDP, ffmpeg", "rtsp://" + v.rtsp + "/main", ffmpeg("-rtsp_transport", "udp"), "nut"},
		{"RTSP multicast, ffmpeg", "rtsp://" + v.rtsp + "/main", ffmpeg("-rtsp_transport", "udp_multicast"), "nut"},
		{"RTSPS, ffmpeg", "rtsps://" + v.rtsps + "/main", ffmpeg("-rtsp_transport", "tcp"), "nut"},
		{"RTMP, ffmpeg", "rtmp://" + v.rtmp + "/live/main", ffmpeg(), "nut"},
		{"RTMPS, ffmpeg", "rtmps://" + v.rtmps + "/live/main", ffmpeg(), "nut"},
		{"HTTP-FLV, ffmpeg", live + "main.flv", ffmpeg(), "nut"},
		{"HTTP MPEG-TS, ffmpeg", live + "main.ts", ffmpeg(), "nut"},
		{"HTTP MP4, ffmpeg", live + "main.mp4", ffmpeg(), "nut"},
		{"HLS, ffmpeg", live + "main/index.m3u8", ffmpeg(), "nut"},
		{"RTSP, mpv", "rtsp://" + v.rtsp + "/main", mpv, "nut"},
		{"HLS, mpv", live + "main/index.m3u8", mpv, "nut"},
		{"RTMP, VLC", "rtmp://" + v.rtmp + "/live/main", vlc, "ts"},
		{"HLS, VLC", live + "main/index.m3u8", vlc, "ts"},
		{"RTSP, GStreamer", "rtsp://" + v.rtsp + "/main", gstRTSP, "mkv"},
		{"HLS, GStreamer", live + "main/index.m3u8", gstHLS, "mkv"},
	}
}

// watchesDASH lists those whose place in a timeline is easily lost.
func (v venue) watchesDASH() []watch {
	live := "http://" + v.web + "/live/"
	return []watch{
		{"DASH, ffmpeg", live + "main/manifest.mpd", ffmpeg(), "nut"},
		{"DASH of all sizes, ffmpeg", live + "manifest.mpd", ffmpeg(), "nut"},
		{"DASH, mpv", live + "main/manifest.mpd", mpv, "nut"},
		{"DASH, VLC", live + "main/manifest.mpd", vlc, "ts"},
		{"DASH, GStreamer", live + "main/manifest.mpd", gstDASH, "mkv"},
	}
}

// ffmpeg keeps seven seconds as they come.
func ffmpeg(input ...string) func(url, file string) []string {
	return func(url, file string) []string {
		args := append([]string{"ffmpeg", "-v", "warning", "-y"}, input...)
		return append(args, "-i", url, "-t", "7", "-map", "0:v:0", "-map", "0:a:0", "-c", "copy", allSound, file)
	}
}

// mpv decodes, and codes again without loss what it would show and play.
func mpv(url, file string) []string {
	return []string{"mpv", "--no-config", "--no-terminal", "--length=7", "--ovc=ffv1", "--oac=pcm_s16le", "--o=" + file, url}
}

// vlc keeps what it gets in fourteen seconds.
func vlc(url, file string) []string {
	command := append(lasting("14"), "env", "HOME="+filepath.Dir(file), "cvlc", "-q", url, "--sout", "#std{access=file,mux=ts,dst="+file+"}")
	if os.Geteuid() == 0 { // as which VLC refuses to run
		command = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, command...)
	}
	return command
}

// lasting ends a program after so many seconds, in order if it can.
func lasting(seconds string) []string {
	return []string{"timeout", "--signal=INT", "--kill-after=2", seconds}
}

// gstRTSP keeps what rtspsrc gives. A busy machine is no reason for it to call
// packets late that TCP cannot lose.
func gstRTSP(url, file string) []string {
	return gst("9", file, "rtspsrc", "location="+url, "protocols=tcp", "buffer-mode=none", "latency=10000", "name=s",
		"s.", "!", "rtph264depay", "!", "h264parse", "!", "queue", "!", "m.",
		"s.", "!", "rtpmp4gdepay", "!", "aacparse", "!", "queue", "!", "m.")
}

// gstHLS decodes, and codes again without loss what it would show and play.
func gstHLS(url, file string) []string { return gst("9", file, decoding(url)...) }

// gstDASH does so without first gathering the ten seconds that would do for
// the worst of lines.
func gstDASH(url, file string) []string {
	return gst("14", file, decoding(url, "urisourcebin0::dashdemux2-0::low-watermark-time=2000000000")...)
}

func decoding(url string, properties ...string) []string {
	source := append([]string{"uridecodebin3", "uri=" + url, "name=u"}, properties...)
	return append(source, "u.video_0", "!", "queue", "!", "videoconvert", "!", "avenc_ffv1", "!", "m.",
		"u.audio_0", "!", "queue", "!", "audioconvert", "!", "audio/x-raw,format=S16LE", "!", "m.")
}

// gst ends a pipeline in a file, and after so many seconds.
func gst(seconds, file string, pipeline ...string) []string {
	command := append(lasting(seconds), "gst-launch-1.0", "-e", "-q")
	command = append(command, pipeline...)
	return append(command, "matroskamux", "name=m", "streamable=true", "!", "filesink", "location="+file)
}

// TestPlayersOfAllKindsGetEveryPictureOnceAndSoundInStep has all of them watch
// at the same time.
func TestPlayersOfAllKindsGetEveryPictureOnceAndSoundInStep(t *testing.T) {
	v := open(t, settings{sub: true})
	v.begin()
	v.watched(t, v.watches(), v.now())
}

func TestPlayersOfDASHGetEveryPictureOnceAndSoundInStep(t *testing.T) {
	v := open(t, settings{sub: true})
	v.begin()
	start := v.now()
	v.frames(90) // they begin in the past
	v.watched(t, v.watchesDASH(), start)
}

// TestPlayersOfOneMakeBehindOneAddressAreCountedApart has two of each come where
// no address says who they are.
func TestPlayersOfOneMakeBehindOneAddressAreCountedApart(t *testing.T) {
	v := open(t, settings{})
	v.begin()
	live := "http://" + v.web + "/live/main/"
	dash := append([]string{"gst-launch-1.0", "-q"}, decoding(live+"manifest.mpd")...)
	dash = append(dash, "matroskamux", "name=m", "!", "fakesink")
	var players []*peer.Process
	for _, command := range [][]string{
		{"ffmpeg", "-v", "warning", "-i", live + "manifest.mpd", "-c", "copy", "-f", "null", "-"},
		{"ffmpeg", "-v", "warning", "-i", live + "video.m3u8", "-c", "copy", "-f", "null", "-"},
		dash,
	} {
		for range 2 {
			players = append(players, peer.Start(t, command[0], command[1:]...))
		}
	}
	all := watched(len(players))
	v.until("each to be counted", all)
	v.frames(150)
	v.until("each to be counted still", all)
	for _, pl := range players {
		pl.Kill()
	}
	v.until("nobody to be counted", watched(0))
}

// watched has players watch at the same time, and looks at what they got of
// what the box took in since before.
func (v venue) watched(t *testing.T, watches []watch, before status.Box) {
	t.Helper()
	dir := openDir(t)
	files := make([]string, len(watches))
	players := make([]*peer.Process, len(watches))
	for i, w := range watches {
		files[i] = filepath.Join(dir, fmt.Sprintf("%d.%s", i, w.ending))
		command := w.player(w.url, files[i])
		players[i] = peer.Start(t, command[0], command[1:]...)
	}
	for _, pl := range players {
		_ = pl.Wait(t) // what it left in the file counts
	}
	after := v.now()
	all := make([]media, len(watches))
	for i, w := range watches {
		t.Run(w.name+", file", func(t *testing.T) { all[i] = decode(t, files[i], 320, 180) })
	}
	for i, w := range watches {
		t.Run(w.name, func(t *testing.T) {
			m := all[i]
			if n := uint64(len(m.pictures)) + m.lost(t); n < 150 { // with what the box left out
				t.Errorf("%d pictures, want 5 s at least:\n%s", n, players[i].Log())
			}
			m.whole(t, before, after)
			m.complete(t, all)
			m.flashes(t)
			m.inStep(t, 4)
		})
	}
}

// openDir is a folder that every user may write to.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o777} {
		if err := os.Chmod(d, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
