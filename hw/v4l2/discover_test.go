package v4l2_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

// A row is one video node of a fixture.
type row struct {
	device string // its parent in sysfs
	index  int
	link   string // by-path
	bus    string
	caps   uint32
	adapt  func(*fakevb2.Node)
	fresh  bool // udev has not finished
	title  string
}

const (
	usb    = "pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0"
	webBus = "usb-0000:00:14.0-1"
	camCap = uapi.CapVideoCapture | uapi.CapStreaming
)

// box builds sysfs, /dev and the kernel for the nodes video0, video1 …, and
// video10 for the one after the first ten.
func box(udev bool, rows ...row) (*fakevb2.Kernel, fstest.MapFS) {
	files := fstest.MapFS{}
	link := func(name, target string) { files[name] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(target)} }
	file := func(name, text string) { files[name] = &fstest.MapFile{Data: []byte(text)} }
	var nodes []*fakevb2.Node
	for i, r := range rows {
		name := fmt.Sprintf("video%d", i)
		dir := "sys/devices/" + r.device + "/video4linux/" + name
		file(dir+"/index", fmt.Sprintln(r.index))
		file(dir+"/dev", fmt.Sprintf("81:%d\n", i))
		file(dir+"/name", r.title)
		link("sys/class/video4linux/"+name, "../../devices/"+r.device+"/video4linux/"+name)
		if r.link != "" {
			link("dev/v4l/by-path/"+r.link, "../../"+name)
		}
		if udev && !r.fresh {
			file(fmt.Sprintf("run/udev/data/c81:%d", i), "")
		}
		n := webcam()
		n.Path, n.BusInfo, n.Caps = "/dev/"+name, r.bus, r.caps
		if r.adapt != nil {
			r.adapt(n)
		}
		nodes = append(nodes, n)
	}
	if udev {
		file("run/udev/control", "")
	}
	return fakevb2.New(nodes...), files
}

func TestCamerasAreFoundAndNamed(t *testing.T) {
	locked := func(n *fakevb2.Node) { n.Locked = true }
	bayer := func(n *fakevb2.Node) { n.Formats = n.Formats[2:] }
	many := make([]row, 11)
	for i := range many {
		many[i] = row{device: fmt.Sprint("platform/csi", i), bus: fmt.Sprint("platform:csi", i), caps: camCap}
	}
	tests := []struct {
		name  string
		udev  bool
		rows  []row
		want  []string
		trial string // an error that holds these words
	}{
		{"a webcam with its metadata node", true, []row{
			{device: usb, link: "pci-usb-video-index0", bus: webBus, caps: camCap},
			{device: usb, index: 1, link: "pci-usb-video-index1", bus: webBus, caps: uapi.CapMetaCapture | uapi.CapStreaming},
		}, []string{"v4l2:/dev/v4l/by-path/pci-usb-video-index0"}, ""},
		{"no udev: the place on the bus, and the number there", false, []row{
			{device: usb, bus: webBus, caps: camCap},
			{device: usb, index: 2, bus: webBus, caps: camCap},
		}, []string{"v4l2:" + webBus, "v4l2:" + webBus + ":2"}, ""},
		{"two that share a link are named by the bus, wherever it points", true, []row{
			{device: "platform/vivid.0", bus: "platform:vivid-000", caps: camCap},
			{device: "platform/vivid.0", link: "platform-vivid.0-video-index0", bus: "platform:vivid-001", caps: camCap},
		}, []string{"v4l2:platform:vivid-000", "v4l2:platform:vivid-001"}, ""},
		{"two that claim the same place are told apart by what their driver calls them", true, []row{
			{device: "platform/a", bus: "platform:isp", caps: camCap, title: "isp-main"},
			{device: "platform/b", bus: "platform:isp", caps: camCap, title: "isp-self"},
			{device: "platform/c", bus: "platform:isp", caps: camCap},
			{device: "platform/d", bus: "platform:isp", caps: camCap, title: "isp-self"},
		}, []string{"v4l2:platform:isp", "v4l2:platform:isp@isp-self", "v4l2:platform:isp@video2", "v4l2:platform:isp@video3"}, ""},
		{"encoders, outputs and what cannot stream are no cameras", true, []row{
			{device: "a", bus: "a", caps: uapi.CapVideoM2M | uapi.CapStreaming},
			{device: "b", bus: "b", caps: uapi.CapVideoM2MMplane | uapi.CapStreaming},
			{device: "c", bus: "c", caps: 2 | uapi.CapStreaming},
			{device: "d", bus: "d", caps: uapi.CapVideoCapture},
		}, nil, ""},
		{"a sensor without a usable format is no camera", true, []row{{device: "a", bus: "a", caps: camCap, adapt: bayer}}, nil, ""},
		{"one that may not be opened does not hide the others", true, []row{
			{device: "a", bus: "a", caps: camCap, adapt: locked},
			{device: "b", bus: "b", caps: camCap},
		}, []string{"v4l2:b"}, "group"},
		{"one that udev has not finished with waits for its name", true, []row{
			{device: usb, bus: webBus, caps: camCap, fresh: true},
			{device: "b", bus: "b", caps: camCap},
		}, []string{"v4l2:b"}, "try again"},
		{"video2 comes before video10", false, many, []string{
			"v4l2:platform:csi0", "v4l2:platform:csi1", "v4l2:platform:csi2", "v4l2:platform:csi3", "v4l2:platform:csi4", "v4l2:platform:csi5",
			"v4l2:platform:csi6", "v4l2:platform:csi7", "v4l2:platform:csi8", "v4l2:platform:csi9", "v4l2:platform:csi10",
		}, ""},
		{"no video driver at all", true, nil, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, files := box(tt.udev, tt.rows...)
			cameras, err := finder(k, files).Cameras()
			if (err != nil) != (tt.trial != "") || err != nil && !strings.Contains(err.Error(), tt.trial) {
				t.Errorf("got %v", err)
			}
			var ids []string
			for _, c := range cameras {
				ids = append(ids, c.ID())
				if c.Name() != "Test Cam: Test Cam" {
					t.Errorf("named %q", c.Name())
				}
			}
			if diff := cmp.Diff(tt.want, ids); diff != "" {
				t.Error(diff)
			}
			nothingLeft(t, k)
		})
	}
}

// A camera and its microphone are interfaces of one USB device: both have its
// folder as their parent.
func TestPartsOfOneUSBDeviceHaveItAsTheirParent(t *testing.T) {
	const hub = "platform/soc/3f980000.usb/usb1/1-1/1-1.4"
	k, files := box(true,
		row{device: hub + "/1-1.4:1.0", bus: "usb-3f980000.usb-1.4", caps: camCap},
		row{device: "platform/soc/fe801000.csi", bus: "platform:fe801000.csi", caps: camCap},
		row{device: "platform/soc/3f980000.usb/usb1/1-1/1-1.3/1-1.3:1.0", bus: "usb-3f980000.usb-1.3", caps: camCap, adapt: func(n *fakevb2.Node) { n.Inputs = 2 }},
	)
	root := t.TempDir()
	if err := os.CopyFS(root, files); err != nil {
		t.Fatal(err)
	}
	// The microphone's parent, as ALSA's cards are followed to it.
	mic := filepath.Join(root, "sys/devices", hub, "1-1.4:1.2")
	card := filepath.Join(mic, "sound/card0")
	if err := errors.Join(os.MkdirAll(card, 0o755), os.Symlink("../../../1-1.4:1.2", filepath.Join(card, "device"))); err != nil {
		t.Fatal(err)
	}
	part, err := filepath.EvalSymlinks(filepath.Join(card, "device"))
	if err != nil {
		t.Fatal(err)
	}
	f := finder(k, nil)
	f.Root = os.DirFS(root)
	cameras, err := f.Cameras()
	if err != nil {
		t.Fatal(err)
	}
	other := "/sys/devices/platform/soc/3f980000.usb/usb1/1-1/1-1.3"
	want := []string{strings.TrimPrefix(filepath.Dir(part), root), "", other, other, other}
	var got []string
	for _, c := range cameras {
		got = append(got, c.(hw.Attached).Parent())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestANodeThatVanishesWhileListingIsNoError(t *testing.T) {
	k, files := box(false, row{device: "a", bus: "a", caps: camCap})
	k.Unplug()
	cameras, err := finder(k, files).Cameras()
	if len(cameras) != 0 || err != nil {
		t.Errorf("%d cameras, %v", len(cameras), err)
	}
}

// brokenFS fails where a disk error would.
type brokenFS struct{ fs.FS }

var errDisk = errors.New("disk error")

func (brokenFS) Open(string) (fs.File, error) { return nil, errDisk }

func TestAnUnreadableSysfsIsAnError(t *testing.T) {
	f := finder(fakevb2.New(), nil)
	f.Root = brokenFS{}
	if _, err := f.Cameras(); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
}

func TestAnotherNodeOfTheSameNameIsTold(t *testing.T) {
	dir := t.TempDir()
	class := filepath.Join(dir, "sys/class/video4linux")
	plug := func() uint64 {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(class, "video0"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, "video0/dev"), []byte("81:0\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return v4l2.Instance(os.DirFS(dir), "video0")
	}
	first := plug()
	if first == 0 || first != v4l2.Instance(os.DirFS(dir), "video0") {
		t.Errorf("the first is %d, then %d", first, v4l2.Instance(os.DirFS(dir), "video0"))
	}
	if err := os.Rename(filepath.Join(class, "video0"), filepath.Join(dir, "gone")); err != nil { // so that its number is in use
		t.Fatal(err)
	}
	if n := v4l2.Instance(os.DirFS(dir), "video0"); n != 0 {
		t.Errorf("one that is not there is %d", n)
	}
	if second := plug(); second == 0 || second == first {
		t.Errorf("the second is %d, the first was %d", second, first)
	}
}

// since gives the nodes of sysfs a number, by which they are told from those
// that come after them.
func since(files fstest.MapFS, number uint64) {
	for name, f := range files {
		if strings.HasSuffix(name, "/dev") {
			f.Sys = &syscall.Stat_t{Ino: number}
		}
	}
}

// look lists cameras and says how often that opened each of five nodes.
func look(t *testing.T, k *fakevb2.Kernel, f v4l2.Finder) (ids []string, opened []int) {
	t.Helper()
	count := func() (list []int) {
		k.Do(func() {
			for i := range 5 {
				list = append(list, k.Node(fmt.Sprintf("/dev/video%d", i)).Openings())
			}
		})
		return list
	}
	before := count()
	cameras, err := f.Cameras()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cameras {
		ids = append(ids, c.ID())
	}
	for i, n := range count() {
		opened = append(opened, n-before[i])
	}
	return ids, opened
}

func TestNodesThatAreKnownAreNotOpenedAgain(t *testing.T) {
	twoInputs := func(n *fakevb2.Node) { n.Inputs = 2 }
	bayer := func(n *fakevb2.Node) { n.Formats = n.Formats[2:] }
	k, files := box(true,
		row{device: usb, link: "pci-usb-video-index0", bus: webBus, caps: camCap},
		row{device: "codec", bus: "codec", caps: uapi.CapVideoM2M | uapi.CapStreaming},
		row{device: "b", bus: "twin", caps: camCap, title: "b", adapt: twoInputs},
		row{device: "c", bus: "twin", caps: camCap, title: "c"},
		row{device: "raw", bus: "raw", caps: camCap, adapt: bayer},
	)
	since(files, 7)
	f := finder(k, files)
	f.Known = &v4l2.Known{}
	want := []string{"v4l2:/dev/v4l/by-path/pci-usb-video-index0", "v4l2:twin", "v4l2:twin#0", "v4l2:twin#1", "v4l2:twin@c"}
	for i, opened := range [][]int{{1, 1, 1, 1, 1}, {0, 0, 0, 0, 1}, {0, 0, 0, 0, 1}} { // what has no format may get one
		ids, n := look(t, k, f)
		if diff := cmp.Diff(want, ids) + cmp.Diff(opened, n); diff != "" {
			t.Errorf("look %d: %s", i, diff)
		}
	}

	files["sys/devices/"+usb+"/video4linux/video0/dev"].Sys = &syscall.Stat_t{Ino: 8} // plugged in anew
	delete(files, "dev/v4l/by-path/pci-usb-video-index0")
	ids, n := look(t, k, f)
	if diff := cmp.Diff("v4l2:"+webBus, ids[0]) + cmp.Diff([]int{1, 0, 0, 0, 1}, n); diff != "" {
		t.Errorf("plugged in anew: %s", diff)
	}
	files["dev/v4l/by-path/later"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../../video0")}
	if ids, _ := look(t, k, f); ids[0] != "v4l2:/dev/v4l/by-path/later" {
		t.Errorf("with another link it is still %s", ids[0])
	}

	since(files, 0)
	if _, n := look(t, k, f); cmp.Diff([]int{1, 1, 1, 1, 1}, n) != "" {
		t.Errorf("where nobody can tell nodes from those before them they were opened %v times", n)
	}
	nothingLeft(t, k)
}

func TestACameraIsToldFromTheOneBeforeIt(t *testing.T) {
	k, files := box(false, row{device: "a", bus: "a", caps: camCap})
	for _, number := range []uint64{7, 8} {
		since(files, number)
		cameras, err := finder(k, files).Cameras()
		if err != nil || len(cameras) != 1 || cameras[0].(hw.Instanced).Instance() != number {
			t.Errorf("%v, %v; want one of %d", cameras, err, number)
		}
	}
}

// An encoder that hangs takes its node with it, and no camera.
func TestAnEncoderThatHangsHidesNoCameraThatIsPluggedIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, cam := codec(false), webcam()
		n.LocksOpen, cam.Path = true, "/dev/video3"
		k := fakevb2.New(n, cam)
		files := fstest.MapFS{"sys/class/video4linux/video2/dev": {Data: []byte("81:2\n"), Sys: &syscall.Stat_t{Ino: 7}}}
		f := finder(k, files)
		f.Known = &v4l2.Known{}
		b := bring(t, k, false, false, 1)
		if list, err := f.Cameras(); len(list) != 0 || err != nil {
			t.Errorf("%v, %v", list, err)
		}
		k.Do(func() { n.HangStreamOff = true })
		off, found := make(chan error, 1), make(chan []hw.Camera, 1)
		go func() { off <- b.out.StreamOff() }()
		synctest.Wait()
		files["sys/class/video4linux/video3/dev"] = &fstest.MapFile{Data: []byte("81:3\n"), Sys: &syscall.Stat_t{Ino: 8}}
		go func() {
			list, err := f.Cameras()
			if err != nil {
				t.Error(err)
			}
			found <- list
		}()
		synctest.Wait()
		if len(off) != 0 || len(found) != 1 {
			t.Errorf("%d encoders came back, %d searches", len(off), len(found))
		}
		k.Do(func() { n.HangStreamOff = false })
		if err := <-off; err != nil {
			t.Error(err)
		}
		if list := <-found; len(list) != 1 {
			t.Errorf("cameras %v", list)
		}
		b.end(t)
		nothingLeft(t, k)
	})
}
