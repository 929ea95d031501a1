package fakevb2

import (
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// A Media is a media device: entities and the links between their pads. It
// follows drivers/media/mc: a start of one video node validates all that hangs
// together by links that are enabled, and locks it until it stops.
type Media struct {
	Entities []Entity
	Links    []Link
	// Version is that of the topology; Growing lets the first reading of tables
	// find more parts than were counted.
	Version uint64
	Growing bool

	flags []uint32 // of the links, now
}

// An Entity is a part of a media device. Its ID is its place in the list, from
// one.
type Entity struct {
	Name     string
	Function uint32
	// Node is its device node, a video node or a subdevice, or nil. Pads are
	// those of a subdevice; a video node has one.
	Node   *Node
	Source bool // of a video node: memory goes in there, so that its pad is a source
	Bare   int  // pads of an entity without a node, all sinks but the last
}

// A Link leads from a source pad to a sink pad, which are named by their
// entities' places in the list, from zero.
type Link struct {
	From, FromPad int
	To, ToPad     int
	Flags         uint32 // at first
}

// A Pad is a pad of a subdevice.
type Pad struct {
	Sink bool
	// Codes are those that it takes or gives, the first of them at first.
	Codes []uint32
	// Own says that a source pad of a subdevice with sinks chooses among its
	// codes; otherwise it gives what came in.
	Own bool
	// Of is the number of the sink pad whose format a source pad follows.
	Of int
	// Sizes and Intervals are listed of a sensor; the largest size is granted if
	// another is asked for.
	Sizes     []Size
	Intervals []uapi.Fract
	// Colorspace is what a source says.
	Colorspace uint32
	// Strict wants the colour space of the other end of the link too, as
	// rp1-cfe.
	Strict bool
}

// A BusPixel says that a video node writes Pixel of what comes to it as Code.
type BusPixel struct{ Code, Pixel uint32 }

// IDs of parts of a topology: the kernel gives all from one series.
const (
	padIDs       = 1000
	interfaceIDs = 100000
	linkIDs      = 200000
	padsEach     = 32
	major        = 81
)

func entityID(i int) uint32        { return uint32(i + 1) }
func padID(entity, pad int) uint32 { return padIDs + uint32(entity*padsEach+pad) }

// Minor returns the minor number of a node of m, which is its place in the list.
// Its major number is 81.
func (m *Media) Minor(n *Node) int {
	return slices.IndexFunc(m.Entities, func(e Entity) bool { return e.Node == n })
}

// flagsOf returns the pads of an entity as flags.
func (e *Entity) flagsOf() (list []uint32) {
	switch {
	case e.Node == nil:
		for range max(e.Bare-1, 0) {
			list = append(list, uapi.PadSink)
		}
		return append(list, uapi.PadSource)
	case !e.Node.Subdev && e.Source:
		return []uint32{uapi.PadSource}
	case !e.Node.Subdev:
		return []uint32{uapi.PadSink | uapi.PadMustConnect}
	}
	for _, p := range e.Node.Pads {
		list = append(list, uint32(uapi.PadSource))
		if p.Sink {
			list[len(list)-1] = uapi.PadSink
		}
	}
	return list
}

// fill copies list to where user space has room for n, counts it, and says
// whether it fitted.
func fill[T any](to uint64, n *uint32, list []T) bool {
	room := *n
	*n = uint32(len(list))
	if to == 0 {
		return true
	}
	number := uintptr(to)
	copy(unsafe.Slice(*(**T)(unsafe.Pointer(&number)), room), list) //nolint:gosec // user space vouches for the room
	return len(list) <= int(room)
}

// topology follows media_device_get_topology.
func (k *Kernel) topology(f *file, arg *uapi.MediaTopology) error {
	m := f.node.Media
	entities, interfaces, pads, links := m.tables()
	if m.Growing {
		if arg.Entities == 0 { // the last one is not there yet
			entities = entities[:len(entities)-1]
		} else {
			m.Growing = false
		}
	}
	arg.Version = m.Version
	fits := fill(arg.Entities, &arg.NumEntities, entities)
	fits = fill(arg.Interfaces, &arg.NumInterfaces, interfaces) && fits
	fits = fill(arg.Pads, &arg.NumPads, pads) && fits
	fits = fill(arg.Links, &arg.NumLinks, links) && fits
	if !fits {
		return unix.ENOSPC
	}
	return nil
}

func (m *Media) tables() (entities []uapi.MediaEntity, interfaces []uapi.MediaInterface, pads []uapi.MediaPad, links []uapi.MediaLink) {
	for i, e := range m.Entities {
		entities = append(entities, uapi.MediaEntity{ID: entityID(i), Function: e.Function})
		copy(entities[i].Name[:], e.Name)
		for j, flags := range e.flagsOf() {
			pads = append(pads, uapi.MediaPad{ID: padID(i, j), EntityID: entityID(i), Flags: flags, Index: uint32(j)})
		}
		if e.Node == nil {
			continue
		}
		n := uapi.MediaInterface{ID: interfaceIDs + uint32(i), Type: uapi.InterfaceVideo, Major: major, Minor: uint32(i)}
		if e.Node.Subdev {
			n.Type = uapi.InterfaceSubdev
		}
		interfaces = append(interfaces, n)
		links = append(links, uapi.MediaLink{
			ID: linkIDs + uint32(i), SourceID: n.ID, SinkID: entityID(i), Flags: uapi.LinkInterface | uapi.LinkEnabled | uapi.LinkImmutable,
		})
	}
	for i, l := range m.Links {
		links = append(links, uapi.MediaLink{
			ID: linkIDs + uint32(padsEach*len(m.Entities)+i), SourceID: padID(l.From, l.FromPad), SinkID: padID(l.To, l.ToPad), Flags: m.flags[i],
		})
	}
	return entities, interfaces, pads, links
}

// setupLink follows media_device_setup_link and __media_entity_setup_link.
func (k *Kernel) setupLink(f *file, arg *uapi.MediaLinkDesc) error {
	m := f.node.Media
	want := Link{From: int(arg.Source.Entity) - 1, FromPad: int(arg.Source.Index), To: int(arg.Sink.Entity) - 1, ToPad: int(arg.Sink.Index)}
	i := slices.IndexFunc(m.Links, func(l Link) bool {
		l.Flags = 0
		return l == want
	})
	switch {
	case i < 0, (m.flags[i]^arg.Flags)&^uapi.LinkEnabled != 0:
		return unix.EINVAL
	case m.flags[i] == arg.Flags:
		return nil
	case m.flags[i]&uapi.LinkImmutable != 0:
		return unix.EINVAL
	case k.running(m, want.From), k.running(m, want.To):
		return unix.EBUSY
	}
	m.flags[i] = arg.Flags
	return nil
}

// Enabled says, inside [Kernel.Do], whether a link is.
func (m *Media) Enabled(i int) bool { return m.flags[i]&uapi.LinkEnabled != 0 }

// Format returns what a camera's node is set to, inside [Kernel.Do].
func (n *Node) Format() *uapi.Format { return &n.shared.out.format }

// running says whether an entity belongs to a pipeline that runs.
func (k *Kernel) running(m *Media, entity int) bool {
	return slices.ContainsFunc(m.Entities, func(e Entity) bool {
		return e.Node != nil && e.Node.shared != nil && e.Node.shared.out.streaming && slices.Contains(e.Node.pipeline, entity)
	})
}

// media returns the media device that n belongs to, and n's place there.
func (k *Kernel) media(n *Node) (*Media, int) {
	for _, o := range k.nodes {
		if o.Media != nil {
			if i := o.Media.Minor(n); i >= 0 {
				return o.Media, i
			}
		}
	}
	return nil, -1
}

// startPipeline follows __media_pipeline_start: all that hangs together is found,
// must be free, and must agree at each of its links.
func (k *Kernel) startPipeline(n *Node) error {
	if n.Caps&uapi.CapIOMC == 0 {
		return nil
	}
	m, at := k.media(n)
	if m == nil {
		return unix.ENODEV
	}
	parts := m.connected(at)
	if len(parts) == 1 {
		return unix.ENOLINK
	}
	for _, e := range parts {
		if k.running(m, e) {
			return unix.EBUSY
		}
	}
	for i, l := range m.Links {
		if m.Enabled(i) && slices.Contains(parts, l.To) && !m.agree(l) {
			return unix.EPIPE
		}
	}
	n.pipeline = parts
	return nil
}

// connected returns the entities that hang together with at.
func (m *Media) connected(at int) []int {
	parts := []int{at}
	for i := 0; i < len(parts); i++ {
		for j, l := range m.Links {
			for _, end := range [][2]int{{l.From, l.To}, {l.To, l.From}} {
				if m.Enabled(j) && end[0] == parts[i] && !slices.Contains(parts, end[1]) {
					parts = append(parts, end[1])
				}
			}
		}
	}
	return parts
}

// agree compares both ends of a link.
func (m *Media) agree(l Link) bool {
	from, to := m.Entities[l.From].Node, m.Entities[l.To].Node
	if from == nil || to == nil || !from.Subdev {
		return true
	}
	sent := from.padFormat(from.pads, l.FromPad)
	if !to.Subdev {
		p := to.shared.out.format.Pix()
		return p.Width == sent.Width && p.Height == sent.Height && p.Colorspace == sent.Colorspace && slices.Contains(to.Writes, BusPixel{sent.Code, p.PixelFormat})
	}
	taken := to.padFormat(to.pads, l.ToPad)
	if to.Pads[l.ToPad].Strict && sent.Colorspace != taken.Colorspace {
		return false
	}
	return sent.Width == taken.Width && sent.Height == taken.Height && sent.Code == taken.Code
}

// fedBy says whether pictures come to a node behind a media controller: whether
// the receiver of its pipeline, if it has one, gets what it expects.
func (k *Kernel) fedBy(n *Node) bool {
	if n.Caps&uapi.CapIOMC == 0 {
		return true
	}
	m, _ := k.media(n)
	return m == nil || !slices.ContainsFunc(n.pipeline, func(i int) bool {
		e := m.Entities[i].Node
		return e != nil && e.Subdev && (!e.receives() || e.gone)
	})
}
