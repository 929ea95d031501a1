package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing/fstest"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/convert"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
)

// No kernel driver that runs without its chip decodes JPEG, and QEMU streams
// from no USB camera. The model of the kernel that the drivers' tests use
// stands in for both, and for an encoder: it shows who touches which memory,
// and nothing about time.

// modelBoard is a USB camera that plays a JPEG, a decoder and an encoder.
func modelBoard(dir string) (hw.Board, error) {
	picture, err := firstPicture(filepath.Join(dir, "MJPG"))
	if err != nil {
		return hw.Board{}, err
	}
	k := fakevb2.New(modelCamera(picture), modelDecoder(), modelEncoder())
	k.Clock = stream.Monotonic
	log, root := slog.New(slog.DiscardHandler), fstest.MapFS{}
	for _, name := range []string{"video0", "video1", "video2"} {
		root["sys/class/video4linux/"+name+"/index"] = &fstest.MapFile{Data: []byte("0\n")}
		root["sys/class/video4linux/"+name+"/dev"] = &fstest.MapFile{Data: []byte("81:0\n")}
	}
	decoders := convert.Finder{Root: root, Sys: k, Log: log}.Decoders
	b := fileBoard(nil)
	b.Cameras = func() ([]hw.Camera, error) {
		list, err := v4l2.Finder{Root: root, Log: log, Sys: k, Clock: k.Now}.Cameras()
		for i, c := range list {
			if s, ok := c.(hw.SharingCamera); ok {
				list[i] = convert.Decoding(paced{s}, decoders, log)
			}
		}
		return list, err
	}
	b.FindEncoders = m2m.Finder{Root: root, Sys: k, Log: log}.Encoders
	return b, nil
}

// firstPicture returns the first JPEG of a file.
func firstPicture(file string) ([]byte, error) {
	doc, err := os.ReadFile(file) //nolint:gosec // G703: our parent names it
	if err != nil {
		return nil, fmt.Errorf("read the camera's pictures: %w", err)
	}
	c := &fileCamera{mode: hw.Mode{Pixel: hw.MJPEG}}
	places := c.split(doc)
	if len(places) == 0 {
		return nil, fmt.Errorf("no picture in %s: %w", file, errChild)
	}
	return doc[:places[0].length], nil
}

func modelCamera(picture []byte) *fakevb2.Node {
	size := fakevb2.Size{Width: pathWidth, Height: pathHeight, Intervals: []uapi.Fract{{Num: 1, Den: pathFPS}}}
	return &fakevb2.Node{
		Path: "/dev/video0", Driver: "uvcvideo", Card: "camera", BusInfo: "usb-1", Inputs: 1,
		Caps: uapi.CapVideoCapture | uapi.CapStreaming, Type: uapi.BufTypeVideoCapture,
		Formats: []fakevb2.Format{{Code: uint32(hw.MJPEG), BytesPerPixel: 2, Sizes: []fakevb2.Size{size}}},
		Fill:    func(_ int, planes [][]byte) []int { return []int{copy(planes[0], picture)} },
	}
}

func modelDecoder() *fakevb2.Node {
	return &fakevb2.Node{
		Path: "/dev/video1", Driver: "decoder", Card: "decoder", BusInfo: "platform:decoder",
		Caps: uapi.CapVideoM2M | uapi.CapStreaming, Type: uapi.BufTypeVideoCapture,
		Converter: &fakevb2.Converter{
			In:  []fakevb2.Format{{Code: uint32(hw.MJPEG)}},
			Out: []fakevb2.Format{{Code: uint32(hw.NV12), BytesPerPixel: 1.5, Align: 32, AlignLines: 16}},
		},
	}
}

func modelEncoder() *fakevb2.Node {
	return &fakevb2.Node{
		Path: "/dev/video2", Driver: "encoder", Card: "encoder", BusInfo: "platform:encoder",
		Caps: uapi.CapVideoM2MMplane | uapi.CapStreaming, Type: uapi.BufTypeVideoCaptureMplane,
		Encoder: &fakevb2.Encoder{Raw: []fakevb2.Format{{Code: uint32(hw.NV12), BytesPerPixel: 1.5, Align: 16, AnyStride: true}}},
		Controls: []fakevb2.Control{
			{ID: uapi.CIDGOPSize, Name: "GOP", Type: uapi.CtrlTypeInteger, Max: 600},
			{ID: uapi.CIDBitrate, Name: "Bitrate", Type: uapi.CtrlTypeInteger, Max: 100_000_000},
			{ID: uapi.CIDForceKeyFrame, Name: "Key", Type: uapi.CtrlTypeButton},
		},
	}
}

// A paced camera gives pictures in its time, where the model gives one whenever
// somebody asks.
type paced struct{ hw.SharingCamera }

// OpenShared implements [hw.SharingCamera].
func (c paced) OpenShared(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (hw.SharedStream, error) {
	s, err := c.SharingCamera.OpenShared(ctx, want, decide)
	if err != nil {
		return nil, err
	}
	return &pacedStream{SharedStream: s, due: stream.Monotonic()}, nil
}

// A pacedStream is one of a paced camera.
type pacedStream struct {
	hw.SharedStream
	due time.Duration
}

// Read implements [hw.CameraStream].
func (s *pacedStream) Read(ctx context.Context) (*hw.Frame, error) {
	s.due += s.Mode().FPS.Period()
	if err := wait(ctx, s.due-stream.Monotonic()); err != nil {
		return nil, err
	}
	return s.SharedStream.Read(ctx)
}
