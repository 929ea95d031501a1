// Package v4l2 captures pictures from video nodes of Linux by raw ioctls.
//
// It has two floors. Below are [Sys], [Device] and [Queue]: the kernel's calls,
// an open node with waits that can be ended, and a queue of buffers; encoders
// build upon the same. Above are [Finder] and [Camera], which speak package hw.
// Behind a media controller a camera also leads pictures from their source to
// its node: graph finds the way, pipeline sets links and pads.
//
// Memory: a frame's planes point into buffers of the driver, mapped here and
// exported where an encoder reads them, or into a pool of the encoder's. The
// last Release of a frame gives its buffer back to the driver, from whichever
// goroutine; after the stream's Close it unmaps it and closes its dma-bufs. A
// pool is never closed here.
package v4l2

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
)

// Where the kernel and udev tell what is there.
const (
	classDir = "sys/class/video4linux"
	linkDir  = "dev/v4l/by-path"
	udevRuns = "run/udev/control"
	udevData = "run/udev/data" // udev writes an entry once it has done with a device
)

// errNotReady says that a node has just come: its name is not yet final.
var errNotReady = errors.New("try again in a second")

// A Finder lists cameras.
type Finder struct {
	// Root is the file system with /sys and /dev, os.DirFS("/") on a box.
	Root fs.FS
	Log  *slog.Logger
	// Sys is how devices are reached, Kernel{} on a box.
	Sys Sys
	// Clock reads CLOCK_MONOTONIC; stream.Monotonic if nil.
	Clock func() time.Duration
	// EDID is what HDMI inputs tell sources; if nil, that of NewEDID with Takes.
	EDID []byte
	// Takes says what pictures the box can take, where EDID does not.
	Takes EDIDOptions
	// Led says whether somebody else brings the pictures of a sensor that sends
	// raw ones only; then it makes no error. It is called from Cameras, with the
	// sensor's name. If nil nobody does.
	Led func(sensor string) bool
	// Known is what nodes have answered before; nil asks all of them each time.
	Known *Known
}

// Cameras returns the capture nodes that are there now and deliver pictures
// that this box can use, in the order of their numbers. A node with several
// inputs comes first as it is, set to the input that is selected, and then once
// for each input, with an ID that ends in "#" and its number. Behind a media
// controller there is one camera for each source of pictures, at the video node
// that it is led to most straightly; where sources share a node, the ID ends in
// "#" and the name of the source. Sensors that send raw pictures make an error
// unless they are Led: they need a device program of hw/external. Nodes that cannot
// be asked, for instance because udev has not yet made their links and set their
// permissions, make an error beside the list of the others: list again after a
// moment. No node is kept open, and none that somebody else uses is disturbed.
// With Known, nodes are asked once for as long as they are plugged in, apart from
// those behind a media controller: a device that hangs hides no other then.
func (f Finder) Cameras() ([]hw.Camera, error) {
	nodes, err := f.nodes()
	if err != nil {
		return nil, err
	}
	graphs, unread := f.graphs()
	var found []*Camera
	var errs []error
	var routed []*Camera // nodes whose cameras are the graphs' to find
	for _, n := range nodes {
		c, inputs, err := f.cameras(n, graphs)
		if err != nil && !errors.Is(err, hw.ErrGone) { // unplugged since
			errs = append(errs, err)
		}
		if c != nil {
			routed = append(routed, distinct(slices.Concat(found, routed), []*Camera{c}, n)...)
		}
		found = append(found, distinct(found, inputs, n)...)
	}
	if len(routed) > 0 {
		more, err := f.routed(graphs, routed)
		found = append(found, more...)
		errs = append(errs, unread, err)
	}
	var cameras []hw.Camera
	for _, c := range found {
		cameras = append(cameras, c)
	}
	return cameras, errors.Join(errs...)
}

// distinct gives the cameras of a node names of their own if an earlier node
// has taken theirs: two drivers may claim the same place on the bus.
func distinct(taken, cameras []*Camera, n node) []*Camera {
	if len(cameras) == 0 {
		return nil
	}
	base := cameras[0].id
	for _, id := range []string{base, base + "@" + n.title, base + "@" + n.name} { // numbers are the last resort: they change
		if strings.HasSuffix(id, "@") || slices.ContainsFunc(taken, func(c *Camera) bool { return c.id == id }) {
			continue
		}
		for _, c := range cameras {
			c.id = id + strings.TrimPrefix(c.id, base)
		}
		break
	}
	return cameras
}

// A node is what sysfs and udev say of a video node.
type node struct {
	name  string // "video0"
	since uint64 // its Instance
	title string // what the driver calls it: "vivid-000-vid-cap"
	place string // the parent device and the node's number below it
	usb   string // the folder of the USB device that it is a part of, or ""
	index string // that number
	link  string // below /dev/v4l/by-path, or ""
	ready bool   // udev has finished with it, or there is no udev
}

// Nodes lists the names of the video nodes below sys/class/video4linux of root:
// video2 before video10, and none if no video driver is loaded.
func Nodes(root fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(root, classDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list video nodes: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "video") { // not subdevices, radios and teletext
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	return names, nil
}

// Instance returns a number that a node has until its driver or device goes; the
// next one of the same name has another. It is zero if root cannot tell.
//
// Sysfs gives each file that it makes an inode number of its own.
func Instance(root fs.FS, name string) uint64 {
	info, err := fs.Stat(root, path.Join(classDir, name, "dev"))
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// nodes returns the video nodes, video2 before video10.
func (f Finder) nodes() ([]node, error) {
	names, err := Nodes(f.Root)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	links, err := f.links()
	if err != nil {
		return nil, err
	}
	var nodes []node
	places := map[string]int{}
	for _, name := range names {
		n := f.node(name, links)
		places[n.place]++
		nodes = append(nodes, n)
	}
	for i := range nodes {
		if places[nodes[i].place] > 1 {
			nodes[i].link = "" // udev gave the same link to both: it points to either
		}
	}
	return nodes, nil
}

func (f Finder) node(name string, links map[string]string) node {
	n := node{name: name, since: Instance(f.Root, name), link: links[name], ready: true}
	dir := path.Join(classDir, name)
	if device, err := fs.ReadLink(f.Root, dir); err == nil {
		n.place = path.Dir(path.Dir(device)) // …/vivid.0/video4linux/video0
		n.usb = usbDevice(n.place)
	}
	n.title = f.attribute(dir, "name")
	n.index = f.attribute(dir, "index")
	n.place += ":" + n.index
	if _, err := fs.Stat(f.Root, udevRuns); err == nil {
		_, err := fs.Stat(f.Root, path.Join(udevData, "c"+f.attribute(dir, "dev")))
		n.ready = err == nil
	}
	return n
}

// usbInterface is the folder of an interface of a USB device: port path,
// configuration and interface.
var usbInterface = regexp.MustCompile(`^\d+-[\d.]+:\d+\.\d+$`)

// usbDevice returns the folder of the USB device whose interface lies at place,
// seen from the class folder; "" of anything else.
func usbDevice(place string) string {
	if !usbInterface.MatchString(path.Base(place)) {
		return ""
	}
	return path.Dir(path.Join("/", classDir, place))
}

// attribute reads a line of sysfs; "" if the node has just gone.
func (f Finder) attribute(dir, name string) string {
	line, err := fs.ReadFile(f.Root, path.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(line))
}

// links returns the stable path of each node that udev has given one.
func (f Finder) links() (map[string]string, error) {
	entries, err := fs.ReadDir(f.Root, linkDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list links of video nodes: %w", err)
	}
	links := map[string]string{}
	for _, e := range entries {
		name := path.Join(linkDir, e.Name())
		target, err := fs.ReadLink(f.Root, name)
		if err != nil {
			continue // udev is just replacing it
		}
		node := path.Base(target)
		if _, taken := links[node]; !taken { // udev may make two: by name the first
			links[node] = "/" + name
		}
	}
	return links, nil
}

// cameras returns the cameras behind a node, or none if it captures nothing. If
// the node's inputs are links of a media device, it returns what its cameras
// have in common instead.
func (f Finder) cameras(n node, graphs []*graph) (routed *Camera, _ []*Camera, err error) {
	if !n.ready {
		return nil, nil, fmt.Errorf("list /dev/%s: udev has not finished with it: %w", n.name, errNotReady)
	}
	if a, ok := f.Known.of(n); ok {
		if processes(graphs, "/dev/"+n.name) {
			return nil, nil, nil
		}
		return a.routed, a.inputs, nil
	}
	d, err := OpenDevice(f.Sys, "/dev/"+n.name)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	info, err := d.Info()
	if err != nil {
		return nil, nil, err
	}
	typ, ok := captureType(info.Caps)
	switch {
	case !ok:
		f.Known.keep(answer{node: n})
		return nil, nil, nil
	case processes(graphs, d.Path()):
		return nil, nil, nil
	}
	usable, err := listFormats(d, typ, 0)
	if err != nil {
		return nil, nil, err
	}
	c := f.camera(n, d, info, typ)
	switch {
	case info.Caps&uapi.CapIOMC != 0: // also without a format of ours: the reason is told
		f.Known.keep(answer{node: n, routed: c})
		return c, nil, nil
	case len(usable) == 0:
		return nil, nil, nil
	}
	c.edid = f.edid(usable)
	list, err := inputs(d, c)
	if err == nil {
		f.Known.keep(answer{node: n, inputs: list})
	}
	return nil, list, err
}

// processes says whether pictures come to a node from memory only, by way of a
// processor: it is no camera.
func processes(graphs []*graph, path string) bool {
	for _, g := range graphs {
		if e := g.node(path); e != nil {
			routes, fed := g.routes(e)
			return fed && len(routes) == 0
		}
	}
	return false
}

// camera returns what is known of a capture node by itself.
func (f Finder) camera(n node, d *Device, info Info, typ uint32) *Camera {
	c := &Camera{
		sys: f.Sys, log: f.Log, now: f.Clock, name: info.Card, path: d.Path(), since: n.since, parent: n.usb, typ: typ, input: -1,
		driver: info.Driver, traits: traitOf(info.Driver, info.BusInfo), names: f.numbered,
	}
	c.id = "v4l2:" + cmp.Or(n.link, busName(info.BusInfo, n.index))
	if c.now == nil {
		c.now = stream.Monotonic
	}
	return c
}

// edid returns what an input whose pictures come in one of these formats tells
// sources.
func (f Finder) edid(formats []Format) []byte {
	if f.EDID != nil {
		return f.EDID
	}
	o := f.Takes
	o.RGBOnly = len(formats) > 0 && !slices.ContainsFunc(formats, func(f Format) bool { return f.colour() != rgb })
	return NewEDID(o)
}

// inputs returns c and, if its node has several inputs, c at each of them.
func inputs(d *Device, c *Camera) ([]*Camera, error) {
	list, err := d.Inputs()
	if err != nil || len(list) < 2 {
		return []*Camera{c}, err
	}
	cameras := []*Camera{c}
	for _, in := range list {
		at := c.Input(in.Index)
		at.name = fmt.Sprintf("%s, %s", c.name, in.Name)
		cameras = append(cameras, at)
	}
	return cameras, nil
}

// captureType says how a node with these capabilities captures, if it does:
// codecs and metadata nodes do not.
func captureType(caps uint32) (typ uint32, ok bool) {
	switch {
	case caps&uapi.CapStreaming == 0, caps&(uapi.CapVideoM2M|uapi.CapVideoM2MMplane) != 0:
		return 0, false
	case caps&uapi.CapVideoCapture != 0:
		return uapi.BufTypeVideoCapture, true
	case caps&uapi.CapVideoCaptureMplane != 0:
		return uapi.BufTypeVideoCaptureMplane, true
	default:
		return 0, false
	}
}

// busName names a node by its place on the bus. A device with several video
// nodes numbers them.
func busName(bus, index string) string {
	if index == "" || index == "0" {
		return bus
	}
	return bus + ":" + index
}
