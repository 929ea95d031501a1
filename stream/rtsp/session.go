package rtsp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// A session is what SETUP makes and TEARDOWN ends. One without a player is
// ready, one with a player is playing.
type session struct {
	id      string
	name    string // of the rendition, as asked for
	feed    *feed
	release func() // gives the feed back
	by      delivery
	secure  bool // SRTP
	want    rtp.Set
	ports   [2][2]uint16 // the player's, by medium, of UDP
	playing *player
}

// A call is one request in the making of its answer. cancel ends the
// connection.
type call struct {
	*request
	cancel context.CancelCauseFunc
}

// methods are what is served.
var methods = map[string]func(*conn, context.Context, call) *response{
	"OPTIONS":       (*conn).options,
	"DESCRIBE":      (*conn).describe,
	"SETUP":         (*conn).setup,
	"PLAY":          (*conn).play,
	"PAUSE":         (*conn).pause,
	"TEARDOWN":      (*conn).teardown,
	"GET_PARAMETER": (*conn).parameter,
	"SET_PARAMETER": (*conn).parameter,
}

const (
	public  = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER"
	refused = "|ANNOUNCE|RECORD|REDIRECT|" // known to RFC 2326, not served
)

// handle returns the answer to a request that is well formed.
func (c *conn) handle(ctx context.Context, cl call) *response {
	if cl.cseq() == "" {
		return answer(400)
	}
	if options := cl.header["Require"]; options != "" {
		return answer(551, "Unsupported: "+options)
	}
	if id := cl.sessionID(); id != "" && (c.session == nil || c.session.id != id) {
		return answer(454)
	}
	serve, ok := methods[cl.method]
	switch {
	case ok:
		return serve(c, ctx, cl)
	case strings.Contains(refused, "|"+cl.method+"|"):
		return answer(405, "Allow: "+public)
	default:
		return answer(501, "Public: "+public)
	}
}

func (c *conn) options(context.Context, call) *response {
	return c.ok("Public: " + public)
}

// ok answers 200, in a session with its id.
func (c *conn) ok(header ...string) *response {
	if s := c.session; s != nil {
		header = append(header, fmt.Sprintf("Session: %s;timeout=%d", s.id, int(c.limits.session.Seconds())))
	}
	return answer(200, header...)
}

func (c *conn) describe(ctx context.Context, cl call) *response {
	name, control := cl.target()
	if control != "" {
		return answer(404)
	}
	if no := c.admit(cl, name); no != nil {
		return no
	}
	src, tracks, no := c.find(ctx, name)
	if no != nil {
		return no
	}
	keys, err := c.describedKeys(src, tracks)
	if err != nil {
		c.log.Warn("rtsp cannot describe", "rendition", name, "err", err)
		return answer(503)
	}
	sdp, err := describe(name, tracks, c.local, time.Now(), keys)
	if err != nil {
		c.log.Warn("rtsp cannot describe", "rendition", name, "err", err)
		return answer(503)
	}
	res := c.ok("Content-Type: application/sdp", "Content-Base: "+cl.base())
	res.body = sdp
	return res
}

// describedKeys returns the keys of SRTP for a description over TLS. The feed
// that they belong to stays until the connection ends.
func (c *conn) describedKeys(src *stream.Rendition, tracks []*stream.Track) (keys [2]string, err error) {
	if !c.secure {
		return keys, nil
	}
	f, release, err := c.feeds.open(src, tracks, c.service)
	if err != nil {
		return keys, err
	}
	if c.described != nil {
		c.described()
	}
	c.described = release
	return f.keys(time.Now())
}

// find returns a rendition and its tracks once they are known, or else the
// answer that says why not.
func (c *conn) find(ctx context.Context, name string) (*stream.Rendition, []*stream.Track, *response) {
	src := c.Find(name)
	if src == nil {
		return nil, nil, answer(404)
	}
	ctx, cancel := context.WithTimeout(ctx, c.limits.tracks)
	defer cancel()
	tracks, err := src.Wait(ctx)
	if err != nil {
		return nil, nil, answer(503, "Retry-After: 5")
	}
	return src, playable(tracks), nil
}

func (c *conn) setup(ctx context.Context, cl call) *response {
	name, control := cl.target()
	m, ok := medium(control)
	switch {
	case control == "":
		return answer(459)
	case !ok:
		return answer(404)
	case c.session != nil && c.session.playing != nil:
		return answer(455)
	case c.session != nil && c.session.name != name:
		return answer(459)
	}
	if no := c.admit(cl, name); no != nil {
		return no
	}
	may := func(t transport) bool { return c.may(t, name) }
	t, ok := chooseTransport(cl.header["Transport"], may, c.peer.WithZone(""))
	if !ok || c.session != nil && (c.session.by != t.delivery || c.session.secure != t.secure) {
		return answer(461)
	}
	if c.session != nil && c.session.feed.tracks[m] == nil {
		return answer(404)
	}
	if c.session == nil {
		s, no := c.openSession(ctx, name, t)
		if no != nil {
			return no
		}
		if s.feed.tracks[m] == nil {
			s.release()
			return answer(404)
		}
		c.session = s
	}
	return c.add(cl, m, t)
}

// add makes m part of the session, by t.
func (c *conn) add(cl call, m rtp.Medium, t transport) *response {
	s := c.session
	header := []string{c.transportLine(m, t)}
	if t.secure {
		keys, err := s.feed.keys(time.Now())
		if err != nil {
			c.log.Warn("rtsp cannot serve", "rendition", s.name, "err", err)
			return answer(503)
		}
		header = append(header, fmt.Sprintf(`KeyMgmt: prot=mikey;uri=%q;data=%q`, cl.url.Redacted(), keys[m]))
	}
	s.want = s.want.With(m)
	s.ports[m] = t.ports
	return c.ok(header...)
}

// may reports whether packets of a rendition may reach this player that way.
// What is not open to everybody is not multicast: whoever joins a group gets it.
// Nothing that TLS would hide is sent in the clear, and keys go out by TLS only.
func (c *conn) may(t transport, name string) bool {
	switch {
	case t.secure && !c.secure:
		return false
	case t.delivery == udp:
		return c.udp != nil && t.secure == c.secure
	case t.delivery == multicast && c.secure:
		return false
	case t.delivery == multicast:
		open := c.Audience.Allow(c.nc.RemoteAddr().String(), name, stream.Credentials{}) == nil
		return open && c.udp != nil && c.Multicast && c.local.Is4()
	default:
		return true
	}
}

// group returns where a rendition is multicast to.
func (c *conn) group(name string) group { return c.groups.find(c.MulticastSeed, name) }

// openSession makes a session, or else the answer that says why not.
func (c *conn) openSession(ctx context.Context, name string, t transport) (*session, *response) {
	src, tracks, no := c.find(ctx, name)
	if no != nil {
		return nil, no
	}
	f, release, err := c.feeds.open(src, tracks, c.service)
	if err != nil {
		c.log.Warn("rtsp cannot serve", "rendition", name, "err", err)
		return nil, answer(503)
	}
	return &session{id: rand.Text(), name: name, feed: f, release: release, by: t.delivery, secure: t.secure}, nil
}

// medium returns the medium that a control attribute names.
func medium(control string) (rtp.Medium, bool) {
	for _, m := range []rtp.Medium{rtp.Video, rtp.Sound} {
		if control == fmt.Sprintf("%s%d", controlPrefix, m) {
			return m, true
		}
	}
	return 0, false
}

// transportLine tells the transport of m. Interleaved channels are ours,
// whatever the player proposed: all readers get the same bytes.
func (c *conn) transportLine(m rtp.Medium, t transport) string {
	ssrc := c.session.feed.packer.SSRC(m)
	profile := "RTP/AVP"
	if t.secure {
		profile = "RTP/SAVP"
	}
	switch t.delivery {
	case interleaved:
		return fmt.Sprintf("Transport: %s/TCP;unicast;interleaved=%d-%d;ssrc=%08X", profile, 2*m, 2*m+1, ssrc)
	case multicast:
		g := c.group(c.session.name)
		return fmt.Sprintf("Transport: %s;multicast;destination=%v;port=%d-%d;ttl=%d;ssrc=%08X",
			profile, g.addr, g.ports[m][0], g.ports[m][1], multicastTTL, ssrc)
	default:
		return fmt.Sprintf("Transport: %s;unicast;client_port=%d-%d;server_port=%d-%d;ssrc=%08X",
			profile, t.ports[0], t.ports[1], c.udp.port(), c.udp.port()+1, ssrc)
	}
}

func (c *conn) play(ctx context.Context, cl call) *response {
	s := c.session
	switch {
	case s == nil || cl.sessionID() == "":
		return answer(454)
	case s.playing != nil:
		return c.ok("Range: npt=now-") // plays already
	case s.feed.Ended():
		return answer(503)
	}
	if no := c.admit(cl, s.name); no != nil {
		return no
	}
	playing, stop := context.WithCancel(ctx)
	p, err := c.newPlayer(playing, stop, s)
	if err != nil {
		stop()
		c.log.Debug("rtsp player refused", "rendition", s.feed.Source.Name, "err", err)
		if errors.Is(err, stream.ErrFull) {
			return answer(453)
		}
		return answer(503)
	}
	info := p.info(playing, cl.base(), s.want)
	begin := make(chan struct{})
	c.wg.Go(func() { p.serve(playing, begin, cl.cancel) })
	s.playing = p
	res := c.ok(append([]string{"Range: npt=now-"}, info...)...)
	res.after = func() { close(begin) }
	return res
}

func (c *conn) pause(_ context.Context, cl call) *response {
	s := c.session
	switch {
	case s == nil || cl.sessionID() == "":
		return answer(454)
	case s.playing == nil:
		return answer(455)
	}
	s.stopPlaying()
	return c.ok()
}

func (c *conn) teardown(_ context.Context, cl call) *response {
	if c.session == nil || cl.sessionID() == "" {
		return answer(454)
	}
	c.endSession()
	return answer(200)
}

// parameter keeps a session alive, which is all that players use it for.
func (c *conn) parameter(_ context.Context, cl call) *response {
	if cl.body > 0 {
		return answer(451)
	}
	return c.ok()
}

// endSession goes back to init.
func (c *conn) endSession() {
	if s := c.session; s != nil {
		s.stopPlaying()
		s.release()
		c.session = nil
	}
}

// stopPlaying goes back to ready. It waits for the batch that is on its way.
func (s *session) stopPlaying() {
	if s.playing != nil {
		s.playing.close()
		s.playing = nil
	}
}

// rtcpSources returns where the player's receiver reports come from.
func (s *session) rtcpSources(peer netip.Addr) []netip.AddrPort {
	var from []netip.AddrPort
	for m, ports := range s.ports {
		if s.want.Has(rtp.Medium(m)) {
			from = append(from, netip.AddrPortFrom(peer, ports[1]))
		}
	}
	return from
}
