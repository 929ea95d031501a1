package m2m

import (
	"fmt"
	"log/slog"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
)

// knobs are the controls of an open device. What a driver does not have or
// refuses is passed over: no two have the same.
type knobs struct {
	dev  *v4l2.Device
	log  *slog.Logger
	list map[uint32]v4l2.Control
}

func newKnobs(d *v4l2.Device, log *slog.Logger) (*knobs, error) {
	list, err := d.Controls()
	if err != nil {
		return nil, err
	}
	k := &knobs{d, log, map[uint32]v4l2.Control{}}
	for _, c := range list {
		k.list[c.ID] = c
	}
	return k, nil
}

func (k *knobs) has(id uint32) bool {
	_, ok := k.list[id]
	return ok
}

// set turns a knob as near to v as it goes and reports whether the driver took
// it. The error says that the device is gone or broken.
func (k *knobs) set(id uint32, v int64) (bool, error) {
	c, ok := k.list[id]
	if !ok || c.Flags&uapi.CtrlFlagReadOnly != 0 {
		return false, nil
	}
	if c.Type == uapi.CtrlTypeInteger || c.Type == uapi.CtrlTypeInteger64 {
		v = nearest(v, c)
	}
	err := k.dev.SetControl(id, v)
	if err != nil && declined(err) {
		k.log.Debug("the driver refuses a setting", "control", c.Name, "value", v, "err", err)
		return false, nil
	}
	return err == nil, err
}

// nearest moves v into the limits of a control and onto its steps.
func nearest(v int64, c v4l2.Control) int64 {
	v = min(max(v, c.Min), c.Max)
	if c.Step > 1 {
		v = c.Min + (v-c.Min)/c.Step*c.Step
	}
	return v
}

// value reads a knob, or returns other if it cannot be read.
func (k *knobs) value(id uint32, other int64) (int64, error) {
	if !k.has(id) {
		return other, nil
	}
	v, err := k.dev.GetControl(id)
	if err != nil {
		return other, tolerate(err)
	}
	return v, nil
}

// A setting is one knob and what it is turned to.
type setting struct {
	id uint32
	to int64
}

// setAll turns knobs in order.
func (k *knobs) setAll(settings ...setting) error {
	for _, s := range settings {
		if _, err := k.set(s.id, s.to); err != nil {
			return err
		}
	}
	return nil
}

// configure sets everything that is set once. Of the defaults of drivers none
// can be trusted: there are bit rate 0, level 1.0 and rate control off. It
// returns the highest bit rate that the level carries.
func (k *knobs) configure(q quirks, cfg hw.EncoderConfig) (most int, err error) {
	err = k.setAll(
		setting{uapi.CIDFrameRCEnable, 1},
		setting{uapi.CIDMBRCEnable, 1},
		setting{uapi.CIDBitrateMode, q.bitrateMode},
		setting{uapi.CIDBFrames, 0},
		setting{uapi.CIDGOPSize, int64(cfg.GOP)},
	)
	if err != nil {
		return 0, err
	}
	if _, err := k.bitrate(cfg.Bitrate); err != nil {
		return 0, err
	}
	own := k.configureH264
	if cfg.Codec == stream.H265 {
		own = k.configureH265
	}
	if most, err = own(q, cfg); err != nil {
		return 0, err
	}
	return most, k.setAll(
		setting{uapi.CIDHeaderMode, uapi.HeaderModeJoined},
		setting{uapi.CIDRepeatSeqHeader, 1},
		setting{uapi.CIDPrependSPSPPSToIDR, 1},
		setting{uapi.CIDAUDelimiter, 0},
	)
}

// configureH264 sets what only H.264 has.
func (k *knobs) configureH264(q quirks, cfg hw.EncoderConfig) (most int, err error) {
	p, err := k.profile(cfg.Profile)
	if err != nil {
		return 0, err
	}
	l, err := k.level(cfg, p)
	if err != nil {
		return 0, err
	}
	entropy := int64(uapi.H264EntropyCAVLC)
	if p.cabac {
		entropy = uapi.H264EntropyCABAC
	}
	return l.most(p), k.setAll(
		setting{uapi.CIDH264IPeriod, int64(cfg.GOP)},
		setting{uapi.CIDH264EntropyMode, entropy},
		setting{uapi.CIDH264MinQP, q.minQP},
		setting{uapi.CIDH264MaxQP, q.maxQP},
	)
}

// configureH265 sets what only HEVC has: profile and tier main, and IDR
// pictures each GOP.
func (k *knobs) configureH265(q quirks, cfg hw.EncoderConfig) (most int, err error) {
	if cfg.Profile != "" && cfg.Profile != "main" {
		return 0, fmt.Errorf("profile %q of HEVC: %w", cfg.Profile, hw.ErrUnsupported)
	}
	if k.has(uapi.CIDHEVCProfile) {
		ok, err := k.oneOf(uapi.CIDHEVCProfile, []int64{uapi.HEVCProfileMain})
		if err != nil {
			return 0, err
		}
		if !ok {
			return 0, fmt.Errorf("profile main of HEVC: %w", hw.ErrUnsupported)
		}
	}
	l, err := levelHEVCFor(cfg.Width, cfg.Height, cfg.FPS, cfg.Bitrate)
	if err != nil {
		return 0, err
	}
	period := int64(1) // of pictures that stand alone, of which all shall be IDR
	if q.refreshInPictures {
		period = int64(cfg.GOP)
	}
	err = k.setAll(
		setting{uapi.CIDHEVCTier, uapi.HEVCTierMain},
		setting{uapi.CIDHEVCRefreshType, uapi.HEVCRefreshIDR},
		setting{uapi.CIDHEVCRefreshPeriod, period},
		setting{uapi.CIDHEVCMinQP, q.minQP},
		setting{uapi.CIDHEVCMaxQP, q.maxQP},
	)
	if err != nil {
		return 0, err
	}
	return l.most(), k.reach(uapi.CIDHEVCLevel, l.menu)
}

// bitrate sets the target and, where the driver has one, the peak, which may
// never be lower: so before a target that rises, and after one that falls. It
// reports whether the driver took the target.
func (k *knobs) bitrate(bps int) (took bool, err error) {
	for _, id := range []uint32{uapi.CIDBitratePeak, uapi.CIDBitrate, uapi.CIDBitratePeak} {
		ok, err := k.set(id, int64(bps))
		if err != nil {
			return false, err
		}
		took = took || ok && id == uapi.CIDBitrate
	}
	return took, nil
}

// profile sets the profile of that name, or for "" the best that the driver
// takes, and returns it.
func (k *knobs) profile(name string) (profile, error) {
	first, err := profileNamed(name)
	if err != nil {
		return profile{}, err
	}
	if !k.has(uapi.CIDH264Profile) {
		return first, nil
	}
	for _, p := range profiles {
		if name != "" && p.name != name {
			continue
		}
		if ok, err := k.oneOf(uapi.CIDH264Profile, p.menu); ok || err != nil {
			return p, err
		}
	}
	return profile{}, fmt.Errorf("profile %q: %w", first.name, hw.ErrUnsupported)
}

// oneOf sets a menu to the first entry that the driver takes and keeps.
func (k *knobs) oneOf(id uint32, entries []int64) (bool, error) {
	for _, v := range entries {
		took, err := k.set(id, v)
		if err != nil {
			return false, err
		}
		got, err := k.value(id, v)
		if err != nil {
			return false, err
		}
		if took && got == v {
			return true, nil
		}
	}
	return false, nil
}

// level sets the lowest level that carries cfg. Too low a level stops some
// drivers from starting, and they clamp silently.
func (k *knobs) level(cfg hw.EncoderConfig, p profile) (level, error) {
	l, err := levelFor(cfg.Width, cfg.Height, cfg.FPS, cfg.Bitrate, p)
	if err != nil {
		return level{}, err
	}
	return l, k.reach(uapi.CIDH264Level, l.menu)
}

// reach sets the menu of levels, and warns of a driver that stays below.
func (k *knobs) reach(id uint32, want int64) error {
	if _, err := k.set(id, want); err != nil {
		return err
	}
	got, err := k.value(id, want)
	if err == nil && got < want {
		k.log.Warn("the encoder does not reach the level that its task needs", "control", k.list[id].Name, "want", want, "got", got)
	}
	return err
}
