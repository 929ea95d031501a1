package v4l2_test

import (
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

func rates(perSecond ...int) []uapi.Fract {
	var list []uapi.Fract
	for _, r := range perSecond {
		list = append(list, uapi.Fract{Num: 1, Den: uint32(r)})
	}
	return list
}

func sized(width, height int, perSecond ...int) fakevb2.Size {
	return fakevb2.Size{Width: width, Height: height, Intervals: rates(perSecond...)}
}

// silently lists a format without sizes, as a receiver does.
func silently(name string, bytesPerPixel float64) fakevb2.Format {
	return fakevb2.Format{Code: code(name), BytesPerPixel: bytesPerPixel, Silent: true}
}

// fillH264 writes parameter sets with the first picture only.
func fillH264(frame int, planes [][]byte) []int {
	unit := "\x00\x00\x00\x01\x65key"
	if frame == 0 {
		unit = "\x00\x00\x00\x01\x67s\x00\x00\x00\x01\x68p" + unit
	}
	return []int{copy(planes[0], unit)}
}

func uvc(card string, formats ...fakevb2.Format) *fakevb2.Node {
	return &fakevb2.Node{
		Path: "/dev/video0", Driver: "uvcvideo", Card: card, BusInfo: "usb-0000:01:00.0-1.2", Inputs: 1,
		Caps: uapi.CapVideoCapture | uapi.CapStreaming, Type: uapi.BufTypeVideoCapture, Formats: formats,
	}
}

// models are devices as documentation, drivers and reports describe them. They
// were composed from these, not recorded on hardware.
var models = map[string]func() *fakevb2.Node{
	// A webcam on USB 2: raw pictures are small or slow, the rest is coded.
	"webcam": func() *fakevb2.Node {
		n := uvc("HD Pro Webcam",
			fakevb2.Format{Code: code("YUYV"), BytesPerPixel: 2, Sizes: []fakevb2.Size{sized(640, 480, 30, 15), sized(1280, 720, 10, 5), sized(1920, 1080, 5)}},
			fakevb2.Format{Code: code("MJPG"), BytesPerPixel: 2, Sizes: []fakevb2.Size{sized(640, 480, 30), sized(1280, 720, 60, 30), sized(1920, 1080, 30)}},
			fakevb2.Format{Code: code("H264"), BytesPerPixel: 2, Sizes: []fakevb2.Size{sized(1280, 720, 30), sized(1920, 1080, 30)}},
		)
		return n
	},
	// On USB 3 raw pictures are as fast, in two formats.
	"webcam on USB 3": func() *fakevb2.Node {
		return uvc("4K Camera",
			fakevb2.Format{Code: code("YUYV"), BytesPerPixel: 2, Sizes: []fakevb2.Size{sized(1920, 1080, 30)}},
			fakevb2.Format{Code: code("NV12"), BytesPerPixel: 1.5, Sizes: []fakevb2.Size{sized(1920, 1080, 30)}},
			fakevb2.Format{Code: code("MJPG"), BytesPerPixel: 2, Sizes: []fakevb2.Size{sized(1920, 1080, 60), sized(3840, 2160, 30)}},
		)
	},
	// An HDMI dongle (MS2109): its first frames are empty.
	"dongle": func() *fakevb2.Node {
		n := uvc("USB Video",
			fakevb2.Format{Code: code("MJPG"), BytesPerPixel: 2, Sizes: []fakevb2.Size{sized(1920, 1080, 30), sized(1280, 720, 60)}},
			fakevb2.Format{Code: code("YUYV"), BytesPerPixel: 2, Sizes: []fakevb2.Size{sized(1920, 1080, 5), sized(640, 480, 30)}},
		)
		n.Script = []fakevb2.Fault{{Empty: true}, {Empty: true}}
		n.Fill = func(_ int, planes [][]byte) []int {
			return []int{copy(planes[0], "\xFF\xD8\xFF\xDA\x00\x02scan\xFF\xD9")}
		}
		return n
	},
	// tc358743 on a Raspberry Pi 4 in its legacy mode: the video node answers
	// for the bridge, and nothing comes in before it has an EDID.
	"tc358743": func() *fakevb2.Node {
		return &fakevb2.Node{
			Path: "/dev/video0", Driver: "unicam", Card: "unicam", BusInfo: "platform:fe801000.csi", Inputs: 1,
			Caps: uapi.CapVideoCapture | uapi.CapStreaming, Type: uapi.BufTypeVideoCapture,
			Receivers: map[int]*fakevb2.Receiver{0: {Timings: fakevb2.Timings(1920, 1080, 50), NeedsEDID: true}},
			Formats:   []fakevb2.Format{silently("RGB3", 3), silently("UYVY", 2)},
		}
	},
	// The HDMI receiver of RK3588: the source dictates the format, and pictures
	// are stamped when they are there.
	"snps_hdmirx": func() *fakevb2.Node {
		return &fakevb2.Node{
			Path: "/dev/video0", Driver: "snps_hdmirx", Card: "snps_hdmirx", BusInfo: "platform:fdee0000.hdmi_receiver", Inputs: 1,
			Caps: uapi.CapVideoCaptureMplane | uapi.CapStreaming, Type: uapi.BufTypeVideoCaptureMplane,
			Receivers: map[int]*fakevb2.Receiver{0: {Timings: fakevb2.Timings(1280, 720, 50), NeedsEDID: true, Room: 2}},
			Formats:   []fakevb2.Format{silently("BGR3", 3), silently("NV24", 3), silently("NV16", 2), silently("NV12", 1.5)},
			Grants: func(f *uapi.Format) {
				p := f.PixMP()
				p.PixelFormat = code("NV16")
				p.Planes[0].BytesPerLine, p.Planes[0].SizeImage = p.Width, 2*p.Width*p.Height
			},
		}
	},
	// The same with a computer that sends RGB, or 4:4:4.
	"snps_hdmirx, RGB": func() *fakevb2.Node { return receiver("BGR3", 3) },
	"snps_hdmirx, 444": func() *fakevb2.Node { return receiver("NV24", 1) },
	// A CSI sensor: raw Bayer, which needs an ISP.
	"sensor": func() *fakevb2.Node {
		return &fakevb2.Node{
			Path: "/dev/video0", Driver: "unicam", Card: "unicam", BusInfo: "platform:fe801000.csi", Inputs: 1,
			Caps: uapi.CapVideoCapture | uapi.CapStreaming, Type: uapi.BufTypeVideoCapture,
			Formats: []fakevb2.Format{{Code: code("pRAA"), BytesPerPixel: 1, Sizes: []fakevb2.Size{sized(1332, 990, 30)}}},
		}
	},
}

// receiver is the HDMI receiver of RK3588 with a source of 4:4:4 pixels; lines
// has that many bytes of its first plane for each pixel.
func receiver(pixel string, lines uint32) *fakevb2.Node {
	return &fakevb2.Node{
		Path: "/dev/video0", Driver: "snps_hdmirx", Card: "snps_hdmirx", BusInfo: "platform:fdee0000.hdmi_receiver", Inputs: 1,
		Caps: uapi.CapVideoCaptureMplane | uapi.CapStreaming, Type: uapi.BufTypeVideoCaptureMplane,
		Receivers: map[int]*fakevb2.Receiver{0: {Timings: fakevb2.Timings(1280, 720, 50), NeedsEDID: true, Room: 2}},
		Formats:   []fakevb2.Format{silently("BGR3", 3), silently("NV24", 3), silently("NV16", 2), silently("NV12", 1.5)},
		Grants: func(f *uapi.Format) {
			p := f.PixMP()
			p.PixelFormat = code(pixel)
			p.Planes[0].BytesPerLine, p.Planes[0].SizeImage = lines*p.Width, 3*p.Width*p.Height
		},
	}
}

func fullHD(pixel hw.PixelFormat) hw.Mode {
	return hw.Mode{Pixel: pixel, Width: 1920, Height: 1080, FPS: hw.Rate{Num: 30, Den: 1}}
}

func TestModels(t *testing.T) {
	takes := []hw.PixelFormat{hw.NV12, hw.I420}
	vga := hw.Mode{Width: 640, Height: 480, FPS: hw.Rate{Num: 30, Den: 1}}
	tests := []struct {
		model   string
		takes   []hw.PixelFormat
		want    hw.Mode
		granted string
		exports bool
		damaged uint64
	}{
		{"webcam", takes, fullHD(0), "1920x1080 30 fps MJPG", false, 0},
		{"webcam", takes, vga, "640x480 30 fps YUYV", false, 0},
		{"webcam", takes, fullHD(hw.H264), "1920x1080 30 fps H264", false, 0},
		{"webcam", takes, hw.Mode{Width: 1280, Height: 720, FPS: hw.Rate{Num: 60, Den: 1}}, "1280x720 60 fps MJPG", false, 0},
		{"webcam on USB 3", takes, fullHD(0), "1920x1080 30 fps NV12", false, 0},
		{"webcam on USB 3", []hw.PixelFormat{hw.YUYV, hw.NV12}, fullHD(0), "1920x1080 30 fps YUYV", false, 0},
		{"dongle", takes, fullHD(0), "1920x1080 30 fps MJPG", false, 2},
		{"tc358743", takes, fullHD(0), "1920x1080 50 fps UYVY", true, 0},
		{"snps_hdmirx", takes, fullHD(0), "1280x720 50 fps NV16", true, 0},
		{"snps_hdmirx, RGB", takes, fullHD(0), "1280x720 50 fps BGR3", true, 0},
		{"snps_hdmirx, 444", takes, fullHD(0), "1280x720 50 fps NV24", true, 0},
		{"tc358743", takes, fullHD(hw.RGB24), "1920x1080 50 fps RGB3", true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.model+" "+tt.granted, func(t *testing.T) {
			n := models[tt.model]()
			switch {
			case tt.want.Pixel == hw.H264:
				n.Fill = fillH264
			case n.Fill == nil && tt.granted[len(tt.granted)-4:] == "MJPG":
				n.Fill = models["dongle"]().Fill
			}
			k := fakevb2.New(n)
			c := camera(t, k, n).Preferring(tt.takes).(*v4l2.Camera)
			s, err := c.OpenShared(t.Context(), tt.want, func(src hw.BufferSource) hw.BufferPlan {
				if src.Exports != tt.exports {
					t.Errorf("exports: %v (%s)", src.Exports, src.Private)
				}
				return hw.BufferPlan{Way: hw.Copy, Reason: "to look at it"}
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Mode().String(); got != tt.granted {
				t.Errorf("granted %s, want %s", got, tt.granted)
			}
			for range 3 {
				read(t, s).Release()
			}
			if got := s.Stats(); got != (hw.CameraStats{Frames: 3, Damaged: tt.damaged}) {
				t.Errorf("%+v", got)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			nothingLeft(t, k)
		})
	}
}

func TestASensorIsNoCamera(t *testing.T) {
	k := fakevb2.New(models["sensor"]())
	if cameras, err := finder(k, sysfs("video0")).Cameras(); len(cameras) != 0 || err != nil {
		t.Errorf("%d cameras, %v", len(cameras), err)
	}
}

func TestAFormatThatIsDictatedCannotBeAnotherOne(t *testing.T) {
	n := models["snps_hdmirx"]()
	k := fakevb2.New(n)
	if _, err := camera(t, k, n).Open(t.Context(), hw.Mode{Pixel: hw.NV12}); err == nil || err.Error() == "" {
		t.Errorf("got %v", err)
	} else {
		t.Log(err)
	}
	nothingLeft(t, k)
}

func TestKeyPicturesOfAWebcamCanBeDecodedAlone(t *testing.T) {
	n := models["webcam"]()
	n.Fill = fillH264
	n.Script = []fakevb2.Fault{{}, {Short: 8}, {}} // the second one is cut to its start code
	_, s := open(t, n, fullHD(hw.H264))
	held := read(t, s)
	const sets = "\x00\x00\x00\x01\x67s\x00\x00\x00\x01\x68p"
	for range 5 {
		f := read(t, s)
		if got := string(f.Planes[0].Data); got != sets+"\x00\x00\x00\x01\x65key" || f.Planes[0].Stride != 0 {
			t.Errorf("frame %d: %q", f.Seq, got)
		}
		f.Release()
	}
	if got := string(held.Planes[0].Data); got != sets+"\x00\x00\x00\x01\x65key" {
		t.Errorf("the held frame is now %q", got)
	}
	held.Release()
	if got := s.Stats(); got != (hw.CameraStats{Frames: 6, Damaged: 1}) {
		t.Errorf("%+v", got)
	}
}

func TestStampsMeanTheBeginOfThePicture(t *testing.T) {
	for model, lag := range map[string]time.Duration{
		"tc358743":    0,
		"snps_hdmirx": 20 * time.Millisecond * 720 / 765, // 720 of 765 lines at 50 Hz
	} {
		n := models[model]()
		_, s := open(t, n, hw.Mode{})
		f := read(t, s)
		want := time.Hour + fakevb2.Step - fakevb2.Delay - lag
		if diff := f.Stamp - want; diff < -time.Microsecond || diff > time.Microsecond {
			t.Errorf("%s: stamp %v, want %v", model, f.Stamp, want)
		}
		f.Release()
	}
}
