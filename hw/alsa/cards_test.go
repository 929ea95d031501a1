package alsa

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"encoderd.example/hw"
)

// box builds proc and sys as kernels show them. Each card is
// "ID|name|folders in proc|usbid|device link"; its number is its place.
func box(t *testing.T, cards ...string) (root string) {
	t.Helper()
	root = t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var list strings.Builder
	must(os.MkdirAll(filepath.Join(root, "proc/asound"), 0o755))
	for i, c := range cards {
		f := strings.Split(c, "|")
		fmt.Fprintf(&list, "%2d [%-15s]: USB-Audio - %s\n                      %s at somewhere, high speed\n", i, f[0], f[1], f[1])
		proc := filepath.Join(root, "proc/asound", fmt.Sprint("card", i))
		for pcm := range strings.FieldsSeq(f[2]) {
			must(os.MkdirAll(filepath.Join(proc, pcm), 0o755))
		}
		sys := filepath.Join(root, "sys/class/sound", fmt.Sprint("card", i))
		must(os.MkdirAll(sys, 0o755))
		if f[3] != "" {
			must(os.WriteFile(filepath.Join(proc, "usbid"), []byte(f[3]+"\n"), 0o600))
		}
		if f[4] != "" {
			must(os.Symlink(f[4], filepath.Join(sys, "device")))
		}
	}
	must(os.WriteFile(filepath.Join(root, "proc/asound/cards"), []byte(list.String()), 0o600))
	return root
}

const (
	hdmi    = "vc4hdmi0|vc4-hdmi-0|pcm0p/sub0||../../../fef00700.hdmi"
	camera  = "C920|HD Pro Webcam C920|pcm0c/sub0|046d:082d|../../../1-1.4:1.2"
	dongle  = "Device|USB Audio Device|pcm0p/sub0 pcm0c/sub0|0d8c:0014|../../../1-1.2:1.0"
	dongle2 = "Device_1|USB Audio Device|pcm0p/sub0 pcm0c/sub0|0d8c:0014|../../../1-1.3:1.0"
	aloop   = "Loopback|Loopback|pcm0p/sub0 pcm0c/sub0 pcm1p/sub0 pcm1c/sub0 pcm1c/sub1||../../../snd_aloop.0"
)

func TestDiscover(t *testing.T) {
	tests := []struct {
		name  string
		cards []string
		want  []string // ID = name = PCM node
	}{
		{"no card", nil, nil},
		{"an HDMI output is left out", []string{hdmi, camera}, []string{"alsa:C920 = HD Pro Webcam C920 = 1,0"}},
		{"a loopback gives its first device", []string{aloop}, []string{"alsa:Loopback = Loopback = 0,0"}},
		{"twins are told apart by their port", []string{dongle, camera, dongle2}, []string{
			"alsa:Device@1-1.2 = USB Audio Device (USB port 1-1.2) = 0,0",
			"alsa:C920 = HD Pro Webcam C920 = 1,0",
			"alsa:Device@1-1.3 = USB Audio Device (USB port 1-1.3) = 2,0",
		}},
		{"capture on a later device", []string{"tc358743|tc358743|pcm0p/sub0 pcm2c/sub0||../../../soc:sound"}, []string{"alsa:tc358743 = tc358743 = 0,2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mics, err := Discover(box(t, tt.cards...))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range mics {
				c := m.(*Card)
				got = append(got, fmt.Sprintf("%s = %s = %d,%d", c.ID(), c.Name(), c.number, c.device))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAKernelWithoutSoundHasNoCards(t *testing.T) {
	if mics, err := Discover(t.TempDir()); len(mics) != 0 || err != nil {
		t.Errorf("got %v, %v", mics, err)
	}
}

func TestFind(t *testing.T) {
	twins := []string{dongle, dongle2, aloop, hdmi}
	tests := []struct {
		name  string
		cards []string
		id    string
		want  string // card,device,sub
		err   error
	}{
		{"by its own ID", twins, "alsa:Loopback", "2,0,-1", nil},
		{"with a device", twins, "alsa:Loopback,1", "2,1,-1", nil},
		{"with a subdevice", twins, "alsa:Loopback,1,1", "2,1,1", nil},
		{"a twin by its port", twins, "alsa:Device@1-1.3", "1,0,-1", nil},
		{"the other twin by its port", twins, "alsa:Device@1-1.2", "0,0,-1", nil},
		{"a twin whose twin is out", []string{dongle}, "alsa:Device@1-1.2", "0,0,-1", nil},
		{"a twin that came in as the second", []string{camera, dongle2}, "alsa:Device@1-1.3", "1,0,-1", nil},
		{"another card in the twin's port", []string{camera}, "alsa:Device@1-1.4", "", hw.ErrGone},
		{"not plugged in", twins, "alsa:C920", "", hw.ErrGone},
		{"plays only", twins, "alsa:vc4hdmi0", "", hw.ErrUnsupported},
		{"no such device", twins, "alsa:Loopback,4", "", hw.ErrUnsupported},
		{"no such subdevice", twins, "alsa:Loopback,1,9", "", hw.ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Find(box(t, tt.cards...), tt.id)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			c := m.(*Card)
			if got := fmt.Sprintf("%d,%d,%d", c.number, c.device, c.sub); got != tt.want || c.ID() != tt.id {
				t.Errorf("got %s as %s, want %s", got, c.ID(), tt.want)
			}
		})
	}
}

func TestEveryDiscoveredIDIsFound(t *testing.T) {
	root := box(t, dongle, camera, dongle2, aloop, hdmi)
	mics, err := Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mics {
		if again, err := Find(root, m.ID()); err != nil || *again.(*Card) != *m.(*Card) {
			t.Errorf("%s: got %+v, %v; want %+v", m.ID(), again, err, m)
		}
	}
}

func TestPartsOfOneUSBDeviceHaveItAsTheirParent(t *testing.T) {
	root := box(t, camera, aloop, hdmi, dongle)
	for place, card := range map[string]string{
		"sys/devices/usb1/1-1/1-1.4/1-1.4:1.2": "card0", "sys/devices/platform/snd_aloop.0": "card1", "sys/devices/soc/fef00700.hdmi": "card2",
	} {
		folder, link := filepath.Join(root, place), filepath.Join(root, "sys/class/sound", card, "device")
		if err := errors.Join(os.MkdirAll(folder, 0o755), os.Remove(link), os.Symlink(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ name, id, want string }{
		{"the microphone of a camera", "alsa:C920", filepath.Join(root, "sys/devices/usb1/1-1/1-1.4")},
		{"not on USB", "alsa:Loopback", ""},
		{"gone meanwhile", "alsa:Device", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mic, err := Find(root, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			if got := mic.(hw.Attached).Parent(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzParseID(f *testing.F) {
	for _, id := range []string{"alsa:Loopback,1,0", "alsa:Device@1-1.2", "alsa:C920", "alsa:", "alsa:a,b", "hw:0", "alsa:x@y,99999,0", "alsa:../x"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		a, err := parseID(id)
		if err != nil {
			return
		}
		if a.card == "" || strings.ContainsAny(a.card+a.port, "/, \n") || a.device < -1 || a.device > 9999 || a.sub < -1 || a.sub > 9999 {
			t.Errorf("%q gives %+v", id, a)
		}
	})
}

func FuzzParseCards(f *testing.F) {
	f.Add(" 0 [C920           ]: USB-Audio - HD Pro Webcam C920\n                      at usb-1.4\n")
	f.Add("--- no soundcards ---\n")
	f.Add(" 1 [Device_1       ]: USB-Audio - USB Audio - Device\n 2 [x]: y")
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range parseCards(text) {
			if c.kernelID == "" || strings.Contains(c.kernelID, "/") || c.number < 0 || c.number > 9999 {
				t.Errorf("%+v", c)
			}
		}
	})
}
