package webrtc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	pionrtp "github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// A visitor is one player's connection.
type visitor struct {
	id     string
	feed   *feed
	viewer *stream.Viewer
	pc     *webrtc.PeerConnection
	log    *slog.Logger
	etag   string
	ufrag  string       // of the player's ICE, as it offered
	taken  atomic.Int32 // candidates of the player's

	outlets   [2]*outlet // by medium; nil: not carried
	arrived   func()     // gives the place of those without a line back
	connected chan struct{}
	end       context.CancelCauseFunc
	leave     []func() // out of feed and audience
}

// An outlet sends one medium.
type outlet struct {
	track  *webrtc.TrackLocalStaticRTP
	sender *webrtc.RTPSender
}

// Why visitors go.
var (
	errGone   = errors.New("the player left")
	errNoLine = errors.New("no line to the player came about: is UDP or TCP to this port blocked?")
	errLost   = errors.New("the line to the player was lost")
	errEnded  = errors.New("the stream ended")
	errBusy   = errors.New("as many WebRTC players as this box takes, in all or from one address")
	// errEntering is for who sends offers and never connects.
	errEntering = errors.New("too many players from this address are connecting: try again in a moment")
	errOffer    = errors.New("the offer does not fit")
	errClosing  = errors.New("WebRTC stops: try again in a moment")
)

// enter makes a visitor from a player's offer, and the answer to it. The
// visitor lives until it leaves or the server ends.
func (sv *service) enter(ctx context.Context, src *stream.Rendition, offer string, viewer *stream.Viewer, c stream.Credentials) (*visitor, string, error) {
	arrived, err := sv.reserve(stream.Origin(viewer.Peer))
	if err != nil {
		return nil, "", err
	}
	out, ok := sv.places.Enter(viewer.Peer)
	if !ok {
		arrived()
		return nil, "", errBusy
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(sv.ctx, func() { cancel(errClosing) })() //nolint:contextcheck // Run waits for it
	tracks, err := src.Wait(ctx)
	if err != nil {
		out()
		arrived()
		return nil, "", fmt.Errorf("%q has no picture yet: %w", src.Name, err)
	}
	v := &visitor{
		id: rand.Text(), etag: rand.Text(), ufrag: ufrag(offer), viewer: viewer, arrived: arrived,
		leave: []func(){out}, connected: make(chan struct{}), log: sv.log.With("peer", viewer.Peer),
	}
	leave, err := sv.Audience.Admit(viewer, c)
	if err != nil {
		v.part()
		return nil, "", err
	}
	v.leave = append(v.leave, leave)
	answer, err := sv.open(ctx, v, src, tracks, offer)
	if err != nil {
		v.part()
		return nil, "", err
	}
	return v, answer, nil
}

// reserve keeps a place for a visitor who has no line yet, until done, for
// which Run waits. Offers cost a sender nothing, so that one origin gets few
// such places.
func (sv *service) reserve(origin string) (done func(), err error) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	switch {
	case sv.closing || sv.ctx.Err() != nil:
		return nil, errClosing
	case sv.entering[origin] >= maxUnconnected:
		return nil, errEntering
	}
	sv.entering[origin]++
	sv.wg.Add(1)
	return sync.OnceFunc(func() {
		defer sv.wg.Done()
		sv.mu.Lock()
		defer sv.mu.Unlock()
		if sv.entering[origin]--; sv.entering[origin] == 0 {
			delete(sv.entering, origin)
		}
	}), nil
}

// open negotiates v's connection and starts what plays to it.
//
//nolint:contextcheck // it lives as long as Run does, not as the request
func (sv *service) open(ctx context.Context, v *visitor, src *stream.Rendition, tracks []*stream.Track, offer string) (answer string, err error) {
	f, release, err := sv.feedOf(src, tracks)
	if err != nil {
		return "", err
	}
	v.feed, v.leave = f, append(v.leave, release)
	api, err := sv.api(f.video, f.sound)
	if err != nil {
		return "", err
	}
	v.pc, err = api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return "", fmt.Errorf("webrtc: %w", err)
	}
	alive, end := context.WithCancelCause(sv.ctx)
	v.end = end
	v.pc.OnConnectionStateChange(v.changed(sync.OnceFunc(func() { close(v.connected) })))
	answer, err = v.negotiate(ctx, offer)
	if err != nil {
		end(err)
		return "", err
	}
	sv.mu.Lock()
	sv.visitors[v.id] = v
	sv.mu.Unlock()
	for _, o := range v.outlets {
		if o != nil {
			sv.wg.Go(func() { v.listen(o.sender) })
		}
	}
	sv.wg.Go(func() { sv.host(alive, v) })
	return answer, nil
}

// changed follows the connection.
func (v *visitor) changed(connected func()) func(webrtc.PeerConnectionState) {
	return func(now webrtc.PeerConnectionState) {
		switch now {
		case webrtc.PeerConnectionStateConnected:
			connected()
		case webrtc.PeerConnectionStateFailed:
			v.end(errLost)
		case webrtc.PeerConnectionStateClosed:
			v.end(errGone)
		default:
		}
	}
}

// negotiate takes the offer and returns the answer with every candidate in it.
func (v *visitor) negotiate(ctx context.Context, offer string) (string, error) {
	if err := v.carry(rtp.Video, v.feed.video); err != nil {
		return "", err
	}
	if v.feed.sound != nil {
		if err := v.carry(rtp.Sound, v.feed.sound); err != nil {
			return "", err
		}
	}
	if err := v.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: v.spare(offer)}); err != nil {
		return "", unfit(err)
	}
	if !offers(offer, v.feed.video.Codec) {
		return "", v.notOffered()
	}
	answer, err := v.pc.CreateAnswer(nil)
	if err != nil {
		return "", unfit(err)
	}
	gathered := webrtc.GatheringCompletePromise(v.pc)
	if err := v.pc.SetLocalDescription(answer); err != nil {
		return "", unfit(err)
	}
	select {
	case <-gathered:
		return v.accepted()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// unfit says what is wrong with an offer, of which parsers like to repeat all.
func unfit(err error) error {
	text := err.Error()
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return fmt.Errorf("%w: %s", errOffer, text)
}

// spare returns an offer without the candidates that are too many.
func (v *visitor) spare(offer string) string {
	var b strings.Builder
	for line := range strings.Lines(offer) {
		if !strings.HasPrefix(line, "a=candidate:") || v.mayTry() {
			b.WriteString(line)
		}
	}
	return b.String()
}

// mayTry reports whether one more candidate of the player's may be tried. The
// box sends packets to each of them, whoever is there, so that they are few.
func (v *visitor) mayTry() bool { return v.taken.Add(1) <= maxCandidates }

// accepted returns the answer if the player takes the picture.
func (v *visitor) accepted() (string, error) {
	if len(v.outlets[rtp.Video].sender.GetParameters().Codecs) == 0 {
		return "", v.notOffered()
	}
	return v.pc.LocalDescription().SDP, nil
}

func (v *visitor) notOffered() error {
	return fmt.Errorf("%w: the player does not offer to receive %v, in which this picture is coded", errOffer, v.feed.video.Codec)
}

// carry adds a medium to the connection.
func (v *visitor) carry(m rtp.Medium, t *stream.Track) error {
	c := opus
	if m == rtp.Video {
		all, err := capabilities(t)
		if err != nil {
			return fmt.Errorf("webrtc: %w", err)
		}
		c = webrtc.RTPCodecCapability{MimeType: all[0].MimeType, ClockRate: all[0].ClockRate}
	}
	kind := [...]string{rtp.Video: "video", rtp.Sound: "audio"}[m]
	track, err := webrtc.NewTrackLocalStaticRTP(c, kind, v.feed.Source.Name)
	if err != nil {
		return fmt.Errorf("webrtc: %w", err)
	}
	sender, err := v.pc.AddTrack(track)
	if err != nil {
		return fmt.Errorf("%w: %w", errOffer, err)
	}
	v.outlets[m] = &outlet{track, sender}
	return nil
}

// listen hears what the player says of a medium until the connection is
// closed: the interceptors send lost packets again, a lost picture needs a key.
func (v *visitor) listen(sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			switch p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				v.feed.Source.WantKey()
			}
		}
	}
}

// host plays to v until it goes, and sees it off.
func (sv *service) host(ctx context.Context, v *visitor) {
	err := v.play(ctx)
	v.end(err)
	sv.mu.Lock()
	delete(sv.visitors, v.id)
	sv.mu.Unlock()
	v.part()
	v.log.Debug("webrtc player gone", "rendition", v.feed.Source.Name, "reason", context.Cause(ctx))
}

// part closes the connection, which tells the player, and leaves.
func (v *visitor) part() {
	defer v.arrived()
	if v.pc != nil {
		if err := v.pc.GracefulClose(); err != nil {
			v.log.Debug("webrtc close", "err", err)
		}
	}
	for _, leave := range v.leave {
		leave()
	}
}

func (v *visitor) play(ctx context.Context) error {
	patience := time.NewTimer(connectTimeout)
	defer patience.Stop()
	defer v.arrived()
	select {
	case <-v.connected:
		v.arrived()
	case <-patience.C:
		return errNoLine
	case <-ctx.Done():
		return nil
	}
	rd, leave := v.feed.Watch(ctx)
	defer leave()
	if err := v.catchUp(ctx, rd); err != nil {
		return err
	}
	for {
		b, err := v.next(ctx, rd)
		if err != nil {
			return err
		}
		if err := v.send(ctx, b, 0); err != nil {
			return err
		}
	}
}

func (v *visitor) next(ctx context.Context, rd *stream.Reader[*rtp.Batch]) (*rtp.Batch, error) {
	b, err := rd.Next(ctx)
	v.viewer.Lost.Store(rd.Lost())
	if errors.Is(err, stream.ErrClosed) {
		return nil, errEnded
	}
	return b, err
}

const (
	catchUpStep = rtp.VideoClock / 1000 // between two pictures that are past: a millisecond
	catchUpRate = 40_000_000 / 8        // bytes a second, so that the burst gets through
)

// catchUp sends the pictures since the latest key picture, which are past, in
// quick motion, so that the player sees something at once and is live at the
// end: their time stamps are as if each had come a moment before the next. Sound
// that is past is left out.
func (v *visitor) catchUp(ctx context.Context, rd *stream.Reader[*rtp.Batch]) error {
	var past []*rtp.Batch
	for rd.Behind() > 0 || len(past) == 0 {
		b, err := v.next(ctx, rd)
		if err != nil {
			return err
		}
		if len(b.Bytes(onlyVideo)) > 0 {
			past = append(past, b)
		}
	}
	now := past[len(past)-1].Time[rtp.Video]
	for i, b := range past {
		at := now - uint32(len(past)-1-i)*catchUpStep
		if err := v.send(ctx, b, at-b.Time[rtp.Video]); err != nil {
			return err
		}
		pause := time.Duration(len(b.Bytes(onlyVideo))) * time.Second / catchUpRate
		if !stream.Rest(ctx, pause) {
			return nil
		}
	}
	return nil
}

var onlyVideo = rtp.Set(0).With(rtp.Video)

// send sends a batch whose stamps are moved by shift. A batch that is moved
// has no reports: they would tell of another time.
func (v *visitor) send(ctx context.Context, b *rtp.Batch, shift uint32) error {
	bytes := 0
	for channel, packet := range b.Packets(onlyVideo.With(rtp.Sound)) {
		o := v.outlets[channel/2]
		switch {
		case ctx.Err() != nil: // over TCP each packet may take long
			return context.Cause(ctx)
		case o == nil, shift != 0 && channel != 0:
			continue
		case channel%2 == 1:
			if err := v.report(o, packet); err != nil {
				return err
			}
		default:
			if err := o.send(packet, shift); err != nil {
				return err
			}
		}
		bytes += len(packet)
	}
	v.viewer.Bytes.Add(uint64(bytes))
	v.viewer.Lag.Store(v.feed.latest.Load() - int64(b.At))
	return nil
}

func (o *outlet) send(packet []byte, shift uint32) error {
	var p pionrtp.Packet
	if err := p.Unmarshal(packet); err != nil {
		return fmt.Errorf("webrtc: %w", err)
	}
	p.Timestamp += shift
	if err := o.track.WriteRTP(&p); err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return nil
}

// report passes a sender report on under the source that the player knows.
func (v *visitor) report(o *outlet, packet []byte) error {
	packets, err := rtcp.Unmarshal(packet)
	if err != nil {
		return fmt.Errorf("webrtc: %w", err)
	}
	source := uint32(o.sender.GetParameters().Encodings[0].SSRC)
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.SenderReport:
			p.SSRC = source
		case *rtcp.SourceDescription:
			for i := range p.Chunks {
				p.Chunks[i].Source = source
			}
		}
	}
	if err := v.pc.WriteRTCP(packets); err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return nil
}
