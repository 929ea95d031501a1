// Package led lights LEDs of the Linux LED class: /sys/class/leds/NAME
// (Documentation/leds/leds-class.rst and leds-class-multicolor.rst).
//
// An LED belongs to the kernel: anything may light it, by a trigger above all.
// [Class.Open] takes its trigger away. The kernel does not give an LED to one
// program alone; two that light one disturb each other.
package led

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// ErrNoLED says that there is no LED of that name now.
var ErrNoLED = errors.New("there is no such LED")

// The triggers that this package sets.
const (
	triggerNone  = "none"
	triggerTimer = "timer"
)

// A Class is where LEDs are.
type Class struct {
	// Root stands for "/"; empty means that.
	Root string
}

func (c Class) folder() string { return filepath.Join("/", c.Root, "sys/class/leds") }

// Open takes the LED of a pin "led:NAME", which is dark then. It fails with
// [ErrNoLED], or with fs.ErrPermission and what to do about it.
func (c Class) Open(pin hw.Pin) (*LED, error) {
	kind, name := pin.Kind()
	if kind != "led" || name == "" || name != filepath.Base(name) || name == ".." {
		return nil, fmt.Errorf("%q does not say led:NAME: %w", pin, ErrNoLED)
	}
	l := &LED{pin: pin, dir: filepath.Join(c.folder(), name)}
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", pin, c.explain(err)), l.Close())
	}
	return l, nil
}

// List returns the names of the LEDs that are there; without the class there is
// none.
func (c Class) List() []string {
	var names []string
	list, _ := os.ReadDir(c.folder())
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// explain says which LEDs there are if that one is not.
func (c Class) explain(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return explain(err)
	}
	names := c.List()
	if len(names) == 0 {
		return ErrNoLED
	}
	return fmt.Errorf("%w; there are %s", ErrNoLED, strings.Join(names, ", "))
}

// explain gives the kernel's errors the names that the box knows, and says what
// to do where somebody can do something.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the LED was taken out: %w", hw.ErrGone)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: the unit has to let it through, by ReadWritePaths= with the LED's folder below /sys/devices", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: a udev rule has to give the LED's files to a group of the user's; see docs/decisions/0020", err)
	default:
		return err
	}
}

// An LED is one LED, of one color or several. Its methods may be called from
// any goroutine.
type LED struct {
	pin hw.Pin
	dir string
	max int // brightness

	mu         sync.Mutex
	brightness *os.File // held open: another LED of that name is not this one
	colors     []string // of a multicolor LED, in the order of its intensities
	timer      bool     // it can blink, and may be told to
	shows      hw.Light
}

func (l *LED) open() (err error) {
	if l.brightness, err = os.OpenFile(l.file("brightness"), os.O_WRONLY, 0); err != nil {
		return err
	}
	if l.max, err = l.number("max_brightness"); err != nil {
		return err
	}
	triggers, err := os.ReadFile(l.file("trigger"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without triggers
		return err
	}
	l.timer = slices.Contains(strings.Fields(string(triggers)), triggerTimer)
	if len(triggers) > 0 && !bytes.Contains(triggers, []byte("["+triggerNone+"]")) {
		if err := l.write("trigger", triggerNone); err != nil {
			return err
		}
	}
	index, err := os.ReadFile(l.file("multi_index"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.colors = strings.Fields(string(index))
	return l.shine(0)
}

// Blinks reports whether the LED blinks without this program, and may be told
// to: by its driver where that can, else by the kernel's timer.
func (l *LED) Blinks() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.timer
}

// Light shows a light. An LED of one color shines for every color but Dark; one
// of several has for each either all or nothing. It fails with hw.ErrGone, or
// with hw.ErrUnsupported for a light that blinks on an LED that does not, which
// may come out, within two seconds, by the first such light. The same light
// again shows nothing new, and whether the LED is still there.
func (l *LED) Light(light hw.Light) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.light(light); err != nil {
		return fmt.Errorf("%s: %w", l.pin, explain(err))
	}
	return nil
}

func (l *LED) light(light hw.Light) error {
	if light.Color == hw.Dark {
		light = hw.Light{}
	}
	blinks := light.On > 0 && light.Off > 0
	switch {
	case blinks && !l.timer:
		return fmt.Errorf("it does not blink by itself: %w", hw.ErrUnsupported)
	case light != l.shows:
		if err := l.change(light, blinks); err != nil {
			return err
		}
		l.shows = light
		return nil
	case light.Color == hw.Dark:
		return l.shine(0)
	default: // leaves a timer alone
		return l.shine(l.max)
	}
}

// change goes from one light to another one.
func (l *LED) change(light hw.Light, blinks bool) error {
	wasBlinking := l.shows.On > 0
	l.shows = hw.Light{Color: hw.White, On: 1} // unknown, should this fail halfway
	if wasBlinking {
		if err := l.write("trigger", triggerNone); err != nil {
			return err
		}
	}
	if light.Color == hw.Dark {
		return l.shine(0)
	}
	if err := l.mix(light.Color); err != nil {
		return err
	}
	if err := l.shine(l.max); err != nil || !blinks {
		return err
	}
	return l.blink(light.On, light.Off)
}

// patience is how long udev may take to let this user set a timer.
const patience = 2 * time.Second

// blink has the timer do it. Its files come with the trigger and are root's
// until udev has been there, which is waited for once: an LED that it leaves
// alone does not blink from then on.
func (l *LED) blink(on, off time.Duration) error {
	err := l.write("trigger", triggerTimer)
	if err == nil {
		deadline := time.Now().Add(patience)
		err = errors.Join(l.await("delay_on", milliseconds(on), deadline), l.await("delay_off", milliseconds(off), deadline))
	}
	if errors.Is(err, fs.ErrPermission) {
		l.timer = false
		return errors.Join(err, hw.ErrUnsupported, l.write("trigger", triggerNone))
	}
	return err
}

// await is write for a file that this user may not set yet.
func (l *LED) await(name, value string, deadline time.Time) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := l.write(name, value)
		if !errors.Is(err, fs.ErrPermission) || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10)
}

// parts are the colors of multicolor LEDs that a light is made of.
var parts = map[string]hw.Color{"red": hw.Red, "green": hw.Green, "blue": hw.Blue}

// mix sets the color of a multicolor LED. One that has nothing of that color
// shines with all it has: it is not dark.
func (l *LED) mix(c hw.Color) error {
	if len(l.colors) == 0 {
		return nil
	}
	mixed := slices.ContainsFunc(l.colors, func(name string) bool { return parts[name]&c != 0 })
	var levels []string
	for _, name := range l.colors {
		level := 0
		if parts[name]&c != 0 || !mixed {
			level = l.max
		}
		levels = append(levels, strconv.Itoa(level))
	}
	return l.write("multi_intensity", strings.Join(levels, " "))
}

// shine sets the brightness of the LED that was opened.
func (l *LED) shine(level int) error {
	_, err := l.brightness.WriteAt([]byte(strconv.Itoa(level)+"\n"), 0)
	return err
}

// Close lets go of the LED and leaves it as it is.
func (l *LED) Close() error {
	if l.brightness == nil {
		return nil
	}
	return l.brightness.Close()
}

func (l *LED) file(name string) string { return filepath.Join(l.dir, name) }

func (l *LED) number(name string) (int, error) {
	b, err := os.ReadFile(l.file(name))
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

// write sets an attribute; it makes no file.
func (l *LED) write(name, value string) error {
	f, err := os.OpenFile(l.file(name), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}
