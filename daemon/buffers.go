package daemon

import (
	"fmt"

	"encoderd.example/daemon/config"
	"encoderd.example/hw"
)

// A reader is an encoder, as far as pictures on their way to it are concerned.
type reader struct {
	Name          string
	Imports       bool      // it reads memory that devices share
	Width, Height int       // of the coded picture
	Layout        hw.Layout // the nearest to the source's that it reads; zero if it reads no such pictures
	Scaler        string    // hardware before it that makes its pictures of those in Layout, or ""
}

// readerOf asks an encoder what it makes of pictures in src.
func readerOf(d hw.EncoderDriver, c hw.EncoderConfig, src hw.Layout) reader {
	r := reader{Name: d.Name, Imports: d.Importer != nil, Width: c.Width, Height: c.Height}
	if d.Importer == nil || src.Pixel == 0 {
		return r
	}
	if l, err := d.Importer.Layout(src); err == nil {
		r.Layout = l
	}
	if r.Layout.Pixel == src.Pixel && src.Width == c.Width && src.Height == c.Height {
		return r
	}
	if s, ok := d.Importer.(hw.ScalingImporter); ok {
		if l, name, err := s.Scaled(src, c.Width, c.Height); err == nil {
			r.Layout, r.Scaler = l, name
		}
	}
	return r
}

// onlyWay is the one way of sharing that the config allows, or "" for the best.
func onlyWay(buffers string) hw.Way {
	if buffers == config.Auto {
		return ""
	}
	return hw.Way(buffers)
}

// planBuffers says how pictures get from a source to an encoder, and why. only,
// if not "", is the way that the config asks for where memory could be shared.
// The pool of an [hw.Import] is the caller's to add. It is pure.
func planBuffers(src hw.BufferSource, r reader, only hw.Way) hw.BufferPlan {
	m := src.Mode
	whole := m.Width == r.Width && m.Height == r.Height || r.Scaler != ""
	switch {
	case m.Pixel == hw.H264:
		return hw.BufferPlan{Way: hw.Through, Reason: "the camera codes by itself"}
	case m.Pixel == hw.MJPEG:
		return hw.BufferPlan{Way: hw.Decode, Reason: fmt.Sprintf("the camera sends JPEG, which the processor decodes: %s", perSecond(m, m.Width, m.Height))}
	case !whole:
		return hw.BufferPlan{Way: hw.Convert, Reason: fmt.Sprintf("the processor scales %dx%d to %dx%d: %s", m.Width, m.Height, r.Width, r.Height, perSecond(m, r.Width, r.Height))}
	case !r.Imports:
		return hw.BufferPlan{Way: hw.Heap, Reason: r.Name + " is software: pictures are passed by reference"}
	case r.Layout.Pixel != m.Pixel || r.Layout.Width != m.Width || r.Layout.Height != m.Height:
		return hw.BufferPlan{Way: hw.Convert, Reason: fmt.Sprintf("%s takes no %s, which the processor converts: %s", r.Name, m.Pixel, perSecond(m, r.Width, r.Height))}
	default:
		return planSharing(src, r, only)
	}
}

// asked begins the reason of a way that the config asks for.
const asked = "asked for by the config"

// planSharing is for pictures that the encoder takes as they are.
func planSharing(src hw.BufferSource, r reader, only hw.Way) hw.BufferPlan {
	cost := perSecond(src.Mode, src.Mode.Width, src.Mode.Height)
	export := src.Exports && r.Layout.Reads(src.Layout)
	imports := src.Imports && r.Scaler == ""
	if r.Scaler != "" {
		r.Name = r.Scaler + ", which scales for " + r.Name + ","
	}
	because := ""
	if only != "" {
		because = asked + "; "
	}
	switch {
	case only == hw.Copy:
		return hw.BufferPlan{Way: hw.Copy, Reason: asked + ": " + cost}
	case export && only != hw.Import:
		return hw.BufferPlan{Way: hw.Export, Reason: because + r.Name + " reads the camera's memory"}
	case imports && only != hw.Export:
		return hw.BufferPlan{Way: hw.Import, Reason: because + "the camera writes into the memory of " + r.Name}
	case only != "":
		because = fmt.Sprintf("%s is %s, but ", only, asked)
	}
	return hw.BufferPlan{Way: hw.Copy, Reason: because + obstacle(src, r, only) + ": " + cost}
}

// obstacle says which side cannot share its memory.
func obstacle(src hw.BufferSource, r reader, only hw.Way) string {
	switch {
	case only == hw.Import && !src.Imports:
		return "the camera does not write into memory of others"
	case only == hw.Import:
		return r.Name + " has no memory that a camera writes into"
	case src.Exports:
		return fmt.Sprintf("the camera gives %s, %s reads %s", src.Layout, r.Name, r.Layout)
	case src.Private != "":
		return fmt.Sprintf("%s: %s cannot read it", src.Private, r.Name)
	default:
		return "the camera shares no memory with " + r.Name
	}
}

// perSecond says how many bytes the processor writes for pictures of m at
// another size.
func perSecond(m hw.Mode, width, height int) string {
	if m.Pixel == hw.MJPEG || m.Pixel == 0 {
		m.Pixel = hw.I420
	}
	m.Width, m.Height = width, height
	_, size, err := m.Layout()
	if err != nil {
		size = 2 * width * height // a packed format that only hardware knows
	}
	return fmt.Sprintf("%.1f MB a second", float64(size)*m.FPS.Float()/1e6)
}
