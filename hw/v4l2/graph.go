package v4l2

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// A graph is what a media device tells of its hardware: entities with pads, and
// the links that can carry pictures from a source pad to a sink pad.
//
//	┌ tc358743 ┐     ┌──── csi2 ────┐     ┌ rp1-cfe-csi2-ch0 ┐
//	│     src 0├────►│0 sink   src 4├────►│0 sink            │ /dev/video0
//	└──────────┘     └──────────────┘     └──────────────────┘
//
// It is a picture of one moment and does not change.
type graph struct {
	media    string // the media device's node: "/dev/media0"
	entities []*entity
	links    []link
}

// An entity is a part of the hardware.
type entity struct {
	id       uint32
	name     string
	function uint32 // uapi.Entity…
	path     string // "/dev/video0" or "/dev/v4l-subdev0"; "" if it has none
	video    bool   // path is a video node
	pads     []*pad // in the order of their numbers
}

// A pad is where a link begins or ends.
type pad struct {
	id    uint32
	of    *entity
	index uint32
	flags uint32 // uapi.Pad…
}

func (p *pad) sink() bool { return p.flags&uapi.PadSink != 0 }

// String returns, for example, `"csi2":4`.
func (p *pad) String() string { return fmt.Sprintf("%q:%d", p.of.name, p.index) }

// ordinal counts the pads of the same direction before p.
func (p *pad) ordinal() (n int) {
	for _, o := range p.of.pads {
		if o.index < p.index && o.sink() == p.sink() {
			n++
		}
	}
	return n
}

// A link leads from a source pad to a sink pad.
type link struct {
	from, to *pad
	flags    uint32 // uapi.Link…
}

func (l link) enabled() bool   { return l.flags&uapi.LinkEnabled != 0 }
func (l link) immutable() bool { return l.flags&uapi.LinkImmutable != 0 }

// String returns, for example, `"csi2":4 -> "rp1-cfe-csi2-ch0":0`.
func (l link) String() string { return fmt.Sprintf("%v -> %v", l.from, l.to) }

// newGraph joins the tables of a topology. node returns the path of the device
// with these numbers.
func newGraph(media string, t *topology, node func(major, minor uint32) string) *graph {
	g := &graph{media: media}
	entities, pads, interfaces := map[uint32]*entity{}, map[uint32]*pad{}, map[uint32]uapi.MediaInterface{}
	for _, e := range t.entities {
		n := &entity{id: e.ID, name: text(e.Name[:]), function: e.Function}
		entities[e.ID] = n
		g.entities = append(g.entities, n)
	}
	for _, p := range t.pads {
		if e := entities[p.EntityID]; e != nil {
			n := &pad{id: p.ID, of: e, index: p.Index, flags: p.Flags}
			pads[p.ID] = n
			e.pads = append(e.pads, n)
		}
	}
	for _, e := range g.entities {
		slices.SortFunc(e.pads, func(a, b *pad) int { return cmp.Compare(a.index, b.index) })
	}
	for _, i := range t.interfaces {
		interfaces[i.ID] = i
	}
	for _, l := range t.links {
		switch l.Flags & uapi.LinkTypeMask {
		case uapi.LinkInterface:
			if i, e := interfaces[l.SourceID], entities[l.SinkID]; e != nil && (i.Type == uapi.InterfaceVideo || i.Type == uapi.InterfaceSubdev) {
				e.path, e.video = node(i.Major, i.Minor), i.Type == uapi.InterfaceVideo
			}
		case uapi.LinkData:
			if from, to := pads[l.SourceID], pads[l.SinkID]; from != nil && to != nil {
				g.links = append(g.links, link{from, to, l.Flags})
			}
		}
	}
	return g
}

// node returns the entity of a video node, nil if the graph has none.
func (g *graph) node(path string) *entity {
	i := slices.IndexFunc(g.entities, func(e *entity) bool { return e.video && e.path == path })
	if i < 0 {
		return nil
	}
	return g.entities[i]
}

// A route is the links that pictures take from a source to a video node, in
// their order. It has at least one.
type route struct {
	media string // the media device's node
	links []link
	// branches leave source pads of the route and cannot be cut: what they lead
	// to must agree, though nobody reads it.
	branches []link
}

func (r route) source() *pad  { return r.links[0].from }
func (r route) node() *entity { return r.links[len(r.links)-1].to.of }

// String returns, for example, "tc358743 10-000f → csi2 → rp1-cfe-csi2-ch0".
func (r route) String() string {
	names := []string{r.source().of.name}
	for _, l := range r.links {
		names = append(names, l.to.of.name)
	}
	return strings.Join(names, " → ")
}

// detours sums how far pictures move sideways inside of entities: hardware with
// as many inputs as outputs, such as a crossbar, connects first with first and
// second with second unless it is told otherwise.
func (r route) detours() (n int) {
	for i, l := range r.links[1:] {
		d := l.from.ordinal() - r.links[i].to.ordinal()
		n += max(d, -d)
	}
	return n
}

// straighter orders routes: the shortest first, then the straightest, then by
// the numbers of pads, so that the order does not depend on what is enabled.
func straighter(a, b route) int {
	pads := func(r route) (list []uint32) {
		for _, l := range r.links {
			list = append(list, l.from.index, l.to.index)
		}
		return list
	}
	return cmp.Or(
		cmp.Compare(len(a.links), len(b.links)),
		cmp.Compare(a.detours(), b.detours()),
		slices.Compare(pads(a), pads(b)),
		cmp.Compare(len(a.node().path), len(b.node().path)), // video2 before video10
		cmp.Compare(a.node().path, b.node().path),
	)
}

// routes returns the routes that end at a node, best first, and whether memory
// feeds it: then it belongs to a processor of pictures.
func (g *graph) routes(node *entity) (list []route, fed bool) {
	var walk func(at *entity, tail []link)
	walk = func(at *entity, tail []link) {
		for _, l := range g.links {
			if l.to.of != at || slices.ContainsFunc(tail, func(t link) bool { return t.to.of == l.from.of }) {
				continue
			}
			way := append([]link{l}, tail...)
			switch e := l.from.of; {
			case e.video:
				fed = true
			case e.begins():
				list = append(list, route{g.media, way, g.branches(way)})
			default:
				walk(e, way)
			}
		}
	}
	walk(node, nil)
	slices.SortFunc(list, straighter)
	return list, fed
}

// branches returns the links that leave a way and cannot be cut.
func (g *graph) branches(way []link) (list []link) {
	for _, l := range way {
		for _, o := range g.links {
			if o.from == l.from && o.to != l.to && o.enabled() && o.immutable() {
				list = append(list, o)
			}
		}
	}
	return list
}

// begins says whether pictures come from outside at e: nothing goes in there, or
// it is a sensor or decoder, which may have connectors or parts before it.
func (e *entity) begins() bool {
	switch e.function {
	case uapi.EntityCameraSensor, uapi.EntityDigitalDecoder, uapi.EntityAnalogDecoder:
		return true
	default:
		return !slices.ContainsFunc(e.pads, (*pad).sink)
	}
}

// sources returns the routes from each source to any of the nodes, the best of
// each first, in the order of their best.
func (g *graph) sources(nodes []*entity) [][]route {
	var all []route
	for _, n := range nodes {
		list, _ := g.routes(n)
		all = append(all, list...)
	}
	slices.SortFunc(all, straighter)
	var order []*entity
	by := map[*entity][]route{}
	for _, r := range all {
		from := r.source().of
		if by[from] == nil {
			order = append(order, from)
		}
		by[from] = append(by[from], r)
	}
	var list [][]route
	for _, e := range order {
		list = append(list, by[e])
	}
	return list
}

// again finds a route in a later picture of the same graph, with the flags of
// then; nil if it is no longer there.
func (g *graph) again(r route) *route {
	now := route{media: g.media}
	for _, l := range r.links {
		i := slices.IndexFunc(g.links, l.is)
		if i < 0 {
			return nil
		}
		now.links = append(now.links, g.links[i])
	}
	now.branches = g.branches(now.links)
	return &now
}

// is says whether o is the same link in another picture.
func (l link) is(o link) bool { return l.from.is(o.from) && l.to.is(o.to) }

func (p *pad) is(o *pad) bool {
	return p.id == o.id && p.index == o.index && p.of.name == o.of.name && p.of.path == o.of.path
}

// rivals returns the links that must be cut for r to work, of a picture of the
// same moment: what else ends at a sink pad of the route, and what leaves a
// source pad of it for elsewhere. The error tells of a sink pad that is taken
// for good.
func (g *graph) rivals(r *route) (cut []link, err error) {
	for _, o := range g.links {
		own := slices.ContainsFunc(r.links, func(l link) bool { return o.from == l.from && o.to == l.to })
		enters := slices.ContainsFunc(r.links, func(l link) bool { return o.to == l.to })
		leaves := slices.ContainsFunc(r.links, func(l link) bool { return o.from == l.from })
		switch {
		case own, !enters && !leaves, !o.enabled():
		case enters && o.immutable():
			return nil, fmt.Errorf("the link %v cannot be cut: %w", o, hw.ErrUnsupported)
		case !o.immutable():
			cut = append(cut, o)
		}
	}
	return cut, nil
}

// loose returns the links that should be cut for r to work. The kernel starts
// all that hangs together, and all of it must agree; most drivers say that all
// pads of an entity do. So what leads on from an entity of the route, or from
// where a branch ends, goes too, unless it runs: then the driver knows better.
func (g *graph) loose(r *route) (cut []link) {
	for _, o := range g.links {
		on := func(l link) bool { return o.from.of == l.from.of && o.from != l.from }
		behind := func(b link) bool { return o.from.of == b.to.of }
		if o.enabled() && !o.immutable() && (slices.ContainsFunc(r.links, on) || slices.ContainsFunc(r.branches, behind)) {
			cut = append(cut, o)
		}
	}
	return cut
}
