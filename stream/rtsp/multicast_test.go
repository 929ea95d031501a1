package rtsp

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/pion/rtp"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

// outside returns an IPv4 address of this machine on a network that can carry
// multicast.
func outside(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if all[i].Flags&(net.FlagMulticast|net.FlagUp|net.FlagLoopback) != net.FlagMulticast|net.FlagUp {
			continue
		}
		addrs, _ := all[i].Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				return p.Addr().String()
			}
		}
	}
	t.Fatal("this machine has no network with multicast: one is needed here, as by `ip link add … type dummy`")
	return ""
}

// castTo starts a server that multicasts a rendition that plays for ever.
func castTo(t *testing.T) (url string, audience *stream.Audience) {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", outside(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	enc := newFake(t, 30, 20_000)
	audience = &stream.Audience{}
	run(t, &Server{Listener: ln, Find: only(enc.r), Audience: audience, Multicast: true, MulticastSeed: t.Name(), Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	enc.live(t, 10e6)
	return "rtsp://" + ln.Addr().String() + "/main", audience
}

// castReader plays by multicast and counts.
func castReader(t *testing.T, url string) (packets, lost *atomic.Uint64, c *gortsplib.Client) {
	t.Helper()
	packets, lost = new(atomic.Uint64), new(atomic.Uint64)
	u, err := base.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	protocol := gortsplib.ProtocolUDPMulticast
	c = &gortsplib.Client{Scheme: "rtsp", Host: u.Host, Protocol: &protocol, OnPacketsLost: func(n uint64) { lost.Add(n) }}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	desc, _, err := c.Describe(u)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetupAll(desc.BaseURL, desc.Medias); err != nil {
		t.Fatal(err)
	}
	c.OnPacketRTPAny(func(*description.Media, format.Format, *rtp.Packet) { packets.Add(1) })
	if _, err := c.Play(nil); err != nil {
		t.Fatal(err)
	}
	return packets, lost, c
}

func TestGortsplibListensToAGroup(t *testing.T) {
	url, audience := castTo(t)
	one, lostOne, c := castReader(t, url)
	two, lostTwo, d := castReader(t, url)
	until(t, "packets at both", func() bool { return one.Load() > 500 && two.Load() > 500 })
	views := audience.Viewers()
	if len(views) != 2 || views[0].Protocol != "rtsp/multicast" || views[0].Bytes.Load() == 0 || views[1].Bytes.Load() == 0 {
		t.Errorf("audience is %+v", views)
	}
	if a, b := views[0].Bytes.Load(), views[1].Bytes.Load(); a < b {
		t.Errorf("the first got %d bytes, the second %d", a, b)
	}
	c.Close()
	until(t, "one listener", func() bool { return len(audience.Viewers()) == 1 })
	now := two.Load()
	until(t, "more packets at the other", func() bool { return two.Load() > now+100 })
	d.Close()
	until(t, "nobody", func() bool { return len(audience.Viewers()) == 0 })
	if lost, got := lostOne.Load()+lostTwo.Load(), one.Load()+two.Load(); lost > got/20 { // a busy machine drops datagrams
		t.Errorf("lost %d and %d packets", lostOne.Load(), lostTwo.Load())
	}
}

func TestACasterThatEndedTakesNoMoreMembers(t *testing.T) {
	enc := newFake(t, 1, 1000)
	enc.publish()
	var fs feeds
	f, release, err := fs.open(enc.r, []*stream.Track{enc.video, enc.sound}, &service{Server: &Server{}, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var opened []groupSender
	open := func() (groupSender, error) {
		from := netip.MustParseAddr(outside(t))
		to, err := newGroupSender(t.Context(), groupOf(t.Name(), "main"), from, 0)
		opened = append(opened, to)
		return to, err
	}
	var cs casters
	key := casterKey{feed: f}
	join := func(v *stream.Viewer) (*caster, func()) {
		c, leave, err := cs.join(t.Context(), key, v, open)
		if err != nil {
			t.Fatal(err)
		}
		return c, leave
	}
	first, leaveFirst := join(&stream.Viewer{})
	opened[0].close() // as if its network were gone
	enc.publish()
	<-first.ended
	v := &stream.Viewer{}
	second, leaveSecond := join(v)
	if second == first {
		t.Fatal("a newcomer joins what has ended")
	}
	leaveFirst()
	third, leaveThird := join(&stream.Viewer{})
	if third != second {
		t.Error("the old caster's last member took the new one along")
	}
	enc.publish()
	until(t, "packets for the newcomer", func() bool { return v.Bytes.Load() > 0 })
	leaveSecond()
	leaveThird()
	if len(cs.of) != 0 || len(opened) != 2 {
		t.Errorf("%d casters are left, %d were opened", len(cs.of), len(opened))
	}
}

func TestANewcomerToAGroupHasAKeyPictureMade(t *testing.T) {
	enc := newFake(t, 1, 1000)
	var fs feeds
	f, release, err := fs.open(enc.r, []*stream.Track{enc.video, enc.sound}, &service{Server: &Server{}, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	open := func() (groupSender, error) {
		return newGroupSender(t.Context(), groupOf(t.Name(), "main"), netip.MustParseAddr(outside(t)), 0)
	}
	var cs casters
	for wishes := range 2 {
		_, leave, err := cs.join(t.Context(), casterKey{feed: f}, &stream.Viewer{}, open)
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		if n := len(enc.r.KeyWanted()); n != wishes {
			t.Errorf("%d wishes with %d members there before", n, wishes)
		}
	}
}

func TestWhatIsGuardedIsNotMulticast(t *testing.T) {
	url, audience := castTo(t)
	audience.SetDoor(guard{"venue", "pass", "letmein"}, stream.Limits{})
	host := strings.Split(url, "/")[2]
	c := dial(t, host, "main")
	c.must(t, 461, "SETUP", c.base+"?token=letmein/trackID=0", "Transport: RTP/AVP;multicast")
	c.must(t, 200, "SETUP", c.base+"?token=letmein/trackID=0", "Transport: RTP/AVP;multicast,RTP/AVP/TCP;unicast")
}

func TestMulticastOnlyIfAsked(t *testing.T) {
	enc := newFake(t, 30, 1000)
	enc.publish()
	for name, srv := range map[string]*Server{
		"not offered": {Find: only(enc.r)},
		"no udp":      {Find: only(enc.r), Multicast: true, TCPOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, start(t, srv), "main")
			c.must(t, 461, "SETUP", c.base+"/trackID=0", "Transport: RTP/AVP;multicast")
		})
	}
}

func TestGroupsOfRenditions(t *testing.T) {
	seen := map[netip.Addr]bool{}
	var gs groups
	for i := range 500 {
		name := fmt.Sprint("rendition ", i)
		g := gs.find("box", name)
		if seen[g.addr] || !g.addr.IsMulticast() || g.ports[0][0]%2 != 0 || g.ports[1][1] >= 28000 || g.ports[0][0] < 20000 {
			t.Fatalf("%s: %+v", name, g)
		}
		seen[g.addr] = true
		if g != gs.find("box", name) {
			t.Fatalf("%s: another group the second time", name)
		}
	}
	a, b := groupOf("one", "main"), groupOf("two", "main")
	if a == b {
		t.Error("two boxes have one group")
	}
}

func TestFFprobeListensToAGroup(t *testing.T) {
	media := streamtest.NewMedia(t, 6*streamtest.FPS)
	r := media.Rendition(1024)
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", outside(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	audience := &stream.Audience{}
	run(t, &Server{Listener: ln, Find: only(r), Audience: audience, Multicast: true, MulticastSeed: t.Name()})
	wg := publish(t, r, media.Units, func() bool { return len(audience.Viewers()) == 1 })
	out := peer.Output(t, "ffprobe", "-v", "error", "-rtsp_transport", "udp_multicast", "-show_entries", "packet=stream_index,size", "-of", "csv=p=0",
		"rtsp://"+ln.Addr().String()+"/"+r.Name)
	wg.Wait()
	got := 0
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "0,") {
			got++
		}
	}
	if want := 5 * streamtest.FPS; got < want { // it begins with a key picture to come, one a second
		t.Errorf("got %d pictures, want %d at least:\n%s", got, want, out)
	}
}
