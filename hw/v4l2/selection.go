package v4l2

import "encoderd.example/hw/v4l2/uapi"

// A Rect is a part of a picture in pixels.
type Rect struct{ Left, Top, Width, Height int }

// Crop returns which part of the pictures of a queue counts. typ is the buffer
// type of the queue. The error wraps [unix.ENOTTY] or [unix.EINVAL] if the
// device cannot crop.
func (d *Device) Crop(typ uint32) (Rect, error) {
	s := uapi.Selection{Type: singlePlanar(typ), Target: uapi.SelectionCrop}
	if err := Ioctl(d, "ask for the crop of", uapi.GetSelection, &s); err != nil {
		return Rect{}, err
	}
	return rectOf(s.Rect), nil
}

// SetCrop chooses the part of the pictures that counts and returns what the
// driver made of it. Setting the format resets it.
func (d *Device) SetCrop(typ uint32, r Rect) (Rect, error) {
	s := uapi.Selection{Type: singlePlanar(typ), Target: uapi.SelectionCrop, Rect: uapi.Rect{
		Left: int32(r.Left), Top: int32(r.Top), Width: uint32(r.Width), Height: uint32(r.Height),
	}}
	if err := Ioctl(d, "set the crop of", uapi.SetSelection, &s); err != nil {
		return Rect{}, err
	}
	return rectOf(s.Rect), nil
}

func rectOf(r uapi.Rect) Rect {
	return Rect{int(r.Left), int(r.Top), int(r.Width), int(r.Height)}
}

// singlePlanar returns the type that the selection calls want: some drivers
// compare with that one only, and the core turns it into theirs.
func singlePlanar(typ uint32) uint32 {
	switch typ {
	case uapi.BufTypeVideoCaptureMplane:
		return uapi.BufTypeVideoCapture
	case uapi.BufTypeVideoOutputMplane:
		return uapi.BufTypeVideoOutput
	default:
		return typ
	}
}
