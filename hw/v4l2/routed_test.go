package v4l2_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

// A rig is a board with a media controller.
type rig struct {
	k     *fakevb2.Kernel
	m     *fakevb2.Media
	files fstest.MapFS
}

func (r rig) node(name string) *fakevb2.Node {
	i := slices.IndexFunc(r.m.Entities, func(e fakevb2.Entity) bool { return strings.HasPrefix(e.Name, name) })
	return r.m.Entities[i].Node
}

// enabled returns the links that are, as "from:pad to:pad".
func (r rig) enabled() (list []string) {
	r.k.Do(func() {
		for i, l := range r.m.Links {
			if r.m.Enabled(i) {
				list = append(list, fmt.Sprintf("%s:%d %s:%d", r.m.Entities[l.From].Name, l.FromPad, r.m.Entities[l.To].Name, l.ToPad))
			}
		}
	})
	return list
}

// newRig makes the kernel and sysfs of a media device.
func newRig(m *fakevb2.Media) rig {
	device := &fakevb2.Node{Path: "/dev/media0", Media: m}
	nodes := []*fakevb2.Node{device}
	files := fstest.MapFS{"sys/bus/media/devices/media0/dev": &fstest.MapFile{Data: []byte("236:0\n")}}
	link := func(name, target string) { files[name] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(target)} }
	for i, e := range m.Entities {
		if e.Node == nil {
			continue
		}
		nodes = append(nodes, e.Node)
		name := path.Base(e.Node.Path)
		dir := "sys/devices/platform/csi/video4linux/" + name
		link("sys/class/video4linux/"+name, "../../devices/platform/csi/video4linux/"+name)
		link(fmt.Sprintf("sys/dev/char/81:%d", i), "../../devices/platform/csi/video4linux/"+name)
		files[dir+"/index"] = &fstest.MapFile{Data: fmt.Appendln(nil, strings.TrimPrefix(name, "video"))}
	}
	return rig{fakevb2.New(nodes...), m, files}
}

func (r rig) cameras(t *testing.T) []hw.Camera {
	t.Helper()
	cameras, err := finder(r.k, r.files).Cameras()
	if err != nil {
		t.Fatal(err)
	}
	return cameras
}

func (r rig) camera(t *testing.T) *v4l2.Camera {
	t.Helper()
	cameras := r.cameras(t)
	if len(cameras) != 1 {
		t.Fatalf("%d cameras", len(cameras))
	}
	return cameras[0].(*v4l2.Camera)
}

const (
	smpte170m = 1
	srgb      = 8
	onOff     = uapi.LinkEnabled
	fixed     = uapi.LinkEnabled | uapi.LinkImmutable
)

// dma is a video node behind a media controller that takes any size.
func dma(number int, writes ...fakevb2.BusPixel) *fakevb2.Node {
	n := &fakevb2.Node{
		Path: fmt.Sprint("/dev/video", number), Driver: "rp1-cfe", Card: "rp1-cfe", BusInfo: "platform:1f00110000.csi",
		Caps: uapi.CapVideoCapture | uapi.CapStreaming | uapi.CapIOMC, Type: uapi.BufTypeVideoCapture, Writes: writes,
	}
	size := []fakevb2.Size{{Width: 4096, Height: 4096}}
	for _, f := range []fakevb2.Format{
		{Code: code("YUYV"), BytesPerPixel: 2}, {Code: code("UYVY"), BytesPerPixel: 2}, {Code: code("NV12"), BytesPerPixel: 1.5}, {Code: code("pRAA"), BytesPerPixel: 1.25},
	} {
		if slices.ContainsFunc(writes, func(w fakevb2.BusPixel) bool { return w.Pixel == f.Code }) {
			f.Range, f.Sizes, f.Align = true, size, 16
			n.Formats = append(n.Formats, f)
		}
	}
	return n
}

func subdev(number int, driver string, pads ...fakevb2.Pad) *fakevb2.Node {
	return &fakevb2.Node{Path: fmt.Sprint("/dev/v4l-subdev", number), Driver: driver, Subdev: true, Pads: pads}
}

// tc358743 is the bridge behind a media controller, into which 1280x720p60
// comes once it has an EDID.
func tc358743(number int) *fakevb2.Node {
	n := subdev(number, "tc358743", fakevb2.Pad{Codes: []uint32{uapi.BusRGB888, uapi.BusUYVY8}, Colorspace: smpte170m})
	n.Receivers = map[int]*fakevb2.Receiver{0: {Timings: fakevb2.Timings(1280, 720, 60), NeedsEDID: true}}
	return n
}

var csiCodes = []uint32{uapi.BusSRGGB10, uapi.BusUYVY8, uapi.BusYUYV8, uapi.BusRGB888}

// pi5 is a Raspberry Pi 5 with something at its CSI socket, composed from the
// documentation of rp1-cfe and from reports of its topology. The front end's
// link is left in, as libcamera leaves it.
func pi5(camera *fakevb2.Node, name string, function uint32) rig {
	yuv := []fakevb2.BusPixel{{Code: uapi.BusUYVY8, Pixel: code("UYVY")}, {Code: uapi.BusYUYV8, Pixel: code("YUYV")}, {Code: uapi.BusSRGGB10, Pixel: code("pRAA")}}
	raw := fakevb2.BusPixel{Code: uapi.BusSRGGB10, Pixel: code("pRAA")}
	csi2 := subdev(0, "rp1-cfe")
	for i := range 8 {
		csi2.Pads = append(csi2.Pads, fakevb2.Pad{Sink: i < 4, Codes: csiCodes, Of: i - 4, Strict: true})
	}
	front := subdev(1, "rp1-cfe", fakevb2.Pad{Sink: true, Codes: csiCodes[:1]}, fakevb2.Pad{Sink: true, Codes: csiCodes[:1]}, fakevb2.Pad{Codes: csiCodes[:1]})
	config := dma(7, raw)
	config.Caps = uapi.CapVideoOutput | uapi.CapStreaming | uapi.CapIOMC
	m := &fakevb2.Media{
		Entities: []fakevb2.Entity{
			{Name: "csi2", Function: uapi.EntityInterfaceBridge, Node: csi2},
			{Name: "pisp-fe", Function: uapi.EntityISP, Node: front},
			{Name: name, Function: function, Node: camera},
			{Name: "rp1-cfe-csi2-ch0", Function: uapi.EntityIOV4L, Node: dma(0, yuv...)},
			{Name: "rp1-cfe-csi2-ch1", Function: uapi.EntityIOV4L, Node: dma(1, yuv...)},
			{Name: "rp1-cfe-fe-image0", Function: uapi.EntityIOV4L, Node: dma(4, raw)},
			{Name: "rp1-cfe-fe-config", Function: uapi.EntityIOV4L, Node: config, Source: true},
		},
		Links: []fakevb2.Link{
			{From: 2, FromPad: 0, To: 0, ToPad: 0, Flags: fixed},
			{From: 0, FromPad: 4, To: 3, ToPad: 0},
			{From: 0, FromPad: 4, To: 1, ToPad: 0, Flags: onOff},
			{From: 0, FromPad: 5, To: 4, ToPad: 0, Flags: onOff},
			{From: 0, FromPad: 5, To: 1, ToPad: 0},
			{From: 1, FromPad: 2, To: 5, ToPad: 0, Flags: onOff},
			{From: 6, FromPad: 0, To: 1, ToPad: 1, Flags: onOff},
		},
	}
	return newRig(m)
}

func bay() rig { return pi5(tc358743(2), "tc358743 10-000f", uapi.EntityInterfaceBridge) }

func TestAReceiverBehindAMediaController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bay()
		sub := b.node("tc358743")
		c := b.camera(t)
		if got := c.ID() + " " + c.Name() + " " + c.Path(); got != "v4l2:platform:1f00110000.csi rp1-cfe, tc358743 10-000f /dev/video0" {
			t.Errorf("found %s", got)
		}
		s, err := c.Open(t.Context(), hw.Mode{})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Mode().String(); got != "1280x720 60 fps UYVY" || sub.Receivers[0].EDIDWrites != 1 {
			t.Errorf("granted %s, the EDID was written %d times", got, sub.Receivers[0].EDIDWrites)
		}
		want := []string{
			"tc358743 10-000f:0 csi2:0", "csi2:4 rp1-cfe-csi2-ch0:0",
			// Those that are in nobody's way stay.
			"pisp-fe:2 rp1-cfe-fe-image0:0", "rp1-cfe-fe-config:0 pisp-fe:1",
		}
		if diff := cmp.Diff(want, b.enabled()); diff != "" {
			t.Error(diff)
		}
		read(t, s).Release()
		got := ended(s)
		b.k.Change(sub, 0, func(r *fakevb2.Receiver) { r.Signal = fakevb2.NoSignal })
		if err := <-got; !errors.Is(err, hw.ErrNoSignal) {
			t.Errorf("got %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		back := make(chan error)
		go func() { back <- c.AwaitSignal(t.Context()) }()
		synctest.Wait()
		b.k.Change(sub, 0, func(r *fakevb2.Receiver) { r.Signal = fakevb2.Good })
		if err := <-back; err != nil {
			t.Error(err)
		}
		nothingLeft(t, b.k)
	})
}

func TestAnotherPictureIsLedThroughThePadsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bay()
		sub := b.node("tc358743")
		c := b.camera(t)
		for _, size := range [][2]int{{1280, 720}, {1920, 1080}, {640, 480}} {
			s, err := c.Open(t.Context(), hw.Mode{Pixel: hw.UYVY})
			if err != nil {
				t.Fatal(err)
			}
			if m := s.Mode(); m.Width != size[0] || m.Height != size[1] {
				t.Errorf("granted %s, want %v", m, size)
			}
			read(t, s).Release()
			got := ended(s)
			next := fakevb2.Timings(1920, 1080, 30)
			if size[0] == 1920 {
				next = fakevb2.Timings(640, 480, 60)
			}
			b.k.Change(sub, 0, func(r *fakevb2.Receiver) { r.Timings = next })
			if err := <-got; !errors.Is(err, hw.ErrNoSignal) {
				t.Errorf("got %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := c.AwaitSignal(t.Context()); err != nil {
				t.Error(err)
			}
		}
		nothingLeft(t, b.k)
	})
}

// A wish for another size than what comes in cannot be met behind a bridge: it
// has no scaler.
func TestTheSourceDictatesTheSize(t *testing.T) {
	b := bay()
	b.node("tc358743").Receivers[0].EDID = v4l2.NewEDID(v4l2.EDIDOptions{})
	s, err := b.camera(t).Open(t.Context(), hw.Mode{Width: 640, Height: 360, FPS: hw.Rate{Num: 30, Den: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Mode().String(); got != "1280x720 60 fps UYVY" {
		t.Errorf("granted %s", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, b.k)
}

func TestModesBehindAMediaController(t *testing.T) {
	b := bay()
	c := b.camera(t)
	s, err := c.Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	before := b.enabled()
	for range 2 { // while it runs, and after
		modes, err := c.Modes()
		if want := []hw.Mode{{Pixel: hw.UYVY, Width: 1280, Height: 720, FPS: hw.Rate{Num: 60, Den: 1}}}; err != nil || !slices.Equal(modes, want) {
			t.Errorf("%v, %v", modes, err)
		}
		if s != nil {
			read(t, s).Release()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			s = nil
		}
	}
	if diff := cmp.Diff(before, b.enabled()); diff != "" {
		t.Error(diff)
	}
	nothingLeft(t, b.k)
}

// ov5640 is a sensor that makes colours by itself.
func ov5640() *fakevb2.Node {
	sizes := []fakevb2.Size{{Width: 640, Height: 480}, {Width: 1280, Height: 720}}
	return subdev(2, "ov5640", fakevb2.Pad{Codes: []uint32{uapi.BusSBGGR8, uapi.BusYUYV8}, Sizes: sizes, Intervals: rates(30, 15), Colorspace: srgb})
}

func TestASensorWithItsOwnProcessor(t *testing.T) {
	b := pi5(ov5640(), "ov5640 10-003c", uapi.EntityCameraSensor)
	c := b.camera(t)
	tests := []struct {
		want    hw.Mode
		granted string
	}{
		{hw.Mode{}, "1280x720 30 fps YUYV"},
		{hw.Mode{Width: 640, Height: 480, FPS: hw.Rate{Num: 15, Den: 1}}, "640x480 15 fps YUYV"},
	}
	for _, tt := range tests {
		s, err := c.Open(t.Context(), tt.want)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Mode().String(); got != tt.granted {
			t.Errorf("granted %s, want %s", got, tt.granted)
		}
		read(t, s).Release()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := c.AwaitSignal(t.Context()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, b.k)
}

func TestWhatIsNoCameraBehindAMediaController(t *testing.T) {
	raw := func() *fakevb2.Node { return subdev(2, "imx219", fakevb2.Pad{Codes: []uint32{uapi.BusSRGGB10}}) }
	tests := []struct {
		name  string
		rig   func() rig
		words []string // of the error; none for no error
	}{
		{"a sensor that sends raw pictures", func() rig {
			return pi5(raw(), "imx219 10-0010", uapi.EntityCameraSensor)
		}, []string{`"imx219 10-0010"`, "raw Bayer", "docs/external-devices.md"}},
		{"a sensor of one code, which it does not list", func() rig {
			n := raw()
			n.Refuse = map[string]unix.Errno{"enum_mbus_code": unix.EINVAL}
			return pi5(n, "imx219 10-0010", uapi.EntityCameraSensor)
		}, []string{"raw Bayer"}},
		{"a code that no node writes", func() rig {
			return pi5(subdev(2, "thermal", fakevb2.Pad{Codes: []uint32{uapi.BusRGB888}}), "thermal", uapi.EntityCameraSensor)
		}, []string{"thermal → csi2 → rp1-cfe-csi2-ch0", "no format"}},
		{"nothing at the socket", func() rig {
			b := bay()
			b.m.Links = b.m.Links[1:]
			return newRig(b.m)
		}, nil},
		{"no media device to be seen", func() rig {
			b := bay()
			delete(b.files, "sys/bus/media/devices/media0/dev")
			return b
		}, []string{"/dev/video0", "no media device"}},
		{"a media device that may not be opened", func() rig {
			b := bay()
			b.k.Do(func() { mediaNode(b).Locked = true })
			return b
		}, []string{"/dev/media0", "group"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.rig()
			cameras, err := finder(b.k, b.files).Cameras()
			if len(cameras) != 0 || (err == nil) != (len(tt.words) == 0) {
				t.Fatalf("%d cameras, %v", len(cameras), err)
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v does not say %q", err, w)
				}
			}
			nothingLeft(t, b.k)
		})
	}
}

func TestASensorThatAProgramLeadsIsNoError(t *testing.T) {
	raw := func() *fakevb2.Node { return subdev(2, "imx219", fakevb2.Pad{Codes: []uint32{uapi.BusSRGGB10}}) }
	thermal := func() *fakevb2.Node {
		return subdev(2, "thermal", fakevb2.Pad{Codes: []uint32{uapi.BusRGB888}})
	}
	tests := []struct {
		name   string
		sensor *fakevb2.Node
		led    bool
		asked  string
		told   bool // in the error
	}{
		{"a program leads it", raw(), true, "[eye]", false},
		{"none does", raw(), false, "[eye]", true},
		{"it is not raw, but of no use", thermal(), true, "[]", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := pi5(tt.sensor, "eye", uapi.EntityCameraSensor)
			f := finder(b.k, b.files)
			var asked []string
			f.Led = func(sensor string) bool { asked = append(asked, sensor); return tt.led }
			cameras, err := f.Cameras()
			if len(cameras) != 0 || (err != nil) != tt.told || fmt.Sprint(asked) != tt.asked {
				t.Errorf("%d cameras, %v, asked of %v", len(cameras), err, asked)
			}
			nothingLeft(t, b.k)
		})
	}
}

// Some drivers let nobody try while they run: a camera in use must not vanish.
func TestACameraInUseIsStillListed(t *testing.T) {
	b := bay()
	before := b.camera(t)
	b.k.Do(func() { b.node("csi2").Refuse = map[string]unix.Errno{"subdev_s_fmt": unix.EBUSY} })
	if c := b.camera(t); c.ID() != before.ID() {
		t.Errorf("now it is %s", c.ID())
	}
	nothingLeft(t, b.k)
}

// mediaNode returns the node of the media device itself.
func mediaNode(b rig) *fakevb2.Node { return b.k.Node("/dev/media0") }

func TestAPathThatIsTaken(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(rig)
		want  error
		words string
	}{
		{
			"a link that runs for somebody else", func(b rig) { mediaNode(b).Refuse = map[string]unix.Errno{"setup_link": unix.EBUSY} },
			hw.ErrBusy, `link "csi2":4 -> "pisp-fe":0 of /dev/media0: another program uses it`,
		},
		{"a pad that runs for somebody else", func(b rig) { b.node("csi2").Refuse = map[string]unix.Errno{"subdev_s_fmt": unix.EBUSY} }, hw.ErrBusy, "another program uses it"},
		{"a pipeline that is started by somebody else", func(b rig) { b.node("rp1-cfe-csi2-ch0").Refuse = map[string]unix.Errno{"streamon": unix.EBUSY} }, hw.ErrBusy, "another program uses it"},
		{"pads that do not agree at the start", func(b rig) { b.node("rp1-cfe-csi2-ch0").Refuse = map[string]unix.Errno{"streamon": unix.EPIPE} }, unix.EPIPE, "tc358743 10-000f → csi2 → rp1-cfe-csi2-ch0 do not agree"},
		{"hardware that has changed", func(b rig) { b.m.Entities[0].Name = "csi3" }, hw.ErrGone, "the hardware has changed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bay()
			b.node("tc358743").Receivers[0].EDID = v4l2.NewEDID(v4l2.EDIDOptions{})
			c := b.camera(t)
			b.k.Do(func() { tt.spoil(b) })
			_, err := c.Open(t.Context(), hw.Mode{})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v", err)
			}
			nothingLeft(t, b.k)
		})
	}
}

// The kernel's own rules, by the model: a second program on the same source.
func TestASecondReaderOfTheSameSourceIsTold(t *testing.T) {
	b := bay()
	c := b.camera(t)
	s, err := c.Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), hw.Mode{}); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("got %v", err)
	}
	read(t, s).Release()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, b.k)
}

func TestATopologyThatGrowsIsReadAgain(t *testing.T) {
	b := bay()
	b.m.Growing = true
	b.camera(t)
	nothingLeft(t, b.k)
}

func TestUnpluggedBehindAMediaController(t *testing.T) {
	b := bay()
	c := b.camera(t)
	s, err := c.Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	read(t, s).Release()
	got := ended(s)
	b.k.Unplug()
	if err := <-got; !errors.Is(err, hw.ErrGone) {
		t.Errorf("got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if cameras, err := finder(b.k, b.files).Cameras(); len(cameras) != 0 || err != nil {
		t.Errorf("%d cameras, %v", len(cameras), err)
	}
	b.k.Replug()
	s, err = b.camera(t).Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	read(t, s).Release()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, b.k)
}

func TestNothingOfAMediaControllerLeaks(t *testing.T) {
	life := func(b rig) error {
		cameras, err := finder(b.k, b.files).Cameras()
		if err != nil || len(cameras) == 0 {
			return err
		}
		_, err = cameras[0].Modes()
		s, err2 := cameras[0].Open(context.Background(), hw.Mode{})
		if err2 != nil {
			return errors.Join(err, err2)
		}
		f, err3 := s.Read(context.Background())
		if err3 == nil {
			f.Release()
		}
		return errors.Join(err, err3, s.Close())
	}
	run := func(at int, spoil func(*fakevb2.Kernel)) (calls []string) {
		synctest.Test(t, func(t *testing.T) {
			b := bay()
			b.node("tc358743").Receivers[0].Timings = fakevb2.Timings(64, 48, 60)
			if at > 0 {
				spoil(b.k)
			}
			err := life(b)
			if calls = b.k.Calls(); at == 0 && err != nil {
				t.Error(err)
			}
			if d, m := b.k.Left(); d != 0 || m != 0 {
				t.Errorf("call %d (%s): %d descriptors, %d mappings left (%v)", at, calls[max(at-1, 0)], d, m, err)
			}
		})
		return calls
	}
	calls := run(0, nil)
	for i, name := range calls {
		if name == "notify" { // fails only with a full counter, which ends waits all the same
			continue
		}
		for _, errno := range []unix.Errno{unix.EIO, unix.EBUSY, unix.EINVAL, unix.ENOTTY, unix.ENOSPC, unix.ENODEV} {
			run(i+1, func(k *fakevb2.Kernel) { k.FailAt, k.FailWith = i+1, errno })
		}
		run(i+1, func(k *fakevb2.Kernel) { k.UnplugAt = i + 1 })
	}
	t.Logf("%d calls, each failed in seven ways", len(calls))
}

// virtual is the kernel's vimc: two sources that share a scaler, one of them by
// way of a debayer, with a node for raw pictures that cannot be cut off.
func virtual() rig {
	colours := []uint32{uapi.BusBGR888, uapi.BusRGB888}
	all := append(slices.Clone(colours), uapi.BusSBGGR8)
	node := func(number int) *fakevb2.Node {
		n := dma(number)
		n.Driver, n.Card, n.BusInfo = "vimc", "vimc", "platform:vimc"
		n.Writes = []fakevb2.BusPixel{{Code: uapi.BusBGR888, Pixel: code("BGR3")}, {Code: uapi.BusRGB888, Pixel: code("RGB3")}, {Code: uapi.BusSBGGR8, Pixel: code("BA81")}}
		for _, w := range n.Writes {
			n.Formats = append(n.Formats, fakevb2.Format{Code: w.Pixel, BytesPerPixel: 3, Range: true, Sizes: []fakevb2.Size{{Width: 4096, Height: 4096}}})
		}
		return n
	}
	sizes := []fakevb2.Size{{Width: 640, Height: 480}, {Width: 320, Height: 240}}
	m := &fakevb2.Media{
		Entities: []fakevb2.Entity{
			{Name: "Sensor A", Function: uapi.EntityCameraSensor, Node: subdev(0, "vimc", fakevb2.Pad{Codes: all, Sizes: sizes, Colorspace: srgb})},
			{Name: "Debayer A", Function: uapi.EntityColourConverter, Node: subdev(1, "vimc",
				fakevb2.Pad{Sink: true, Codes: all[2:]}, fakevb2.Pad{Codes: all[1:2], Own: true})},
			{Name: "Raw Capture 0", Function: uapi.EntityIOV4L, Node: node(0)},
			{Name: "RGB/YUV Input", Function: uapi.EntityCameraSensor, Node: subdev(2, "vimc", fakevb2.Pad{Codes: all, Sizes: sizes, Colorspace: srgb})},
			{Name: "Scaler", Function: uapi.EntityScaler, Node: subdev(3, "vimc", fakevb2.Pad{Sink: true, Codes: colours, Strict: true}, fakevb2.Pad{})},
			{Name: "RGB/YUV Capture", Function: uapi.EntityIOV4L, Node: node(1)},
		},
		Links: []fakevb2.Link{
			{From: 0, To: 1, Flags: fixed},
			{From: 0, To: 2, Flags: fixed},
			{From: 1, FromPad: 1, To: 4, Flags: onOff},
			{From: 3, To: 4},
			{From: 4, FromPad: 1, To: 5, Flags: fixed},
		},
	}
	return newRig(m)
}

func TestSourcesThatShareANode(t *testing.T) {
	b := virtual()
	cameras := b.cameras(t)
	var ids []string
	for _, c := range cameras {
		ids = append(ids, c.ID())
	}
	if want := []string{"v4l2:platform:vimc:1#Sensor-A", "v4l2:platform:vimc:1#RGB-YUV-Input"}; !slices.Equal(ids, want) {
		t.Fatalf("found %v", ids)
	}
	for _, step := range []struct {
		camera  int
		granted string
		raw     string // what the node on the side is set to
		linked  string
	}{
		{0, "320x240 0 fps RGB3", "BA81 320x240", "Debayer A:1 Scaler:0"},
		{1, "320x240 0 fps RGB3", "BA81 320x240", "RGB/YUV Input:0 Scaler:0"},
		{0, "320x240 0 fps RGB3", "BA81 320x240", "Debayer A:1 Scaler:0"},
	} {
		s, err := cameras[step.camera].Open(t.Context(), hw.Mode{Width: 320, Height: 240})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Mode().String(); got != step.granted {
			t.Errorf("granted %s", got)
		}
		if !slices.Contains(b.enabled(), step.linked) {
			t.Errorf("linked are %v", b.enabled())
		}
		b.k.Do(func() {
			p := b.node("Raw Capture 0").Format().Pix()
			if got := fmt.Sprintf("%s %dx%d", hw.PixelFormat(p.PixelFormat), p.Width, p.Height); got != step.raw {
				t.Errorf("the node on the side is at %s", got)
			}
		})
		read(t, s).Release()
		if _, err := cameras[1-step.camera].Open(t.Context(), hw.Mode{}); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("the other source gets %v", err)
		}
		read(t, s).Release()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	nothingLeft(t, b.k)
}

// The model starts no more than a kernel does: see the same on vimc in the board
// tests.
func TestAnUnpreparedPathDoesNotStart(t *testing.T) {
	b := bay()
	b.node("tc358743").Receivers[0].EDID = v4l2.NewEDID(v4l2.EDIDOptions{})
	running, err := b.camera(t).Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	if err := running.Close(); err != nil {
		t.Error(err)
	}
	tests := []struct {
		name  string
		node  string
		width int
		want  error
	}{
		{"as the camera left it", "ch0", 1280, nil},
		{"the node at another size", "ch0", 640, unix.EPIPE},
		{"without a link", "ch1", 1280, unix.ENOLINK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openDevice(t, b.k, b.node("rp1-cfe-csi2-"+tt.node).Path)
			f := setFormat(t, d, uapi.BufTypeVideoCapture, code("UYVY"), tt.width, 720)
			f.Pix().Priv, f.Pix().Colorspace = 0xfeedcafe, smpte170m
			if err := v4l2.Ioctl(d, "set the colours of", uapi.SetFmt, f); err != nil {
				t.Fatal(err)
			}
			q, err := v4l2.NewQueue(d, uapi.BufTypeVideoCapture, 3, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := q.StreamOn(); !errors.Is(err, tt.want) {
				t.Errorf("got %v", err)
			}
			if err := errors.Join(q.StreamOff(), q.Discard(), d.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	nothingLeft(t, b.k)
}
