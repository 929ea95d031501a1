package v4l2

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// routed returns a camera for each source of the graphs that leads to one of
// the nodes with a format that this box can use. What it cannot use makes an
// error beside the others.
func (f Finder) routed(graphs []*graph, nodes []*Camera) (list []*Camera, _ error) {
	var errs []error
	alone := slices.Clone(nodes)
	for _, g := range graphs {
		var ends []*entity
		for _, c := range nodes {
			if e := g.node(c.path); e != nil {
				ends = append(ends, e)
				alone = slices.DeleteFunc(alone, func(o *Camera) bool { return o == c })
			}
		}
		for _, routes := range g.sources(ends) {
			c, err := f.source(routes, nodes)
			switch {
			case err == nil, errors.Is(err, hw.ErrGone): // unplugged since
			case errors.Is(err, errRaw) && f.Led != nil && f.Led(routes[0].source().of.name):
			default:
				errs = append(errs, err)
			}
			if c != nil {
				list = append(list, c)
			}
		}
	}
	for _, c := range alone {
		errs = append(errs, fmt.Errorf("list %s: no media device that can be read knows it: %w", c.path, hw.ErrUnsupported))
	}
	return named(list), errors.Join(errs...)
}

// source returns the camera of a source, by the first of its routes that
// pictures pass.
func (f Finder) source(routes []route, nodes []*Camera) (_ *Camera, err error) {
	var first error
	for _, r := range routes {
		i := slices.IndexFunc(nodes, func(c *Camera) bool { return c.path == r.node().path })
		c := *nodes[i]
		c.route = &r
		c.name = fmt.Sprintf("%s, %s", c.name, r.source().of.name)
		err := f.look(&c)
		switch {
		case err == nil:
			return &c, nil
		case !errors.Is(err, hw.ErrUnsupported):
			return nil, err
		case first == nil, errors.Is(err, errRaw):
			first = err
		}
	}
	return nil, first
}

// look tries the route of c, without disturbing anybody, and finds out whether
// the source sees a cable.
func (f Finder) look(c *Camera) (err error) {
	d, err := OpenDevice(c.sys, c.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	p, err := c.pipeline(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	usable, err := p.formats()
	if err != nil && !errors.Is(err, hw.ErrBusy) { // whoever has it, perhaps we, has found a way
		return err
	}
	timed, err := p.source().hasTimings()
	if timed {
		c.subdev, c.port, c.edid = p.source().Path(), plug(p.route.source()), f.edid(usable)
	}
	return err
}

// formats lists the formats that the video node writes of what the source can
// send; the error wraps [hw.ErrUnsupported] if there is none.
func (p *pipeline) formats() (usable []Format, _ error) {
	ways, err := p.ways()
	if err != nil {
		return nil, err
	}
	for _, w := range ways {
		formats, err := w.formats()
		if err != nil {
			return nil, err
		}
		usable = append(usable, formats...)
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("use %q by way of %v: %w", p.route.source().of.name, p.route, errNoWay)
	}
	return usable, nil
}

// hasTimings says whether a subdevice is a receiver of a digital signal.
func (d *Device) hasTimings() (bool, error) {
	_, err := d.Timings()
	if errors.Is(err, unix.ENODATA) { // no signal yet
		return true, nil
	}
	return entry(err)
}

// plug returns the number of the pad that a cable is at, seen from the pad where
// its pictures leave: the first that takes something, if there is one.
func plug(leaves *pad) uint32 {
	i := slices.IndexFunc(leaves.of.pads, (*pad).sink)
	if i < 0 {
		return leaves.index
	}
	return leaves.of.pads[i].index
}

// unsafeLetters are those that an ID shall not have.
var unsafeLetters = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// named adds the source to the IDs of cameras that share a node.
func named(cameras []*Camera) []*Camera {
	count := map[string]int{}
	for _, c := range cameras {
		count[c.id]++
	}
	for _, c := range cameras {
		if count[c.id] > 1 {
			c.id += "#" + unsafeLetters.ReplaceAllString(c.route.source().of.name, "-")
		}
	}
	return cameras
}
