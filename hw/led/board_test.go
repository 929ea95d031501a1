//go:build board

// Tests on the virtual board's kernel, with an LED of uleds.

package led_test

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/led"
)

// patience is for a slow emulation: nothing takes that long.
const patience = time.Minute

// A bulb is the far end of an LED: what its hardware is told.
type bulb struct {
	*testing.T
	file   *os.File
	levels chan int32
}

// plug makes an LED, until unplug.
func plug(t *testing.T, name string) *bulb {
	t.Helper()
	for _, module := range []string{"uleds", "ledtrig-timer"} {
		if out, err := exec.CommandContext(t.Context(), "modprobe", module).CombinedOutput(); err != nil {
			t.Fatalf("modprobe %s: %v\n%s", module, err, out)
		}
	}
	f, err := os.OpenFile("/dev/uleds", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	device := make([]byte, 68) // struct uleds_user_dev: a name and the largest brightness
	copy(device, name)
	binary.NativeEndian.PutUint32(device[64:], 100)
	if _, err := f.Write(device); err != nil {
		t.Fatal(err)
	}
	b := &bulb{T: t, file: f, levels: make(chan int32, 1000)}
	go func() {
		defer close(b.levels)
		level := make([]byte, 4)
		for {
			if _, err := f.Read(level); err != nil {
				return // it is unplugged
			}
			b.levels <- int32(binary.NativeEndian.Uint32(level)) // as the kernel has it
		}
	}()
	return b
}

// unplug takes the LED out.
func (b *bulb) unplug() {
	b.Helper()
	if err := b.file.Close(); err != nil {
		b.Error(err)
	}
	for range b.levels { // until its reader has ended
	}
}

// until waits until the LED shines so.
func (b *bulb) until(want int32) {
	b.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	last := int32(-1)
	for last != want {
		select {
		case last = <-b.levels:
		case <-timer.C:
			b.Fatalf("the LED is at %d and not at %d", last, want)
		}
	}
}

func TestBoardAnLEDShinesAndBlinks(t *testing.T) {
	b := plug(t, "virt:red:onair")
	defer b.unplug()
	l, err := led.Class{}.Open("led:virt:red:onair")
	if err != nil {
		t.Fatal(err)
	}
	b.until(0)
	light := func(l *led.LED, light hw.Light) {
		t.Helper()
		if err := l.Light(light); err != nil {
			t.Fatal(err)
		}
	}
	light(l, hw.Light{Color: hw.Red})
	b.until(100)
	light(l, hw.Light{Color: hw.Dark})
	b.until(0)
	if !l.Blinks() {
		t.Fatal("it does not blink")
	}
	light(l, hw.Light{Color: hw.Red, On: 50 * time.Millisecond, Off: 50 * time.Millisecond})
	for range 3 { // nobody here switches it
		b.until(100)
		b.until(0)
	}
	light(l, hw.Light{Color: hw.Red})
	b.until(100)
	if got := trigger(t); got != "none" {
		t.Errorf("its trigger is %s", got)
	}
	// Who opens it anew finds it blinking, and it stops.
	light(l, hw.Light{Color: hw.Red, On: time.Hour, Off: time.Second})
	again, err := led.Class{}.Open("led:virt:red:onair")
	if err != nil {
		t.Fatal(err)
	}
	b.until(0)
	if got := trigger(t); got != "none" {
		t.Errorf("its trigger is %s", got)
	}
	if err := errors.Join(l.Close(), again.Close()); err != nil {
		t.Error(err)
	}
}

// trigger returns which trigger the LED has.
func trigger(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/sys/class/leds/virt:red:onair/trigger")
	if err != nil {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(b)) {
		if word[0] == '[' {
			return word[1 : len(word)-1]
		}
	}
	return ""
}

func TestBoardAnLEDThatIsPulledOut(t *testing.T) {
	b := plug(t, "virt:red:onair")
	l, err := led.Class{}.Open("led:virt:red:onair")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Light(hw.Light{Color: hw.Red}); err != nil {
		t.Error(err)
	}
	b.unplug()
	b = plug(t, "virt:red:onair")
	defer b.unplug()
	for _, color := range []hw.Color{hw.Red, hw.Red, hw.Dark} {
		if err := l.Light(hw.Light{Color: color}); !errors.Is(err, hw.ErrGone) {
			t.Errorf("an LED that is another one now: %v", err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if l, err = (led.Class{}).Open("led:virt:red:onair"); err != nil {
		t.Fatal(err)
	}
	if err := l.Light(hw.Light{Color: hw.Red}); err != nil {
		t.Error(err)
	}
	b.until(100)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
