//go:build board

// Tests on a real kernel: the guest of the virtual board, with vivid and
// vh264enc.

package encode_test

import (
	"log/slog"
	"os"
	"testing"

	"github.com/pion/mediadevices"
	"github.com/pion/mediadevices/pkg/frame"
	"github.com/pion/mediadevices/pkg/prop"

	"encoderd.example/hw/m2m"
	"encoderd.example/hw/pion"
	"encoderd.example/hw/pion/encode"
	"encoderd.example/hw/v4l2"
	"encoderd.example/stream/h264"
)

func TestBoardCodesTheCamerasMemoryByHardware(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	cameras, err := v4l2.Finder{Root: os.DirFS("/"), Log: log, Sys: v4l2.Kernel{}}.Cameras()
	if err != nil || len(cameras) == 0 {
		t.Fatalf("%d cameras, %v", len(cameras), err)
	}
	encoders, err := m2m.Finder{Root: os.DirFS("/"), Log: log, Sys: v4l2.Kernel{}}.Encoders()
	if err != nil || len(encoders) != 1 {
		t.Fatalf("%d encoders, %v", len(encoders), err)
	}
	registry := pion.NewRegistry()
	if err := registry.Sync(cameras[:1], nil); err != nil {
		t.Fatal(err)
	}
	stream, err := mediadevices.GetUserMedia(mediadevices.MediaStreamConstraints{
		Codec: mediadevices.NewCodecSelector(mediadevices.WithVideoEncoders(encode.H264{Driver: encoders[0]})),
		Video: func(c *mediadevices.MediaTrackConstraints) {
			c.Width, c.Height, c.FrameRate, c.FrameFormat = prop.Int(640), prop.Int(360), prop.Float(15), prop.FrameFormatExact(frame.FormatNV12)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	track := stream.GetVideoTracks()[0]
	coded, err := track.NewEncodedReader("h264")
	if err != nil {
		t.Fatal(err)
	}
	knobs := coded.Controller().(encode.Controller)
	const pictures = 30
	var keys []int
	for i := range pictures {
		unit, release, err := coded.Read()
		if err != nil {
			t.Fatal(err)
		}
		if key(unit.Data) {
			keys = append(keys, i)
			for nal := range h264.AnnexB(unit.Data) {
				if h264.Type(nal) != h264.TypeSPS {
					t.Errorf("key picture %d does not begin with its parameter sets", i)
				}
				break
			}
		}
		release()
		if i == pictures/2 {
			if err := knobs.ForceKeyFrame(); err != nil {
				t.Error(err)
			}
			if err := knobs.SetBitRate(500_000); err != nil {
				t.Error(err)
			}
		}
	}
	if len(keys) != 2 || keys[0] != 0 || keys[1] <= pictures/2 {
		t.Errorf("key pictures at %v", keys)
	}
	if st := knobs.Stats(); st.CopiedBytes != 0 || st.Coded < pictures || st.Swallowed != 0 {
		t.Errorf("%+v", st)
	}
	if err := track.Close(); err != nil {
		t.Error(err)
	}
	if err := coded.Close(); err != nil {
		t.Error(err)
	}
	if err := registry.Sync(nil, nil); err != nil {
		t.Error(err)
	}
}
