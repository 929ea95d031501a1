package rtsp

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/net/ipv4"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// Multicast: one stream on the network, however many players listen to it.
// Each rendition has a group of its own, which its name decides, so that it is
// the same after a restart and another one on another box. Packets leave by
// the interface that the player's connection came in by, and only while
// somebody plays.
const (
	// groupPort and groupPorts are the ports of groups, four for each: RTP and
	// RTCP of both media. They differ as the groups do, because Linux hands a
	// socket the packets of every group that somebody on the host has joined.
	groupPort  = 20000
	groupPorts = 2000
)

// A group is where one rendition is multicast to.
type group struct {
	addr  netip.Addr
	ports [2][2]uint16 // by medium, RTP and RTCP
}

// groupOf returns the group of a rendition: 239.195.x.y, in the
// organization-local scope of RFC 2365, 6.2.
func groupOf(seed, name string) group {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s\x00%s", seed, name)
	sum := h.Sum64()
	host := 1 + uint16(sum%0xfffe)
	first := uint16(groupPort + 4*(sum>>32%groupPorts))
	return group{
		addr:  netip.AddrFrom4([4]byte{239, 195, byte(host >> 8), byte(host)}),
		ports: [2][2]uint16{{first, first + 1}, {first + 2, first + 3}},
	}
}

// A caster multicasts one rendition out of one interface to its members.
type caster struct {
	feed *feed
	stop func() // ends the goroutine and waits for it

	mu      sync.Mutex
	members []*stream.Viewer
	ended   chan struct{} // closed when the goroutine ends
}

// casters are those that somebody listens to.
type casters struct {
	mu sync.Mutex
	of map[casterKey]*caster
}

type casterKey struct {
	feed *feed
	from netip.Addr
}

// join makes v a member of a feed's caster until leave is called. The first
// member starts it with the cached group of pictures, each further one has a
// key picture made, the last one ends it. One that has ended by itself keeps
// the members that have not left yet, and gets no more.
func (cs *casters) join(ctx context.Context, key casterKey, v *stream.Viewer, open func() (groupSender, error)) (c *caster, leave func(), err error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c = cs.of[key]
	if c == nil || c.over() {
		to, err := open()
		if err != nil {
			return nil, nil, err
		}
		c = startCaster(ctx, key.feed, to)
		if cs.of == nil {
			cs.of = make(map[casterKey]*caster)
		}
		cs.of[key] = c
	} else { // whoever joins a group gets what comes next, and that may be long before a key picture
		key.feed.Source.WantKey()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members, v)
	return c, sync.OnceFunc(func() { cs.leave(key, c, v) }), nil
}

func (cs *casters) leave(key casterKey, c *caster, v *stream.Viewer) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.mu.Lock()
	c.members = slices.DeleteFunc(c.members, func(o *stream.Viewer) bool { return o == v })
	last := len(c.members) == 0
	c.mu.Unlock()
	if !last {
		return
	}
	if cs.of[key] == c {
		delete(cs.of, key)
	}
	c.stop()
}

func startCaster(ctx context.Context, f *feed, to groupSender) *caster {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	rd, leave := f.Watch(ctx)
	c := &caster{feed: f, ended: make(chan struct{})}
	c.stop = func() {
		cancel()
		<-c.ended
		leave()
	}
	go func() {
		defer close(c.ended)
		defer to.close()
		if err := c.run(ctx, rd, to); err != nil {
			f.log.Info("rtsp multicast ends", "rendition", f.Source.Name, "err", err)
		}
		if _, err := to.send(context.WithoutCancel(ctx), f.packer.Goodbye()); err != nil {
			f.log.Debug("rtsp goodbye not sent", "err", err)
		}
	}()
	return c
}

// run sends until ctx ends, which is no error.
func (c *caster) run(ctx context.Context, rd *stream.Reader[*rtp.Batch], to groupSender) error {
	for {
		b, err := rd.Next(ctx)
		switch {
		case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
			return nil
		case err != nil:
			return err
		}
		n, err := to.send(ctx, b)
		if err != nil {
			return err
		}
		c.count(uint64(n), rd.Lost(), c.feed.latest.Load()-int64(b.At))
	}
}

// count tells every member what the network got.
func (c *caster) count(bytes, lost uint64, lag int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.members {
		v.Bytes.Add(bytes)
		v.Lost.Store(lost)
		v.Lag.Store(lag)
	}
}

// over reports whether nothing more will come, as after a send that failed.
// Its sockets are closed then, so that another caster can have their ports.
func (c *caster) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// wait returns when ctx ends, or why nothing more will come.
func (c *caster) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.ended:
		return errStreamEnded
	}
}

var errNoInterface = errors.New("no interface has the address that the player came to")

// A groupSender sends to one group, each medium from the port that it is for:
// some players take packets from no other.
type groupSender [2]*udpSender

// newGroupSender sends both media to a group, out of the interface that has
// the address from.
func newGroupSender(ctx context.Context, g group, from netip.Addr, bitrate int) (groupSender, error) {
	index, err := interfaceOf(from)
	if err != nil {
		return groupSender{}, err
	}
	var s groupSender
	for _, m := range []rtp.Medium{rtp.Video, rtp.Sound} {
		pair, err := listenPair(ctx, from.String(), int(g.ports[m][0]))
		if err != nil {
			s.close()
			return groupSender{}, fmt.Errorf("open multicast ports: %w", err)
		}
		s[m] = newUDPSender(pair, rtp.Set(0).With(m), g.addr, from, g.ports, bitrate)
		s[m].src = (&ipv4.ControlMessage{Src: from.AsSlice(), IfIndex: index}).Marshal()
	}
	return s, nil
}

func (s groupSender) send(ctx context.Context, b *rtp.Batch) (bytes int, err error) {
	for _, one := range s {
		n, err := one.send(ctx, b)
		bytes += n
		if err != nil {
			return bytes, err
		}
	}
	return bytes, nil
}

func (s groupSender) close() {
	for _, one := range s {
		if one != nil {
			one.pair.close()
		}
	}
}

// interfaceOf returns the index of the interface with an address.
func interfaceOf(addr netip.Addr) (int, error) {
	all, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("list interfaces: %w", err)
	}
	for i := range all {
		addrs, err := all[i].Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
				return all[i].Index, nil
			}
		}
	}
	return 0, errNoInterface
}

// groups hands out the groups of renditions. No two of a box are the same.
type groups struct {
	mu sync.Mutex
	of map[string]group
}

func (gs *groups) find(seed, name string) group {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g, ok := gs.of[name]; ok {
		return g
	}
	taken := slices.Collect(maps.Values(gs.of))
	g := groupOf(seed, name)
	for try := 1; try < groupPorts && slices.ContainsFunc(taken, func(o group) bool { return o.addr == g.addr || o.ports == g.ports }); try++ {
		g = groupOf(seed, fmt.Sprintf("%s\x00%d", name, try))
	}
	if gs.of == nil {
		gs.of = make(map[string]group)
	}
	gs.of[name] = g
	return g
}
