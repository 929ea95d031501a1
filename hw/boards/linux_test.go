package boards

import (
	"errors"
	"log/slog"
	"testing"

	"encoderd.example/hw"
	"encoderd.example/hw/convert"
)

// A sharing camera is asked nothing but its name.
type sharing struct{ hw.SharingCamera }

func (sharing) ID() string { return "usb" }

func TestDecodersComeWithCamerasThatShare(t *testing.T) {
	why := errors.New("one of them is locked")
	for _, decoders := range [][]*convert.Device{nil, {{}}} {
		find := withDecoders(
			func() ([]hw.Camera, error) { return []hw.Camera{sharing{}, nil}, why },
			func() ([]*convert.Device, error) { return decoders, nil },
			slog.New(slog.DiscardHandler),
		)
		list, err := find()
		if !errors.Is(err, why) || len(list) != 2 || list[0].ID() != "usb" || list[1] != nil {
			t.Fatalf("%v, %v", list, err)
		}
		if _, plain := list[0].(sharing); plain != (len(decoders) == 0) {
			t.Errorf("with %d decoders the camera is a %T", len(decoders), list[0])
		}
	}
}

// An input is that of an encoder which nobody asks anything.
type input struct{ hw.Importer }

func TestScalersComeWithEncodersOfHardware(t *testing.T) {
	why := errors.New("one of them is locked")
	find := withScalers(
		func() ([]hw.EncoderDriver, error) {
			return []hw.EncoderDriver{{Name: "chip", Importer: input{}}, {Name: "external"}}, why
		},
		func() ([]*convert.Device, error) { return nil, nil },
	)
	list, err := find()
	if !errors.Is(err, why) || len(list) != 2 || list[0].Name != "chip" || list[1].Name != "external" {
		t.Fatalf("%v, %v", list, err)
	}
	if _, ok := list[0].Importer.(hw.ScalingImporter); !ok {
		t.Error("the chip has no scaler before it")
	}
	if list[1].Importer != nil {
		t.Error("a scaler before an encoder that reads no memory of others")
	}
}
