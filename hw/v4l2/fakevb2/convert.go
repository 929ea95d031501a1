package fakevb2

import (
	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// A Converter is what makes a node a converter: pictures go in on its output
// queue, and others come out on its capture queue, one for each.
type Converter struct {
	In, Out []Format
	Most    [2]int // largest picture; no limit if zero
	// SizeImage is how large buffers of coded pictures are unless more is asked
	// for; 64 KiB if zero.
	SizeImage int
	// Latency is how many pictures stay inside before the oldest comes out.
	Latency int
	// Convert writes a picture; if nil every byte becomes the sum of the first
	// sixteen of what went in.
	Convert func(in, out [][]byte)
	// Finds is the format that a decoder finds in the first picture after an
	// opening: it tells of a source change, and goes on once the capture queue
	// was started anew. Zero finds what was set.
	Finds uint32
	// Composes takes a selection of where in its memory a picture is written.
	Composes bool
	// Script spoils pictures: the n-th picture of an opening suffers Script[n].
	Script []ConversionFault
}

// A ConversionFault spoils one picture on its way through a converter.
type ConversionFault struct {
	Dropped bool // it comes back, nothing comes out
	Refused bool // it comes back with the error flag, nothing comes out
	Error   bool // what comes out has the error flag
	Empty   bool // what comes out has no bytes
	NoStamp bool // what comes out has no stamp
	Fatal   bool // vb2_queue_error on both queues instead
}

// selectionCompose is V4L2_SEL_TGT_COMPOSE.
const selectionCompose = 0x100

// A conversion is the work of one opening of a converter.
type conversion struct {
	inst     *instance
	pictures int
	sequence uint32
	found    bool // it has looked into a picture
	changing bool // waits for the capture queue to be started anew
}

func (c *Converter) sizeImage() int {
	if c.SizeImage == 0 {
		return 64 << 10
	}
	return c.SizeImage
}

// step does the next piece of work, if there is one that can be done.
func (c *conversion) step(k *Kernel) bool {
	in, out, conv := c.inst.in, c.inst.out, c.inst.node.Converter
	b := in.next()
	switch {
	case b == nil, c.changing:
		return false
	case conv.Finds != 0 && !c.found:
		c.find(k, conv.Finds)
		return true
	case !out.streaming, out.next() == nil, len(in.queued) <= conv.Latency:
		return false
	}
	var f ConversionFault
	if c.pictures < len(conv.Script) {
		f = conv.Script[c.pictures]
	}
	if f.Fatal {
		in.failed, out.failed = true, true
		return true
	}
	if !f.Dropped && !f.Refused {
		c.make(f, b, out.next())
		out.finish()
	}
	b.raw.Flags, b.raw.Sequence = uapi.BufFlagTimestampCopy, uint32(c.pictures)
	if f.Refused {
		b.raw.Flags |= uapi.BufFlagError
	}
	c.pictures++
	in.finish()
	return true
}

// make fills to with what becomes of from.
func (c *conversion) make(f ConversionFault, from, to *buffer) {
	convert := c.inst.node.Converter.Convert
	if convert == nil {
		convert = sum
	}
	convert(contents(from, true), contents(to, false))
	for i := range to.planes {
		to.planes[i].used = to.planes[i].size
		if f.Empty {
			to.planes[i].used = 0
		}
	}
	to.raw.Timestamp, to.raw.Sequence, to.raw.Field = from.raw.Timestamp, c.sequence, uapi.FieldNone
	to.raw.Flags = uapi.BufFlagTimestampCopy
	c.sequence++
	if f.NoStamp {
		to.raw.Timestamp = uapi.Timeval{}
	}
	if f.Error {
		to.raw.Flags |= uapi.BufFlagError
	}
}

func contents(b *buffer, used bool) [][]byte {
	var list [][]byte
	for i := range b.planes {
		p := &b.planes[i]
		if used {
			list = append(list, p.mem.data[min(p.start, p.used):p.used])
			continue
		}
		list = append(list, p.data())
	}
	return list
}

func sum(in, out [][]byte) {
	var v byte
	for _, b := range in[0][:min(16, len(in[0]))] {
		v += b
	}
	for _, mem := range out {
		Paint(mem, v)
	}
}

// find changes the format of what comes out and tells of it; an empty buffer
// with the mark of the last one ends the pictures of the former format.
func (c *conversion) find(k *Kernel, code uint32) {
	out := c.inst.out
	c.found = true
	k.tell(c.inst.node, uapi.Event{Type: uapi.EventSourceChange, Data: [16]uint32{uapi.EventSourceResolution}}, nil)
	size := out.format.Pix() // width and height stand at the same places in both views
	f, _ := out.offer(code)
	out.format = c.inst.grant(out, f, wish{width: int(size.Width), height: int(size.Height)})
	if !out.streaming {
		return
	}
	c.changing = true
	if b := out.next(); b != nil {
		b.raw.Flags = uapi.BufFlagLast
		for i := range b.planes {
			b.planes[i].used = 0
		}
		out.finish()
	}
}

// stopped follows a STREAMOFF of the capture queue.
func (c *conversion) stopped() { c.changing = false }

// compose serves a selection on what comes out.
func (c *conversion) compose(arg *uapi.Selection) error {
	if !c.inst.node.Converter.Composes || arg.Type != uapi.BufTypeVideoCapture && arg.Type != c.inst.out.typ {
		return unix.EINVAL
	}
	most := whole(&c.inst.out.format)
	arg.Rect = uapi.Rect{Width: min(arg.Rect.Width, most.Width), Height: min(arg.Rect.Height, most.Height)}
	return nil
}
