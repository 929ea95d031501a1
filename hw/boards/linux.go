package boards

import (
	"errors"
	"log/slog"

	"encoderd.example/hw"
	"encoderd.example/hw/alsa"
	"encoderd.example/hw/convert"
	"encoderd.example/hw/external"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/sim"
	"encoderd.example/hw/soft"
	"encoderd.example/hw/uevent"
	"encoderd.example/hw/v4l2"
)

// genericBoard is any Linux machine: what V4L2 and ALSA show, encoded in
// software.
func genericBoard(log *slog.Logger) hw.Board {
	return linux(log, hw.Board{Name: "generic", Title: "Linux machine"})
}

// virtBoard is the virtual board of buildroot/virt, QEMU's machine "virt".
func virtBoard(log *slog.Logger) hw.Board {
	return linux(log, hw.Board{
		Name: "virt", Title: "Virtual board", Compatible: []string{"linux,dummy-virt"},
		Keys: virtKeys(), Lamps: virtLamps(),
	})
}

// linux fills in what every machine with V4L2, ALSA, GPIO chips and LEDs has.
func linux(log *slog.Logger, b hw.Board) hw.Board {
	test := sim.New(sim.Options{}).Hardware()
	cameras := inputs(log, b)
	converters := convert.Finder{Root: root(), Sys: v4l2.Kernel{}, Log: orDiscard(log), Known: &convert.Known{}}
	programs := &external.Finder{Log: orDiscard(log)}
	cameras.Led = newSensors(programs.Cameras, orDiscard(log)).led
	b.Cameras = join(withDecoders(cameras.Cameras, converters.Decoders, orDiscard(log)), programs.Cameras)
	b.FindEncoders = join(withScalers(
		m2m.Finder{Root: root(), Sys: v4l2.Kernel{}, Log: orDiscard(log)}.Encoders,
		converters.Scalers,
	), programs.Encoders)
	b.Mics = func() ([]hw.Mic, error) { return alsa.Discover("/") }
	b.FindMic = func(id string) (hw.Mic, error) { return alsa.Find("/", id) }
	b.Watch = uevent.Watch
	b.OpenPanel, b.Darken = panels().Open, panels().Darken
	b.TestCamera, b.TestMic = test.TestCamera, test.TestMic
	b.Encoders = softwareVideo()
	b.AudioEncoders = softwareSound()
	return b
}

// inputs finds cameras, and tells sources no more than the board can take.
func inputs(log *slog.Logger, b hw.Board) v4l2.Finder {
	return v4l2.Finder{Root: root(), Log: orDiscard(log), Sys: v4l2.Kernel{}, Takes: v4l2.EDIDOptions{MaxPixels: b.MaxPixels}, Known: &v4l2.Known{}}
}

// join lists what several finders find. One that fails does not hide the others.
func join[T any](finders ...func() ([]T, error)) func() ([]T, error) {
	return func() (all []T, err error) {
		for _, find := range finders {
			found, failed := find()
			all, err = append(all, found...), errors.Join(err, failed)
		}
		return all, err
	}
}

// withScalers puts the scalers of a machine before its encoders. What cannot be
// listed of them is no reason to go without an encoder.
func withScalers(find func() ([]hw.EncoderDriver, error), scalers func() ([]*convert.Device, error)) func() ([]hw.EncoderDriver, error) {
	return func() ([]hw.EncoderDriver, error) {
		drivers, err := find()
		for i, d := range drivers {
			drivers[i] = convert.Ahead(d, scalers)
		}
		return drivers, err
	}
}

// withDecoders puts the JPEG decoders of a machine behind its cameras, if it
// has any.
func withDecoders(find func() ([]hw.Camera, error), decoders func() ([]*convert.Device, error), log *slog.Logger) func() ([]hw.Camera, error) {
	return func() ([]hw.Camera, error) {
		cameras, err := find()
		if list, _ := decoders(); len(list) == 0 { // each opening asks again, and tells
			return cameras, err
		}
		for i, c := range cameras {
			if s, ok := c.(hw.SharingCamera); ok {
				cameras[i] = convert.Decoding(s, decoders, log)
			}
		}
		return cameras, err
	}
}

// softwareVideo lists the encoders that need no hardware.
func softwareVideo() []hw.EncoderDriver { return []hw.EncoderDriver{soft.X264()} }

// softwareSound lists the sound encoders, the cheapest first: libvo-aacenc is
// there if it was installed, go-aac always.
func softwareSound() []hw.AudioEncoderDriver {
	return []hw.AudioEncoderDriver{soft.VOAAC(), soft.AAC(), soft.Opus()}
}
