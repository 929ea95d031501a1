package rtmp

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
	"encoderd.example/stream/flv/amf0"
)

// A player sends one rendition to one caller, from play to closeStream or the
// end, with pauses.
type player struct {
	*stream.Line
	mux    flv.Muxer
	c      *caller
	src    *stream.Rendition
	viewer *stream.Viewer
	leave  func() // the audience

	halt   context.CancelFunc // nil: paused
	done   chan struct{}      // closed when run returns
	cut    cutter             // of the unit on its way
	bytes  int                // of its tags
	emit   func(flv.Tag) error
	broken bool // a message was cut off; for reading after done
}

// play serves play(name, start, duration, reset); all that is live starts now
// and has no end, so that nothing but the name counts.
func (c *caller) play(ctx context.Context, cmd command) error {
	c.endPlay()
	name, query, _ := strings.Cut(cmd.text(), "?")
	src := c.Find(name)
	if src == nil {
		return c.refuse("NetStream.Play.StreamNotFound", "there is no such stream")
	}
	waiting, cancel := context.WithTimeout(ctx, c.limits.tracks)
	tracks, err := src.Wait(waiting)
	cancel()
	if err != nil {
		return errors.Join(context.Cause(ctx), c.refuse("NetStream.Play.Failed", "the stream has not begun yet: try again"))
	}
	mux, err := c.muxer(tracks)
	if err != nil {
		return c.refuse("NetStream.Play.Failed", err.Error())
	}
	viewer := &stream.Viewer{Protocol: "rtmp", Rendition: src.Name, Peer: c.wire.RemoteAddr().String(), Since: time.Now()}
	if c.TLS != nil {
		viewer.Protocol = "rtmps"
	}
	leave, err := c.Audience.Admit(viewer, credentials(query, c.query))
	if err != nil {
		c.log.Debug("rtmp player refused", "rendition", src.Name, "err", err)
		return c.refuse("NetStream.Play.Failed", err.Error())
	}
	if err := c.w.line.Play(stream.Bitrate(tracks)); err != nil {
		c.log.Debug("rtmp send buffer stays as it is", "err", err)
	}
	c.place.Keep()
	c.player = newPlayer(c, src, mux, viewer)
	c.player.leave = func() { leave(); c.place.Yield() }
	if err := c.announce(name); err != nil {
		return err
	}
	c.player.start(ctx)
	return nil
}

func newPlayer(c *caller, src *stream.Rendition, mux *flv.Muxer, viewer *stream.Viewer) *player {
	p := &player{Line: c.w.line, c: c, src: src, mux: *mux, viewer: viewer, cut: cutter{chunk: chunkSize}}
	p.emit = p.add
	return p
}

// muxer returns one for what the caller understands.
func (c *caller) muxer(tracks []*stream.Track) (*flv.Muxer, error) {
	if c.enhanced {
		return flv.NewEnhancedMuxer(tracks, encoderName)
	}
	for _, t := range tracks {
		if t.Codec == stream.H265 {
			return nil, flv.ErrNotEnhanced
		}
	}
	return flv.NewMuxer(tracks, encoderName)
}

// credentials takes the first of the queries that has any.
func credentials(queries ...string) stream.Credentials {
	for _, q := range queries {
		v, _ := url.ParseQuery(q) // what is whole of it counts
		c := stream.Credentials{User: v.Get("user"), Password: v.Get("password"), Token: v.Get("token")}
		if !c.Empty() {
			return c
		}
	}
	return stream.Credentials{}
}

// refuse answers a play that cannot be. The caller may ask again, a few times.
func (c *caller) refuse(code, text string) error {
	if err := c.tell(status{"error", code, text}); err != nil {
		return err
	}
	if c.refusals++; c.refusals >= maxRefusals {
		return errRefused
	}
	return nil
}

var theStream = []byte{0, 0, 0, onlyStream}

// announce says that a stream begins, in the order in which players wait.
// "NetStream.Data.Start", which Adobe's server sent too, is left out: ffmpeg
// takes it for subtitles.
func (c *caller) announce(name string) error {
	access := amf0.Append(nil, amf0.String("|RtmpSampleAccess"), amf0.Bool(true), amf0.Bool(true))
	return errors.Join(
		c.control(eventBegin, theStream),
		c.tell(status{"status", "NetStream.Play.Reset", name}),
		c.tell(status{"status", "NetStream.Play.Start", name}),
		c.w.message(csStream, msgData, onlyStream, 0, access, nil),
	)
}

// pause serves pause(flag, time).
func (c *caller) pause(ctx context.Context, cmd command) error {
	p := c.player
	if p == nil {
		return c.refuse("NetStream.Play.Failed", "nothing plays")
	}
	if cmd.flag() {
		p.stop()
		return c.tell(status{"status", "NetStream.Pause.Notify", p.src.Name})
	}
	if p.running() {
		return nil
	}
	if err := c.tell(status{"status", "NetStream.Unpause.Notify", p.src.Name}); err != nil {
		return err
	}
	p.mux.Resume()
	p.start(ctx)
	return nil
}

func (p *player) running() bool { return p.halt != nil }

// start sends from the latest key picture on.
func (p *player) start(ctx context.Context) {
	ctx, p.halt = context.WithCancel(ctx)
	p.done = make(chan struct{})
	p.c.players.Go(func() {
		defer close(p.done)
		if err := p.run(ctx); err != nil {
			p.c.hangUp(err)
		}
	})
}

// stop waits for the message that is on its way.
func (p *player) stop() {
	if p.halt == nil {
		return
	}
	p.halt()
	<-p.done
	p.halt = nil
}

func (p *player) close() {
	p.stop()
	p.leave()
}

var errStreamEnded = errors.New("the stream ended")

// run sends until ctx ends, which is no error. Only a broken connection makes
// it end inside a message.
func (p *player) run(ctx context.Context) error {
	err := p.c.fan.Serve(ctx, p.src.Reader(), p.viewer, p)
	switch {
	case errors.Is(err, stream.ErrClosed):
		return errStreamEnded
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return nil
	default:
		p.broken = true
		return err
	}
}

// Take is [stream.Sink]: it offers u's tags, each as one message.
func (p *player) Take(u *stream.Unit, plate *stream.Plate) (int, error) {
	if plate != nil && len(u.Data) < mostPrinted {
		if at, ok := p.mux.Plain(u); ok {
			return p.print(u, at, plate), nil
		}
	}
	p.cut.begin()
	p.bytes = 0
	if err := p.mux.Next(u, p.emit); err != nil {
		return 0, err
	}
	if p.bytes > 0 {
		p.Offer(p.cut.pieces)
	}
	return p.bytes, nil
}

// mostPrinted is what has room in one chunk with its head, so that nothing but
// the header tells the time.
const mostPrinted = chunkSize - flv.EnhancedHead

// print offers the message of u, which is the same for all but its header:
//
//	[    header     │head│data…]
//	[skipped│header │head│data…] while it needs no extended time
func (p *player) print(u *stream.Unit, at uint32, plate *stream.Plate) (bytes int) {
	if plate.Blank() {
		var room [longHeader]byte
		plate.Lay(longHeader, room[:], flv.AppendHead(nil, u), u.Data)
	}
	skip, bytes := longHeader-headerSize(at), plate.Size()-longHeader
	kind := flv.KindOf(u)
	appendHeader(plate.Head()[skip:skip], chunkStreamOf(kind), byte(kind), onlyStream, at, bytes)
	p.OfferPlate(plate, skip)
	return bytes
}

// add lays a tag out. Metadata goes out under its own name: "@setDataFrame" is
// what publishers say.
func (p *player) add(t flv.Tag) error {
	p.cut.message(chunkStreamOf(t.Kind), byte(t.Kind), onlyStream, t.Time, t.Head, t.Data)
	p.bytes += len(t.Head) + len(t.Data)
	return nil
}

func chunkStreamOf(kind flv.Kind) byte {
	switch kind {
	case flv.Audio:
		return csAudio
	case flv.Script:
		return csStream
	default:
		return csVideo
	}
}

// goodbye tells the caller that no more will come.
func (p *player) goodbye() error {
	return errors.Join(
		p.c.control(eventEOF, theStream),
		p.c.tell(status{"status", "NetStream.Play.UnpublishNotify", p.src.Name}),
		p.c.tell(status{"status", "NetStream.Play.Stop", p.src.Name}),
	)
}
