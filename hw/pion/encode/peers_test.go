package encode_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/mediadevices"
	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"

	"encoderd.example/hw"
	"encoderd.example/hw/pion"
	"encoderd.example/hw/pion/encode"
	"encoderd.example/hw/sim"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/hw/soft"
	"encoderd.example/stream/h264"
)

const width, height = 640, 360

// A witness is a camera that notes which pictures it gave: on a busy machine
// the software camera leaves some out.
type witness struct {
	hw.Camera

	mu    sync.Mutex
	given []uint32
}

func (w *witness) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	s, err := w.Camera.Open(ctx, want)
	return &witnessed{s, w}, err
}

type witnessed struct {
	hw.CameraStream
	camera *witness
}

func (s *witnessed) Read(ctx context.Context) (*hw.Frame, error) {
	f, err := s.CameraStream.Read(ctx)
	if err != nil {
		return nil, err
	}
	s.camera.mu.Lock()
	defer s.camera.mu.Unlock()
	s.camera.given = append(s.camera.given, f.Seq)
	return f, nil
}

// A studio is a software board, seen and coded by mediadevices.
type studio struct {
	board    *sim.Board
	camera   *witness // the latest
	registry *pion.Registry
	codecs   *mediadevices.CodecSelector
	stream   mediadevices.MediaStream
}

func newStudio(t *testing.T) *studio {
	t.Helper()
	s := &studio{board: sim.New(sim.Options{}), registry: pion.NewRegistry()}
	s.plug(t)
	t.Cleanup(func() {
		if err := s.registry.Sync(nil, nil); err != nil {
			t.Error(err)
		}
	})
	s.codecs = mediadevices.NewCodecSelector(
		mediadevices.WithVideoEncoders(encode.H264{
			BaseParams: codec.BaseParams{BitRate: 1_500_000, KeyFrameInterval: 100_000}, // key pictures come on demand
			Driver:     soft.X264(), Preset: "ultrafast", Threads: 1,
		}),
		mediadevices.WithAudioEncoders(encode.Opus{Driver: soft.Opus()}),
	)
	var err error
	s.stream, err = mediadevices.GetUserMedia(mediadevices.MediaStreamConstraints{
		Video: func(c *mediadevices.MediaTrackConstraints) {
			c.Width, c.Height, c.FrameRate = prop.IntExact(width), prop.IntExact(height), prop.Float(30)
		},
		Audio: func(*mediadevices.MediaTrackConstraints) {},
		Codec: s.codecs,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, track := range s.stream.GetTracks() {
			if err := track.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// plug registers what the board has now, as its watch would.
func (s *studio) plug(t *testing.T) {
	t.Helper()
	b := s.board.Hardware()
	cameras, err := b.Cameras()
	if len(cameras) > 0 {
		s.camera = &witness{Camera: cameras[0]}
		cameras[0] = s.camera
	}
	mics, err2 := b.Mics()
	if err := errors.Join(err, err2, s.registry.Sync(cameras, mics)); err != nil {
		t.Fatal(err)
	}
}

// peer returns a peer that knows the studio's codecs.
func (s *studio) peer(t *testing.T) *webrtc.PeerConnection {
	t.Helper()
	engine, chain := &webrtc.MediaEngine{}, &interceptor.Registry{}
	s.codecs.Populate(engine)
	if err := webrtc.RegisterDefaultInterceptors(engine, chain); err != nil {
		t.Fatal(err)
	}
	var network webrtc.SettingEngine
	network.SetIncludeLoopbackCandidate(true)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(network)).
		NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pc.GracefulClose(); err != nil {
			t.Error(err)
		}
	})
	return pc
}

// connect lets from make an offer to to.
func connect(t *testing.T, from, to *webrtc.PeerConnection) {
	t.Helper()
	describe := func(pc *webrtc.PeerConnection, draw func() (webrtc.SessionDescription, error)) webrtc.SessionDescription {
		d, err := draw()
		if err != nil {
			t.Fatal(err)
		}
		gathered := webrtc.GatheringCompletePromise(pc)
		if err := pc.SetLocalDescription(d); err != nil {
			t.Fatal(err)
		}
		<-gathered
		return *pc.LocalDescription()
	}
	offer := describe(from, func() (webrtc.SessionDescription, error) { return from.CreateOffer(nil) })
	if err := to.SetRemoteDescription(offer); err != nil {
		t.Fatal(err)
	}
	answer := describe(to, func() (webrtc.SessionDescription, error) { return to.CreateAnswer(nil) })
	if err := from.SetRemoteDescription(answer); err != nil {
		t.Fatal(err)
	}
}

// A viewer is the far side: it puts pictures and sound together again.
type viewer struct {
	pc *webrtc.PeerConnection

	mu       sync.Mutex
	changed  chan struct{} // closed at every change
	ssrc     webrtc.SSRC
	pictures [][]byte // access units as byte streams, from the first key picture on
	lost     int      // packets that never came
	sound    bytes.Buffer
	packets  int
	steps    []uint32 // from packet to packet of sound, in samples
	trouble  error
}

func (s *studio) watch(t *testing.T) *viewer {
	t.Helper()
	near, v := s.peer(t), &viewer{pc: s.peer(t), changed: make(chan struct{})}
	for _, track := range s.stream.GetTracks() {
		if _, err := near.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
			t.Fatal(err)
		}
	}
	v.pc.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		receive := v.hear
		if remote.Kind() == webrtc.RTPCodecTypeVideo {
			receive = v.see
		}
		if err := receive(remote); err != nil && !errors.Is(err, io.EOF) {
			v.note(func() { v.trouble = err })
		}
	})
	connect(t, near, v.pc)
	return v
}

// note changes what is known, and wakes who waits for it.
func (v *viewer) note(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
	close(v.changed)
	v.changed = make(chan struct{})
}

// see begins like every player: what was sent before the way was open is gone,
// so it asks for a key picture.
func (v *viewer) see(remote *webrtc.TrackRemote) error {
	v.note(func() { v.ssrc = remote.SSRC() })
	if err := v.ask(); err != nil {
		return err
	}
	var depacketizer codecs.H264Packet
	var unit []byte
	var last *rtp.Packet
	for {
		p, _, err := remote.ReadRTP()
		if err != nil {
			return err
		}
		nal, err := depacketizer.Unmarshal(p.Payload)
		if err != nil {
			return err
		}
		unit = append(unit, nal...)
		v.note(func() {
			if last != nil && p.SequenceNumber != last.SequenceNumber+1 {
				v.lost++
			}
			if p.Marker && (len(v.pictures) > 0 || key(unit)) {
				v.pictures = append(v.pictures, unit)
			}
			if p.Marker {
				unit = nil
			}
		})
		last = p
	}
}

func (v *viewer) hear(remote *webrtc.TrackRemote) error {
	ogg, err := oggwriter.NewWith(&v.sound, hw.SampleRate, hw.Channels)
	if err != nil {
		return err
	}
	var last *rtp.Packet
	for {
		p, _, err := remote.ReadRTP()
		if err != nil {
			return err
		}
		var broken error
		v.note(func() {
			broken = ogg.WriteRTP(p)
			v.packets++
			if last != nil {
				v.steps = append(v.steps, p.Timestamp-last.Timestamp)
			}
		})
		if broken != nil {
			return broken
		}
		last = p
	}
}

// ask asks for a key picture.
func (v *viewer) ask() error {
	return v.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(v.ssrc)}})
}

// await waits until ok, which is called under the lock.
func (v *viewer) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		v.mu.Lock()
		done, err, changed := ok(), v.trouble, v.changed
		v.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if done {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("never came: %s; %d pictures and %d packets of sound did", what, len(v.pictures), v.packets)
		}
	}
}

// seen returns the pictures that came.
func (v *viewer) seen() [][]byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.pictures)
}

func key(picture []byte) bool {
	for nal := range h264.AnnexB(picture) {
		if h264.Type(nal) == h264.TypeIDR {
			return true
		}
	}
	return false
}

// ffmpeg runs it.
func ffmpeg(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	program, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatal("ffmpeg: install it, make test does")
	}
	var msg bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, append([]string{"-v", "error"}, args...)...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &msg
	out, err := cmd.Output()
	if err != nil || msg.Len() > 0 {
		t.Fatalf("ffmpeg %q: %v: %s", args, err, &msg)
	}
	return out
}

// counters returns the numbers that are burnt into pictures.
func counters(t *testing.T, pictures [][]byte) []uint32 {
	t.Helper()
	luma := ffmpeg(t, bytes.Join(pictures, nil), "-f", "h264", "-i", "-", "-fps_mode", "passthrough", "-vf", "extractplanes=y", "-pix_fmt", "gray", "-f", "rawvideo", "-")
	if len(luma) != len(pictures)*width*height {
		t.Fatalf("%d bytes decoded from %d pictures", len(luma), len(pictures))
	}
	var list []uint32
	for i := range pictures {
		c, ok := picture.Read(luma[i*width*height:], width, width, height)
		if !ok {
			t.Fatalf("picture %d cannot be read", i)
		}
		list = append(list, c.Counter)
	}
	return list
}

func TestAPeerSeesEveryPictureAndHearsTheBeep(t *testing.T) {
	const pictures = 60
	s := newStudio(t)
	v := s.watch(t)
	v.await(t, "2 s of picture and 2.5 s of sound", func() bool { return len(v.pictures) >= pictures && v.packets >= 125 })
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lost > 0 {
		t.Errorf("%d times packets were lost on the way", v.lost)
	}
	s.missesNothing(t, counters(t, v.pictures[:pictures]))
	for i, step := range v.steps {
		if step != hw.SampleRate/50 {
			t.Fatalf("packet %d of sound is %d samples after the one before", i+1, step)
		}
	}
	if beeps := picture.FindBeeps(samples(ffmpeg(t, v.sound.Bytes(), "-f", "ogg", "-i", "-", "-f", "s16le", "-ar", "48000", "-ac", "2", "-"))); len(beeps) < 2 || !aSecond(beeps[1]-beeps[0]) {
		t.Errorf("beeps at %v", beeps)
	}
}

// missesNothing checks that the pictures are those that the camera gave, but for
// those that the encoder says it dropped.
func (s *studio) missesNothing(t *testing.T, seen []uint32) {
	t.Helper()
	s.camera.mu.Lock()
	given := slices.Clone(s.camera.given)
	s.camera.mu.Unlock()
	given = given[slices.Index(given, seen[0]):]
	var missing int
	for _, n := range seen {
		at := slices.Index(given, n)
		if at < 0 {
			t.Fatalf("picture %d came out of order: %v", n, seen)
		}
		missing, given = missing+at, given[at+1:]
	}
	if dropped := s.knobs(t).Stats().Dropped; missing > int(dropped) {
		t.Errorf("%d pictures are missing, the encoder dropped %d: %v", missing, dropped, seen)
	}
}

func (s *studio) knobs(t *testing.T) encode.Controller {
	t.Helper()
	c, ok := s.stream.GetVideoTracks()[0].EncoderController().(encode.Controller)
	if !ok {
		t.Fatal("the track has no controller of ours")
	}
	return c
}

func aSecond(samples int) bool { return samples > hw.SampleRate-100 && samples < hw.SampleRate+100 }

func samples(raw []byte) []int16 {
	pcm := make([]int16, len(raw)/2)
	for i := range pcm {
		pcm[i] = int16(uint16(raw[2*i]) | uint16(raw[2*i+1])<<8)
	}
	return pcm
}

func TestAPeerGetsAKeyPictureWhenItAsks(t *testing.T) {
	v := newStudio(t).watch(t)
	for keys := 1; keys <= 3; keys++ {
		before := len(v.seen())
		v.await(t, "pictures", func() bool { return len(v.pictures) >= before+5 })
		if n := len(slices.DeleteFunc(v.seen(), func(p []byte) bool { return !key(p) })); n != keys {
			t.Errorf("%d key pictures, %d were wanted", n, keys)
		}
		before = len(v.seen())
		if err := v.ask(); err != nil {
			t.Fatal(err)
		}
		v.await(t, "a key picture", func() bool { return slices.ContainsFunc(v.pictures[before:], key) })
	}
}

func TestTheBitRateFollowsTheKnob(t *testing.T) {
	s := newStudio(t)
	v := s.watch(t)
	rate := func() int { // bytes of 40 pictures
		t.Helper()
		from := len(v.seen()) + 20 // what is on the way, and what the rate control needs
		v.await(t, "60 pictures", func() bool { return len(v.pictures) >= from+40 })
		return len(bytes.Join(v.seen()[from:from+40], nil))
	}
	v.await(t, "a picture", func() bool { return len(v.pictures) > 0 })
	high := rate()
	knobs := s.knobs(t)
	if err := knobs.SetBitRate(100_000); err != nil {
		t.Fatal(err)
	}
	low := rate()
	if low > high/3 {
		t.Errorf("%d bytes at 1.5 Mbit/s, %d at 100 kbit/s", high, low)
	}
	t.Logf("%d bytes at 1.5 Mbit/s, %d at 100 kbit/s", high, low)
	if st := knobs.Stats(); st.CopiedBytes != 0 {
		t.Errorf("%d bytes were copied: the encoder did not get the camera's frames", st.CopiedBytes)
	}
}

func TestTwoPeersSeeTheSameCamera(t *testing.T) {
	s := newStudio(t)
	one := s.watch(t)
	one.await(t, "a picture", func() bool { return len(one.pictures) > 0 })
	two := s.watch(t)
	two.await(t, "pictures", func() bool { return len(two.pictures) >= 30 })
	list := counters(t, two.seen()[:30])
	for i, n := range list {
		if i > 0 && n <= list[i-1] {
			t.Errorf("picture %d follows %d", n, list[i-1])
		}
	}
	if missing := list[29] - list[0] - 29; missing > 10 { // its encoder may start late on a busy machine
		t.Errorf("the second peer misses %d of 30 pictures", missing)
	}
}

func TestUnpluggingEndsTheTrackAndPluggingInBringsItBack(t *testing.T) {
	s := newStudio(t)
	track := s.stream.GetVideoTracks()[0]
	ended := make(chan error, 1)
	track.OnEnded(func(err error) { ended <- err })
	v := s.watch(t)
	v.await(t, "pictures", func() bool { return len(v.pictures) >= 5 })
	if err := s.board.SetFault("camera-unplugged", true); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, io.EOF) || !errors.Is(err, hw.ErrGone) {
		t.Errorf("the track ends with %v", err)
	}
	s.plug(t)
	cameras := func() (n int) {
		for _, d := range mediadevices.EnumerateDevices() {
			if d.Kind == mediadevices.VideoInput {
				n++
			}
		}
		return n
	}
	if cameras() != 0 {
		t.Error("the camera is still listed")
	}
	if err := s.board.SetFault("camera-unplugged", false); err != nil {
		t.Fatal(err)
	}
	s.plug(t)
	if cameras() != 1 {
		t.Fatal("the camera is not listed again")
	}
	if err := track.Close(); err != nil {
		t.Error(err)
	}
	again, err := mediadevices.GetUserMedia(mediadevices.MediaStreamConstraints{Video: func(*mediadevices.MediaTrackConstraints) {}, Codec: s.codecs})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.GetTracks()[0].Close(); err != nil {
		t.Error(err)
	}
}
