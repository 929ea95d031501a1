package led_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/led"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A tree is the LED class in a folder of ordinary files.
type tree struct {
	*testing.T
	root string
}

// plug makes an LED of files with their contents.
func (t tree) plug(name string, files map[string]string) {
	t.Helper()
	for file, content := range files {
		path := t.path(name, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func (t tree) path(name, file string) string {
	return filepath.Join(t.root, "sys/class/leds", name, file)
}

// says returns the first line of a file: the kernel reads no more.
func (t tree) says(name, file string) string {
	t.Helper()
	b, err := os.ReadFile(t.path(name, file))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func (t tree) open(name string) *led.LED {
	t.Helper()
	l, err := led.Class{Root: t.root}.Open(hw.Pin("led:" + name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func plain() map[string]string {
	return map[string]string{"brightness": "1\n", "max_brightness": "255\n", "trigger": "none [mmc0] timer heartbeat\n", "delay_on": "", "delay_off": ""}
}

func TestAnLEDIsTakenFromItsTriggerAndDark(t *testing.T) {
	tr := tree{t, t.TempDir()}
	tr.plug("green:act", plain())
	l := tr.open("green:act")
	if got := tr.says("green:act", "trigger") + " " + tr.says("green:act", "brightness"); got != "none 0" {
		t.Errorf("trigger and brightness are %q", got)
	}
	for _, step := range []struct {
		color hw.Color
		want  string
	}{{hw.Red, "255"}, {hw.Red, "255"}, {hw.Blue, "255"}, {hw.Dark, "0"}, {hw.Dark, "0"}, {hw.White, "255"}} {
		if err := l.Light(hw.Light{Color: step.color}); err != nil || tr.says("green:act", "brightness") != step.want {
			t.Errorf("color %d: brightness %s, %v", step.color, tr.says("green:act", "brightness"), err)
		}
	}
}

func TestTheTimerBlinks(t *testing.T) {
	tr := tree{t, t.TempDir()}
	tr.plug("a", plain())
	l := tr.open("a")
	if !l.Blinks() {
		t.Fatal("it has a timer and does not blink")
	}
	state := func() string {
		return strings.Join([]string{tr.says("a", "trigger"), tr.says("a", "delay_on"), tr.says("a", "delay_off"), tr.says("a", "brightness")}, " ")
	}
	blink := hw.Light{Color: hw.Red, On: 125 * time.Millisecond, Off: 2 * time.Second}
	if err := l.Light(blink); err != nil || state() != "timer 125 2000 255" {
		t.Errorf("it blinks by %s, %v", state(), err)
	}
	tr.plug("a", map[string]string{"delay_on": "untouched"})
	if err := l.Light(blink); err != nil || state() != "timer untouched 2000 255" {
		t.Errorf("the same light again made it %s, %v", state(), err)
	}
	if err := l.Light(hw.Light{Color: hw.Red}); err != nil || tr.says("a", "trigger") != "none" || tr.says("a", "brightness") != "255" {
		t.Errorf("steady: %s, %v", state(), err)
	}
	if err := errors.Join(l.Light(blink), l.Light(hw.Light{Color: hw.Dark, On: time.Second, Off: time.Second})); err != nil ||
		tr.says("a", "trigger") != "none" || tr.says("a", "brightness") != "0" {
		t.Errorf("dark: %s, %v", state(), err)
	}
}

func TestAnLEDWithoutTimerDoesNotBlink(t *testing.T) {
	for name, trigger := range map[string]string{"no timer": "[none] mmc0 timers", "no trigger": ""} {
		tr := tree{t, t.TempDir()}
		files := plain()
		if files["trigger"] = trigger; trigger == "" {
			delete(files, "trigger")
		}
		tr.plug("a", files)
		l := tr.open("a")
		err := l.Light(hw.Light{Color: hw.Red, On: time.Second, Off: time.Second})
		if l.Blinks() || !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%s: blinks %v, %v", name, l.Blinks(), err)
		}
		if err := l.Light(hw.Light{Color: hw.Red}); err != nil || tr.says("a", "brightness") != "255" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestColorsAreMixedInTheOrderOfTheLED(t *testing.T) {
	for _, tt := range []struct {
		index string
		color hw.Color
		want  string
	}{
		{"red green blue", hw.Red, "31 0 0"},
		{"red green blue", hw.Amber, "31 31 0"},
		{"blue red green", hw.Amber, "0 31 31"},
		{"green blue red", hw.White, "31 31 31"},
		{"white red green", hw.Green, "0 0 31"},
		{"red green", hw.Blue, "31 31"}, // rather wrong than dark
		{"amber", hw.Red, "31"},
	} {
		tr := tree{t, t.TempDir()}
		tr.plug("rgb", map[string]string{
			"brightness": "", "max_brightness": "31\n", "trigger": "[none]\n",
			"multi_index": tt.index + "\n", "multi_intensity": "",
		})
		l := tr.open("rgb")
		if err := l.Light(hw.Light{Color: tt.color}); err != nil || tr.says("rgb", "multi_intensity") != tt.want || tr.says("rgb", "brightness") != "31" {
			t.Errorf("%s, color %d: %s, %v", tt.index, tt.color, tr.says("rgb", "multi_intensity"), err)
		}
	}
}

func TestPinsThatAreNoLED(t *testing.T) {
	tr := tree{t, t.TempDir()}
	tr.plug("one", plain())
	tr.plug("two", plain())
	for _, pin := range []hw.Pin{"led:", "led:..", "led:one/../two", "led:/etc", "gpio:one", "one", ""} {
		if _, err := (led.Class{Root: tr.root}).Open(pin); !errors.Is(err, led.ErrNoLED) {
			t.Errorf("%q: %v", pin, err)
		}
	}
	if _, err := (led.Class{Root: tr.root}).Open("led:three"); !errors.Is(err, led.ErrNoLED) || !strings.Contains(err.Error(), "there are one, two") {
		t.Errorf("an LED that is not there: %v", err)
	}
	if got := (led.Class{Root: tr.root}).List(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("the LEDs are %q", got)
	}
	if _, err := (led.Class{Root: t.TempDir()}).Open("led:one"); !errors.Is(err, led.ErrNoLED) {
		t.Errorf("a machine without LEDs: %v", err)
	}
	tr.plug("odd", map[string]string{"brightness": "", "max_brightness": "much\n"})
	if _, err := (led.Class{Root: tr.root}).Open("led:odd"); err == nil {
		t.Error("an LED whose brightness is no number was opened")
	}
}

func TestWhoMayNotIsToldWhatToDo(t *testing.T) {
	tr := tree{t, t.TempDir()}
	tr.plug("a", plain())
	tr.allow(0o444, "brightness")
	tr.asNobody(func() {
		if _, err := (led.Class{Root: tr.root}).Open("led:a"); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "udev") {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhoMayNotSetTheTimerIsToldThatItDoesNotBlink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tree{t, t.TempDir()}
		tr.plug("a", plain())
		tr.allow(0o666, "brightness", "trigger", "delay_off")
		tr.allow(0o444, "delay_on")
		tr.asNobody(func() {
			l := tr.open("a")
			err := l.Light(hw.Light{Color: hw.Red, On: time.Second, Off: time.Second})
			if !errors.Is(err, fs.ErrPermission) || !errors.Is(err, hw.ErrUnsupported) || l.Blinks() || tr.says("a", "trigger") != "none" {
				t.Errorf("got %v; it blinks: %v, by %s", err, l.Blinks(), tr.says("a", "trigger"))
			}
			if err := l.Light(hw.Light{Color: hw.Red}); err != nil || tr.says("a", "brightness") != "255" {
				t.Errorf("a steady light: %v", err)
			}
		})
	})
}

func TestTheTimerIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tree{t, t.TempDir()}
		tr.plug("a", plain())
		tr.allow(0o666, "brightness", "trigger")
		tr.allow(0o444, "delay_on", "delay_off")
		for i, file := range []string{"delay_on", "delay_off"} { // as udev does, one after the other
			time.AfterFunc(time.Duration(i+1)*500*time.Millisecond, func() { tr.allow(0o666, file) })
		}
		tr.asNobody(func() {
			err := tr.open("a").Light(hw.Light{Color: hw.Red, On: 125 * time.Millisecond, Off: 2 * time.Second})
			if got := tr.says("a", "trigger") + " " + tr.says("a", "delay_on") + " " + tr.says("a", "delay_off"); err != nil || got != "timer 125 2000" {
				t.Errorf("it blinks by %s, %v", got, err)
			}
		})
	})
}

// allow sets the mode of files of the LED "a".
func (t tree) allow(mode fs.FileMode, files ...string) {
	t.Helper()
	for _, file := range files {
		if err := os.Chmod(t.path("a", file), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// asNobody runs f as a user who is not root, as far as files are concerned.
func (t tree) asNobody(f func()) {
	t.Helper()
	const nobody = 65534
	if os.Geteuid() == 0 {
		if err := os.Chmod(filepath.Dir(t.root), 0o755); err != nil { // the test's own folder
			t.Fatal(err)
		}
		runtime.LockOSThread() // the user counts for the thread
		defer runtime.UnlockOSThread()
		if err := unix.Setfsuid(nobody); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Setfsuid(0); err != nil {
				t.Fatal(err)
			}
		}()
	}
	f()
}
