package v4l2

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"encoderd.example/hw"
)

// Controls of HDMI bridges, each in the range of its driver: only the names
// are common.
const (
	controlRate    = "Audio sampling rate"
	controlPresent = "Audio present"
)

// SoundRate implements [hw.SoundCamera]: HDMI bridges tell it by controls.
func (c *Camera) SoundRate() (rate int, err error) {
	d, err := OpenDevice(c.sys, cmp.Or(c.subdev, c.path))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	present, err := d.named(controlPresent)
	if err == nil && present == 0 {
		return 0, nil
	}
	if err != nil && !errors.Is(err, hw.ErrUnsupported) {
		return 0, err
	}
	hz, err := d.named(controlRate)
	return int(hz), err
}

// named reads a control that is known by its name.
func (d *Device) named(name string) (int64, error) {
	list, err := d.Controls()
	if err != nil {
		return 0, err
	}
	for _, c := range list {
		if strings.EqualFold(c.Name, name) {
			return d.GetControl(c.ID)
		}
	}
	return 0, fmt.Errorf("ask %s for %q: %w", d.path, name, hw.ErrUnsupported)
}
