// Package v4l2 captures pictures from video nodes of Linux by raw ioctls.
//
// It has two floors. Below are [Sys], [Device] and [Queue]: the kernel's calls,
// an open node with waits that can be ended, and a queue of buffers; encoders
// build upon the same. Above are [Finder] and [Camera], which speak package hw.
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
	"time"

	"golang.org/x/sys/unix"

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
	// EDID is what HDMI inputs tell sources; that of NewEDID with no options if
	// nil.
	EDID []byte
}

// Cameras returns the capture nodes that are there now and deliver pictures
// that this box can use, in the order of their numbers. A node with several
// inputs comes first as it is, set to the input that is selected, and then once
// for each input, with an ID that ends in "#" and its number. Nodes that cannot
// be asked, for instance because udev has not yet made their links and set their
// permissions, make an error beside the list of the others: list again after a
// moment. No node is kept open, and none that somebody else uses is disturbed.
func (f Finder) Cameras() ([]hw.Camera, error) {
	nodes, err := f.nodes()
	if err != nil {
		return nil, err
	}
	var found []*Camera
	var errs []error
	for _, n := range nodes {
		inputs, err := f.cameras(n)
		if err != nil && !errors.Is(err, hw.ErrGone) { // unplugged since
			errs = append(errs, err)
		}
		found = append(found, distinct(found, inputs, n)...)
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
	n := node{name: name, link: links[name], ready: true}
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

// cameras returns the cameras behind a node, or none if it captures nothing.
func (f Finder) cameras(n node) (_ []*Camera, err error) {
	if !n.ready {
		return nil, fmt.Errorf("list /dev/%s: udev has not finished with it: %w", n.name, errNotReady)
	}
	d, err := OpenDevice(f.Sys, "/dev/"+n.name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	info, err := d.Info()
	if err != nil {
		return nil, err
	}
	typ, ok := captureType(info.Caps)
	if !ok {
		return nil, nil
	}
	if usable, err := listFormats(d, typ); err != nil || len(usable) == 0 {
		return nil, err
	}
	c := &Camera{
		sys: f.Sys, log: f.Log, now: f.Clock, name: info.Card, path: d.Path(), parent: n.usb, typ: typ, input: -1, edid: f.EDID,
		driver: info.Driver, traits: traitOf(info.Driver, info.BusInfo),
	}
	c.id = "v4l2:" + cmp.Or(n.link, busName(info.BusInfo, n.index))
	if c.now == nil {
		c.now = stream.Monotonic
	}
	if c.edid == nil {
		c.edid = NewEDID(EDIDOptions{})
	}
	if info.Caps&capMediaController != 0 {
		c.subdev, err = f.subdevice()
		return []*Camera{c}, err
	}
	return inputs(d, c)
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

// capMediaController is the capability of nodes whose inputs are set up at
// subdevices (V4L2_CAP_IO_MC).
const capMediaController = 0x20000000

// subdevice returns the subdevice that sees an HDMI cable, "" if there is none.
// With several it cannot tell which belongs to the node.
func (f Finder) subdevice() (string, error) {
	entries, err := fs.ReadDir(f.Root, classDir)
	if err != nil {
		return "", fmt.Errorf("list subdevices: %w", err)
	}
	var seen []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "v4l-subdev") {
			continue
		}
		ok, err := f.hasTimings("/dev/" + e.Name())
		if err != nil && !errors.Is(err, hw.ErrGone) {
			return "", err
		}
		if ok {
			seen = append(seen, "/dev/"+e.Name())
		}
	}
	if len(seen) > 1 {
		return "", fmt.Errorf("which of %s sees the cable of a camera is not known: %w", strings.Join(seen, ", "), hw.ErrUnsupported)
	}
	return strings.Join(seen, ""), nil
}

// hasTimings says whether a subdevice is an HDMI receiver.
func (f Finder) hasTimings(path string) (_ bool, err error) {
	d, err := OpenDevice(f.Sys, path)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	_, err = d.Timings()
	if errors.Is(err, unix.ENODATA) { // no signal yet
		return true, nil
	}
	return entry(err)
}

// captureType says how a node with these capabilities captures, if it does:
// codecs and metadata nodes do not.
func captureType(caps uint32) (typ uint32, ok bool) {
	switch {
	case caps&uapi.CapStreaming == 0, caps&(uapi.CapVideoM2M|uapi.CapVideoM2MMplane|uapi.CapMetaCapture) != 0:
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
