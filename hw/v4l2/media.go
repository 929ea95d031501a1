package v4l2

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// mediaDir lists the media devices.
const mediaDir = "sys/bus/media/devices"

// A topology is the tables that a media device tells. It must be on the heap,
// as head points to them.
type topology struct {
	head       uapi.MediaTopology
	entities   []uapi.MediaEntity
	interfaces []uapi.MediaInterface
	pads       []uapi.MediaPad
	links      []uapi.MediaLink
}

// maxParts bounds each table of a topology.
const maxParts = 1 << 12

// room makes tables for what head counts.
func (t *topology) room() error {
	h := &t.head
	if max(h.NumEntities, h.NumInterfaces, h.NumPads, h.NumLinks) > maxParts {
		return fmt.Errorf("it tells %d entities, %d interfaces, %d pads and %d links: %w", h.NumEntities, h.NumInterfaces, h.NumPads, h.NumLinks, hw.ErrUnsupported)
	}
	t.entities, h.Entities = table[uapi.MediaEntity](h.NumEntities)
	t.interfaces, h.Interfaces = table[uapi.MediaInterface](h.NumInterfaces)
	t.pads, h.Pads = table[uapi.MediaPad](h.NumPads)
	t.links, h.Links = table[uapi.MediaLink](h.NumLinks)
	return nil
}

// table makes n elements, and the number by which the kernel finds them.
func table[T any](n uint32) ([]T, uint64) {
	if n == 0 {
		return nil, 0
	}
	list := make([]T, n)
	return list, uint64(uintptr(unsafe.Pointer(&list[0]))) //nolint:gosec // the kernel takes it as a number; the topology holds what it points to
}

// Topology asks a media device for its tables. It asks again if they grew
// meanwhile.
func (d *Device) topology() (*topology, error) {
	t := &topology{}
	const patience = 8
	for range patience {
		t.head = uapi.MediaTopology{}
		if err := Ioctl(d, "count the parts of", uapi.MediaGetTopology, &t.head); err != nil {
			return nil, err
		}
		if err := t.room(); err != nil {
			return nil, fmt.Errorf("read the topology of %s: %w", d.path, err)
		}
		before := t.head.Version
		err := Ioctl(d, "read the topology of", uapi.MediaGetTopology, &t.head)
		switch {
		case errors.Is(err, unix.ENOSPC):
			continue
		case err != nil:
			return nil, err
		case t.head.Version == before:
			return t, nil
		}
	}
	return nil, fmt.Errorf("read the topology of %s: it does not come to rest: %w", d.path, hw.ErrBusy)
}

// setLink cuts a link or puts it in.
func (d *Device) setLink(l link, enable bool) error {
	desc := &uapi.MediaLinkDesc{
		Source: uapi.MediaPadDesc{Entity: l.from.of.id, Index: uint16(l.from.index), Flags: uapi.PadSource},
		Sink:   uapi.MediaPadDesc{Entity: l.to.of.id, Index: uint16(l.to.index), Flags: uapi.PadSink},
		Flags:  l.flags &^ uapi.LinkEnabled,
	}
	what := "cut"
	if enable {
		desc.Flags |= uapi.LinkEnabled
		what = "put in"
	}
	return Ioctl(d, fmt.Sprintf("%s the link %v of", what, l), uapi.MediaSetupLink, desc)
}

// A nodeNames finds the paths of device nodes by their numbers.
type nodeNames func(major, minor uint32) string

// numbered returns the path of the character device with these numbers, "" if
// it has just gone.
func (f Finder) numbered(major, minor uint32) string {
	target, err := fs.ReadLink(f.Root, fmt.Sprintf("sys/dev/char/%d:%d", major, minor))
	if err != nil {
		return ""
	}
	return "/dev/" + path.Base(target)
}

// graphs returns the graphs of all media devices, media2 before media10. One
// that cannot be read makes an error beside the others.
func (f Finder) graphs() ([]*graph, error) {
	entries, err := fs.ReadDir(f.Root, mediaDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list media devices: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
	var list []*graph
	var errs []error
	for _, name := range names {
		g, err := readGraph(f.Sys, "/dev/"+name, f.numbered)
		switch {
		case err == nil:
			list = append(list, g)
		case !errors.Is(err, hw.ErrGone): // unplugged since
			errs = append(errs, err)
		}
	}
	return list, errors.Join(errs...)
}

// readGraph asks the media device at path.
func readGraph(sys Sys, path string, names nodeNames) (g *graph, err error) {
	d, err := OpenDevice(sys, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	t, err := d.topology()
	if err != nil {
		return nil, err
	}
	return newGraph(path, t, names), nil
}
