// Package alsa captures sound from ALSA cards, by ioctl on the kernel's PCM
// nodes, without alsa-lib.
//
//	/proc/asound, /sys ─► Cards ─► Card.Open ─► Stream.Read
//
//	READI ─► bytes ─► pcm.Convert ─► pcm.Resampler ─► S16 stereo 48 kHz
//	STATUS_EXT ─► (stamp, avail) ─► dll ─────────────► stamp of the first frame
//
// A stream owns its two descriptors, the PCM node and an eventfd that wakes a
// waiting Read, and its buffers; Close gives them back. Samples are copied
// into the slice of the caller, so nothing of the card's memory is lent out.
package alsa

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"encoderd.example/hw"
)

// Prefix begins the ID of every card.
const Prefix = "alsa:"

// A Card is one capture device of a sound card that was plugged in when it was
// looked up. It is immutable.
type Card struct {
	id, name string
	number   int // of the card, until the next boot or replug
	device   int
	sub      int // -1 lets the kernel choose
	root     string
	sys      system
}

var (
	_ hw.Mic      = (*Card)(nil)
	_ hw.Attached = (*Card)(nil)
)

// ID is the stable name: "alsa:" and the kernel's ID of the card, and, where
// two cards of one make are in, "@" and the USB port of this one, such as
// "alsa:Device@1-1.2". A device other than the first follows after a comma.
func (c *Card) ID() string { return c.id }

// Name is for people.
func (c *Card) Name() string { return c.name }

// Parent implements hw.Attached: the folder of the USB device, such as
// "/sys/devices/platform/soc/3f980000.usb/usb1/1-1/1-1.4". Cards that are not on
// USB, or were unplugged since they were looked up, have none.
func (c *Card) Parent() string {
	link := filepath.Join(c.root, "sys/class/sound", "card"+strconv.Itoa(c.number), "device")
	part, err := filepath.EvalSymlinks(link)
	if err != nil || !usbInterface.MatchString(filepath.Base(part)) {
		return ""
	}
	return filepath.Dir(part)
}

// The folder of an interface of a USB device: port path, configuration and
// interface.
var usbInterface = regexp.MustCompile(`^\d+-[\d.]+:\d+\.\d+$`)

// Open starts capture. It fails with hw.ErrBusy if another program has the
// device, hw.ErrGone if it was unplugged, hw.ErrUnsupported if it cannot
// deliver any of the formats that the box reads.
func (c *Card) Open(_ context.Context) (hw.MicStream, error) {
	s, err := c.open()
	if err != nil {
		return nil, fmt.Errorf("open sound card %s: %w", c.id, err)
	}
	return s, nil
}

// Discover lists the cards that can capture, in the kernel's order, each with
// its first capture device. root is where proc, sys and dev lie, "/" on a box.
// Cards that only play, such as HDMI outputs, are left out. A kernel without
// sound has no cards; that is no error.
func Discover(root string) ([]hw.Mic, error) {
	found, err := survey(root)
	if err != nil {
		return nil, err
	}
	var mics []hw.Mic
	for _, f := range found {
		if len(f.captures) > 0 {
			mics = append(mics, f.card(root, f.id(), f.captures[0], -1))
		}
	}
	return mics, nil
}

// Find returns the card that id names: any ID that Discover gives, a card's
// own ID, or one with a device, or device and subdevice, such as
// "alsa:Loopback,1,0". The ID of a twin finds it also when its twin is out. It
// fails with hw.ErrGone if no such card is plugged in, and hw.ErrUnsupported if
// it cannot capture.
func Find(root, id string) (hw.Mic, error) {
	want, err := parseID(id)
	if err != nil {
		return nil, err
	}
	found, err := survey(root)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if !f.answers(want) {
			continue
		}
		return f.choose(root, id, want)
	}
	return nil, fmt.Errorf("sound card %s is not plugged in: %w", id, hw.ErrGone)
}

// choose returns the capture device that want, the address in id, speaks of.
func (f finding) choose(root, id string, want address) (hw.Mic, error) {
	if len(f.captures) == 0 {
		return nil, fmt.Errorf("sound card %s only plays, choose another: %w", id, hw.ErrUnsupported)
	}
	if want.device < 0 {
		want.device = f.captures[0]
	}
	if !slices.Contains(f.captures, want.device) {
		return nil, fmt.Errorf("sound card %s has capture devices %v only: %w", id, f.captures, hw.ErrUnsupported)
	}
	sub := filepath.Join(root, fmt.Sprintf("proc/asound/card%d/pcm%dc/sub%d", f.number, want.device, want.sub))
	if _, err := os.Stat(sub); want.sub >= 0 && err != nil {
		return nil, fmt.Errorf("sound card %s has no subdevice %d: %w", id, want.sub, hw.ErrUnsupported)
	}
	return f.card(root, id, want.device, want.sub), nil
}

// An address is what an ID says. port is empty and device and sub are -1 where
// it says nothing.
type address struct {
	card, port  string
	device, sub int
}

var idForm = regexp.MustCompile(`^alsa:([A-Za-z0-9_-]+)(?:@([A-Za-z0-9.:-]+))?(?:,(\d{1,4})(?:,(\d{1,4}))?)?$`)

func parseID(id string) (address, error) {
	m := idForm.FindStringSubmatch(id)
	if m == nil {
		return address{}, fmt.Errorf("sound card %q: want alsa:CARD, alsa:CARD,DEVICE or alsa:CARD,DEVICE,SUBDEVICE", id)
	}
	a := address{card: m[1], port: m[2], device: -1, sub: -1}
	for i, field := range []*int{&a.device, &a.sub} {
		if text := m[3+i]; text != "" {
			*field, _ = strconv.Atoi(text) // the form admits digits only
		}
	}
	return a, nil
}

// A finding is a card as the kernel describes it.
type finding struct {
	number   int
	kernelID string
	name     string
	usbID    string // vendor:product, or ""
	port     string // USB port path, or ""
	captures []int  // capture devices, rising
	twin     bool   // another card of the same make is in
}

// survey reads what the kernel says of all cards.
func survey(root string) ([]finding, error) {
	text, err := os.ReadFile(filepath.Join(root, "proc/asound/cards"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sound cards: %w", err)
	}
	found := parseCards(string(text))
	makes := map[string]int{}
	for i := range found {
		f := &found[i]
		dir := filepath.Join(root, "proc/asound", "card"+strconv.Itoa(f.number))
		if usbID, err := os.ReadFile(filepath.Join(dir, "usbid")); err == nil {
			f.usbID = strings.TrimSpace(string(usbID))
			f.port = usbPort(root, f.number)
			makes[f.usbID]++
		}
		f.captures = captures(dir)
	}
	for i := range found {
		found[i].twin = found[i].port != "" && makes[found[i].usbID] > 1
	}
	return found, nil
}

// The first of a card's two lines in /proc/asound/cards:
//
//	1 [Device         ]: USB-Audio - USB Audio Device
var cardLine = regexp.MustCompile(`^ *(\d{1,4}) \[([A-Za-z0-9_-]+) *\]: \S+ - (.+)$`)

// parseCards reads /proc/asound/cards.
func parseCards(text string) []finding {
	var found []finding
	for line := range strings.Lines(text) {
		if m := cardLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			number, _ := strconv.Atoi(m[1]) // digits
			found = append(found, finding{number: number, kernelID: m[2], name: strings.TrimSpace(m[3])})
		}
	}
	return found
}

// captures lists the capture devices of a card: its folders pcmNc.
func captures(dir string) []int {
	var devices []int
	entries, _ := os.ReadDir(dir) // unplugged meanwhile: it has none
	for _, e := range entries {
		text, isPCM := strings.CutPrefix(e.Name(), "pcm")
		text, isCapture := strings.CutSuffix(text, "c")
		if n, err := strconv.Atoi(text); isPCM && isCapture && err == nil {
			devices = append(devices, n)
		}
	}
	return devices
}

// usbPort returns the port path of a USB card, such as "1-1.2", from the link
// to its interface, such as ".../1-1.2:1.0".
func usbPort(root string, number int) string {
	link, err := os.Readlink(filepath.Join(root, "sys/class/sound", "card"+strconv.Itoa(number), "device"))
	if err != nil {
		return ""
	}
	port, _, _ := strings.Cut(filepath.Base(link), ":")
	return port
}

// make is the kernel's ID without the number that tells twins apart: that one
// follows the order of plugging in.
func (f finding) make() string {
	if i := strings.LastIndexByte(f.kernelID, '_'); i > 0 && f.usbID != "" {
		if _, err := strconv.ParseUint(f.kernelID[i+1:], 16, 32); err == nil {
			return f.kernelID[:i]
		}
	}
	return f.kernelID
}

func (f finding) id() string {
	if f.twin {
		return Prefix + f.make() + "@" + f.port
	}
	return Prefix + f.kernelID
}

// answers reports whether a names this card.
func (f finding) answers(a address) bool {
	if a.port != "" {
		return f.port == a.port && f.make() == a.card
	}
	return f.kernelID == a.card
}

func (f finding) card(root, id string, device, sub int) *Card {
	name := f.name
	if f.twin {
		name += " (USB port " + f.port + ")"
	}
	return &Card{id: id, name: name, number: f.number, device: device, sub: sub, root: root, sys: kernel{}}
}
