package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"encoderd.example/daemon/config"
	"encoderd.example/hw"
)

// errOverload says that the hardware has no room for a rendition that must be
// coded by it.
var errOverload = errors.New("too much for the hardware")

// A placement says which encoders a rendition runs on.
type placement struct {
	// Drivers are names in the order in which they are tried.
	Drivers []string
	// Reason says why an encoder that the choice allows was passed over, or "".
	Reason string
}

// place finds encoders for all renditions. What must be coded by hardware is
// served first; the others take what room is left, in order. It is pure.
func place(renditions []encodeConfig, drivers []hw.EncoderDriver) []placement {
	room := ledger{}
	list := make([]placement, len(renditions))
	for _, must := range []bool{true, false} {
		for i, c := range renditions {
			if (c.Choice == config.Hardware) == must {
				list[i] = room.place(c, drivers)
			}
		}
	}
	return list
}

// A ledger holds the renditions that each hardware encoder codes.
type ledger map[string][]encodeConfig

// place books c with the first encoder that has room; those after it stand by.
func (l ledger) place(c encodeConfig, drivers []hw.EncoderDriver) placement {
	var p placement
	for _, d := range drivers {
		if !allowed(d, c) {
			continue
		}
		if sum, fits := l.sum(d, c); !fits {
			p.Reason = sum
			continue
		}
		if len(p.Drivers) == 0 {
			l[d.Name] = append(l[d.Name], c)
		}
		p.Drivers = append(p.Drivers, d.Name)
	}
	return p
}

// book reserves room for c on a driver that it is about to be opened with: the
// first of its list, or one that it falls back to. It fails with the sum if the
// renditions that are there, or have their place there and are still to come,
// leave none. A source that is a little faster than a rendition is not thinned
// out, and costs what it gives.
func (d *Daemon) book(c encodeConfig, driver hw.EncoderDriver) error {
	source := d.hub.rate()
	d.mu.Lock()
	defer d.mu.Unlock()
	p := planner{config: d.config, fps: hw.Rate(d.config.Video.FPS)}
	room := ledger{}
	for _, r := range d.config.Renditions {
		if at := d.placeOf(r.Name); r.Name != c.Rendition && at != "" {
			room[at] = append(room[at], p.encode(r).atMost(source))
		}
	}
	if sum, fits := room.sum(driver, c.atMost(source)); !fits {
		return fmt.Errorf("%w: %s", errOverload, sum)
	}
	d.booked[c.Rendition] = driver.Name
	return nil
}

// atMost returns c at the rate at which pictures may have to be coded: as
// configured, or that of a source that is faster and not thinned out.
func (c encodeConfig) atMost(source hw.Rate) encodeConfig {
	c.FPS = faster(c.FPS, rateOf(c.FPS, source))
	return c
}

// placeOf returns the encoder on which a rendition counts, or "". The caller
// holds mu.
func (d *Daemon) placeOf(rendition string) string {
	if at, ok := d.booked[rendition]; ok {
		return at
	}
	if names := d.placed[rendition].Drivers; len(names) > 0 {
		return names[0]
	}
	return ""
}

// sum adds c to what d codes already, and says so in words.
func (l ledger) sum(d hw.EncoderDriver, c encodeConfig) (words string, fits bool) {
	total := 0
	var parts []string
	for _, r := range append(slices.Clone(l[d.Name]), c) {
		total += r.Macroblocks()
		parts = append(parts, fmt.Sprintf("%s %dx%d %.4g fps %d", r.Rendition, r.Width, r.Height, r.FPS.Float(), r.Macroblocks()))
	}
	words = strings.Join(parts, " + ")
	if len(parts) > 1 {
		words += fmt.Sprintf(" = %d", total)
	}
	words += fmt.Sprintf(", %s codes %d macroblocks a second", d.Name, d.Budget)
	return words, d.Budget == 0 || total <= d.Budget
}

func allowed(driver hw.EncoderDriver, c encodeConfig) bool {
	switch c.Choice {
	case config.Hardware:
		if !driver.Hardware {
			return false
		}
	case config.Software:
		if driver.Hardware {
			return false
		}
	}
	return slices.Contains(driver.Codecs, c.Codec)
}

// placements are those of a config's renditions, by name.
func placements(c config.Config, drivers []hw.EncoderDriver) map[string]placement {
	p := planner{config: c, fps: hw.Rate(c.Video.FPS)}
	list := map[string]placement{}
	for i, at := range p.place(drivers) {
		list[c.Renditions[i].Name] = at
	}
	return list
}

// Overload says which rendition of a config must be coded by hardware that has
// no room for it: its index, what is wrong and what to do. ok is true if there
// is none.
func Overload(c config.Config, drivers []hw.EncoderDriver) (index int, wrong, do string, ok bool) {
	p := planner{config: c, fps: hw.Rate(c.Video.FPS)}
	for i, at := range p.place(drivers) {
		if r := c.Renditions[i]; r.Encoder == config.Hardware && len(at.Drivers) == 0 && at.Reason != "" {
			return i, at.Reason, fmt.Sprintf("make %s smaller, or set its encoder to software", r.Name), false
		}
	}
	return 0, "", "", true
}
