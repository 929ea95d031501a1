package yuv

import "encoderd.example/hw"

// A part is one component inside the lines of a plane: byte offset, distance
// from sample to sample, and how many luma samples share one across and down.
type part struct {
	name           byte // 'y', 'u', 'v'; 'r', 'g', 'b' and 'w' only tell sizes
	offset, step   int
	across, downBy int
}

// A planeLayout is one plane of a format: the components in its lines.
type planeLayout []part

// layouts describes the formats that can be read (Linux user-space API, part
// I, section 2).
var layouts = map[hw.PixelFormat][]planeLayout{
	hw.NV12: {{{'y', 0, 1, 1, 1}}, {{'u', 0, 2, 2, 2}, {'v', 1, 2, 2, 2}}},
	hw.I420: {{{'y', 0, 1, 1, 1}}, {{'u', 0, 1, 2, 2}}, {{'v', 0, 1, 2, 2}}},
	hw.I422: {{{'y', 0, 1, 1, 1}}, {{'u', 0, 1, 2, 1}}, {{'v', 0, 1, 2, 1}}},
	hw.YUYV: {{{'y', 0, 2, 1, 1}, {'u', 1, 4, 2, 1}, {'v', 3, 4, 2, 1}}},
	hw.UYVY: {{{'y', 1, 2, 1, 1}, {'u', 0, 4, 2, 1}, {'v', 2, 4, 2, 1}}},
	hw.NV16: {{{'y', 0, 1, 1, 1}}, {{'u', 0, 2, 2, 1}, {'v', 1, 2, 2, 1}}},
	hw.NV24: {{{'y', 0, 1, 1, 1}}, {{'u', 0, 2, 1, 1}, {'v', 1, 2, 1, 1}}},

	hw.RGB24:  {{{'r', 0, 3, 1, 1}, {'g', 1, 3, 1, 1}, {'b', 2, 3, 1, 1}}},
	hw.BGR24:  {{{'b', 0, 3, 1, 1}, {'g', 1, 3, 1, 1}, {'r', 2, 3, 1, 1}}},
	hw.RGB565: {{{'w', 0, 2, 1, 1}}}, // all three in a word
}

// bytes returns how long a line of a picture of width is.
func (l planeLayout) bytes(width int) int {
	last := l[len(l)-1]
	if last.step == 4 { // packed: whole pairs of pixels
		return (width + 1) / 2 * 4
	}
	return (width + last.across - 1) / last.across * last.step
}

// lines returns how many lines the plane of a picture of height has.
func (l planeLayout) lines(height int) int {
	return (height + l[0].downBy - 1) / l[0].downBy
}

// A job makes one plane of the result from one or two planes of the source.
type job struct {
	to   int
	lend bool // the source plane is the result
	at   rect // in samples of the plane
	range256
	parts []source
}

// A source is where one component, or two that lie side by side, come from.
type source struct {
	from           int
	bytes          int // of a source line
	down           *filter
	srcOff, dstOff int
	across         spread
}

// plan fills c.jobs for a picture placed at r.
func (c *Converter) plan(r rect) {
	in, out := layouts[c.src.Pixel], layouts[c.dst.Pixel]
	for to, l := range out {
		j := job{
			to:       to,
			at:       rect{r.x / l[0].across, r.y / l[0].downBy, r.w / l[0].across, r.h / l[0].downBy},
			range256: rangeOf(c.src.FullRange, c.dst.FullRange, l[0].name == 'y'),
		}
		whole := r == rect{0, 0, c.src.Width, c.src.Height} && r == rect{0, 0, c.dst.Width, c.dst.Height}
		j.lend = whole && j.none() && to < len(in) && same(in[to], l)
		if !j.lend {
			j.parts = c.sources(in, l, r)
			c.copied += j.at.h * l.bytes(r.w)
		}
		c.jobs = append(c.jobs, j)
	}
}

func same(a, b planeLayout) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// sources finds where the components of a plane come from. A CbCr pair that
// keeps its width is moved as one.
func (c *Converter) sources(in []planeLayout, l planeLayout, r rect) []source {
	var sources []source
	for _, want := range l {
		for from, il := range in {
			for _, have := range il {
				if have.name == want.name {
					sources = append(sources, c.source(from, il, have, want, r))
				}
			}
		}
	}
	if len(sources) == 2 && sources[0].from == sources[1].from && sources[0].across.plain() {
		pair := sources[0]
		pair.across.m *= 2
		pair.across.srcStep /= 2
		pair.across.dstStep = 1
		return []source{pair}
	}
	return sources
}

func (c *Converter) source(from int, il planeLayout, have, want part, r rect) source {
	s := source{from: from, bytes: il.bytes(c.src.Width), srcOff: have.offset, dstOff: want.offset}
	n := (c.src.Width + have.across - 1) / have.across
	s.across = newSpread(n, r.w/want.across, have.step, want.step, siting(have.across, want.across, c.src.Width, r.w))
	s.down = newFilter(il.lines(c.src.Height), r.h/want.downBy, 0)
	if len(c.line) < s.bytes {
		c.line = make([]byte, s.bytes)
	}
	return s
}

// siting returns by how many source samples the centre of a result sample
// moves because chroma stands at the left luma sample, not between two.
func siting(have, want, sw, dw int) float64 {
	scale := float64(sw) / float64(dw)
	return (float64(have-1) - float64(want-1)*scale) / float64(2*have)
}

// run makes one plane.
func (c *Converter) run(j *job, f *hw.Frame) {
	if j.lend {
		c.planes[j.to] = f.Planes[j.to]
		return
	}
	p := c.planes[j.to]
	step := 1
	if c.dst.Pixel == hw.NV12 && j.to == 1 {
		step = 2
	}
	for y := range j.at.h {
		start := (j.at.y+y)*p.Stride + j.at.x*step
		row := p.Data[start : start+j.at.w*step]
		for i := range j.parts {
			s := &j.parts[i]
			line := s.down.blend(c.line[:s.bytes], f.Planes[s.from], y)
			s.across.spread(row[s.dstOff:], line[s.srcOff:])
		}
		j.adjust(row)
	}
}
