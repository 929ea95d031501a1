package boards

import (
	"log/slog"

	"encoderd.example/hw"
	"encoderd.example/hw/alsa"
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
	return linux(log, hw.Board{Name: "virt", Title: "Virtual board", Compatible: []string{"linux,dummy-virt"}})
}

// linux fills in what every machine with V4L2 and ALSA has.
func linux(log *slog.Logger, b hw.Board) hw.Board {
	test := sim.New(sim.Options{}).Hardware()
	cameras := v4l2.Finder{Root: root(), Log: orDiscard(log), Sys: v4l2.Kernel{}}
	b.Cameras = cameras.Cameras
	b.FindEncoders = m2m.Finder{Root: root(), Sys: v4l2.Kernel{}, Log: orDiscard(log)}.Encoders
	b.Mics = func() ([]hw.Mic, error) { return alsa.Discover("/") }
	b.FindMic = func(id string) (hw.Mic, error) { return alsa.Find("/", id) }
	b.Watch = uevent.Watch
	b.TestCamera, b.TestMic = test.TestCamera, test.TestMic
	b.Encoders = softwareVideo()
	b.AudioEncoders = softwareSound()
	return b
}

// softwareVideo lists the encoders that need no hardware.
func softwareVideo() []hw.EncoderDriver { return []hw.EncoderDriver{soft.X264()} }

// softwareSound lists the sound encoders, the cheapest first: libvo-aacenc is
// there if it was installed, go-aac always.
func softwareSound() []hw.AudioEncoderDriver {
	return []hw.AudioEncoderDriver{soft.VOAAC(), soft.AAC(), soft.Opus()}
}
