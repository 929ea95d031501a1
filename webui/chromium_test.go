package webui

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

var screenshots = flag.String("screenshots", "", "write a picture of each page into this folder")

// browser is a real Chromium, driven by its DevTools protocol
// (chromedevtools.github.io/devtools-protocol).
type browser struct {
	t    *testing.T
	conn *websocket.Conn
	last int
	// complaints are console errors and policy violations.
	complaints []string
}

// open starts Chromium with an empty page.
func open(t *testing.T) *browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium: install it, make test does")
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-allow-origins=*",
		"--remote-debugging-port=0", "--user-data-dir="+home, "about:blank")
	// The browser is a family of processes: end all of them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	b := &browser{t: t}
	b.attach(filepath.Join(home, "DevToolsActivePort"))
	b.call("Page.enable", nil)
	b.call("Runtime.enable", nil)
	b.call("Log.enable", nil)
	return b
}

// attach connects to the page, whose port the browser writes into a file.
func (b *browser) attach(file string) {
	b.t.Helper()
	var port string
	b.until("chromium listens", func() bool {
		doc, _ := os.ReadFile(file)
		port, _, _ = strings.Cut(string(doc), "\n")
		return port != ""
	})
	root, err := websocket.Dial(devtools(port, "browser"+b.path(file)), "", "http://localhost")
	if err != nil {
		b.t.Fatal(err)
	}
	b.conn = root
	var made struct {
		TargetID string `json:"targetId"`
	}
	b.into(&made, "Target.createTarget", args{"url": "about:blank"})
	_ = root.Close()
	if b.conn, err = websocket.Dial(devtools(port, "page/"+made.TargetID), "", "http://localhost"); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = b.conn.Close() })
}

// path returns what follows /devtools/browser in the second line of file.
func (b *browser) path(file string) string {
	doc, _ := os.ReadFile(file)
	_, path, _ := strings.Cut(string(doc), "/devtools/browser")
	return strings.TrimSpace(path)
}

func devtools(port, path string) string { return "ws://127.0.0.1:" + port + "/devtools/" + path }

type args map[string]any

// call sends a command and returns its result; events in between are noted.
func (b *browser) call(method string, params args) json.RawMessage {
	b.t.Helper()
	b.last++
	if err := websocket.JSON.Send(b.conn, args{"id": b.last, "method": method, "params": params}); err != nil {
		b.t.Fatal(err)
	}
	for {
		var m struct {
			ID             int
			Method         string
			Params, Result json.RawMessage
			Error          *struct{ Message string }
		}
		if err := b.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			b.t.Fatal(err)
		}
		if err := websocket.JSON.Receive(b.conn, &m); err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		switch {
		case m.Method == "Log.entryAdded" || m.Method == "Runtime.exceptionThrown":
			b.complaints = append(b.complaints, string(m.Params))
		case m.ID == b.last && m.Error != nil:
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		case m.ID == b.last:
			return m.Result
		}
	}
}

func (b *browser) into(v any, method string, params args) {
	b.t.Helper()
	if err := json.Unmarshal(b.call(method, params), v); err != nil {
		b.t.Fatal(err)
	}
}

// eval runs an expression in the page and returns what it gives.
func (b *browser) eval(expression string) any {
	b.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails any
	}
	b.into(&r, "Runtime.evaluate", args{"expression": expression, "returnByValue": true, "awaitPromise": true})
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %v", expression, r.ExceptionDetails)
	}
	return r.Result.Value
}

func (b *browser) text(selector string) string {
	b.t.Helper()
	return fmt.Sprint(b.eval(fmt.Sprintf("document.querySelector(%q)?.innerText ?? 'NO SUCH ELEMENT'", selector)))
}

// until waits for a condition of the page.
func (b *browser) until(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.After(45 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("never came: %s", what)
		}
	}
}

// show opens the page as a screen of that size and colours would.
func (b *browser) show(url string, width, height int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", args{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	b.call("Emulation.setEmulatedMedia", args{"features": []args{{"name": "prefers-color-scheme", "value": scheme}}})
	b.call("Page.navigate", args{"url": url})
	b.until("the page has the state", func() bool {
		return b.eval(`![undefined, 'unknown'].includes(document.querySelector('.state')?.dataset.state)`) == true
	})
}

// shoot writes a picture of the whole page, if asked for.
func (b *browser) shoot(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	var shot struct{ Data string }
	b.into(&shot, "Page.captureScreenshot", args{"captureBeyondViewport": true})
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// overflow lists texts that run out of their box, or the page being wider than
// the screen.
const overflow = `[
  ...(document.documentElement.scrollWidth > innerWidth ? ['page: ' + document.documentElement.scrollWidth] : []),
  ...[...document.querySelectorAll('body *')]
    .filter(e => !e.childElementCount && e.textContent.trim() && e.checkVisibility() && !e.closest('.hidden, .skip, thead'))
    .filter(e => {
      const r = document.createRange(); r.selectNodeContents(e);
      const text = r.getBoundingClientRect(), box = e.parentElement.getBoundingClientRect();
      return text.right > box.right + 1 || text.left < box.left - 1;
    }).map(e => e.tagName + ': ' + e.textContent)].join('; ')`

func TestThePageInChromium(t *testing.T) {
	f := onAir()
	srv := newGate(t, Handler(options(f)))
	b := open(t)
	screens := []struct {
		name          string
		width, height int
		scheme        string
	}{
		{"phone-dark", 360, 740, "dark"},
		{"phone-light", 360, 740, "light"},
		{"small-phone", 320, 640, "dark"},
		{"laptop-dark", 1280, 800, "dark"},
		{"laptop-light", 1280, 800, "light"},
	}
	for _, s := range screens {
		t.Run(s.name, func(t *testing.T) {
			b.t = t
			b.show(srv.URL, s.width, s.height, s.scheme)
			b.until("the picture is there", func() bool { return b.eval("document.getElementById('preview').naturalWidth") == 640.0 })
			if out := b.eval(overflow); out != "" {
				t.Errorf("runs out of its box: %v", out)
			}
			b.shoot(s.name)
		})
	}
	b.t = t
	if len(b.complaints) > 0 {
		t.Errorf("the browser complains: %v", b.complaints)
	}
}

func TestThePageTellsWhatTheStateSays(t *testing.T) {
	f := onAir()
	srv := newGate(t, Handler(options(f)))
	b := open(t)
	b.show(srv.URL, 1280, 800, "dark")
	for selector, want := range map[string]string{
		"#name": "Main hall", "#word": "ON AIR", "#onair": "1:23:", "#video-format": "1920 × 1080, 29.97 fps, NV12",
		"#sound-signal": "USB Audio", "#level-text": "-12.4 dBFS, -23.4 LUFS", "#av-offset": "3.2 ms late",
		"#tally": "On program: atem says program", "#switchers tbody": "connection refused",
		"#outputs tbody": "Trying again in 1", "#renditions tbody": "5.98 Mbit/s", "#readers tbody": "rtsp/udp",
		"#front": "archive is unreachable, attempt 5", "#faults": "Check the network and the address", "#box": "21.0 GB of 32.0 GB free",
	} {
		if got := b.text(selector); !strings.Contains(got, want) {
			t.Errorf("%s shows %q, want %q", selector, got, want)
		}
	}
	for state, want := range map[string]string{"off": "Ready", "starting": "Connecting", "degraded": "DEGRADED", "fault": "FAILED", "live": "ON AIR"} {
		setState(f, state)
		b.until(want, func() bool { return b.text("#word") == want })
		if title := fmt.Sprint(b.eval("document.title")); !strings.Contains(title, want) {
			t.Errorf("title %q", title)
		}
		b.shoot("state-" + state)
	}
}

func TestAnEmptyBoxIsShownWithoutFuss(t *testing.T) {
	srv := newGate(t, Handler(options(silent())))
	b := open(t)
	b.show(srv.URL, 360, 740, "dark")
	for selector, want := range map[string]string{
		"#word": "Ready", "#video-signal": "No signal", "#sound-signal": "No sound", "#level-text": "silent",
		"#no-outputs": "No destinations yet", "#no-readers": "Nobody watches",
		"#no-front": "no keys and no lamps", "#no-switchers": "No switcher tells this box", "#tally": "Off",
	} {
		if got := b.text(selector); !strings.Contains(got, want) {
			t.Errorf("%s shows %q, want %q", selector, got, want)
		}
	}
	b.shoot("empty")
	if len(b.complaints) > 0 {
		t.Errorf("the browser complains: %v", b.complaints)
	}
}

func TestALostBoxIsNeverShownOnAir(t *testing.T) {
	srv := newGate(t, Handler(options(onAir())))
	b := open(t)
	b.show(srv.URL, 360, 740, "dark")
	srv.shut()
	b.until("no connection", func() bool { return b.text("#word") == "No connection" })
	b.until("the banner", func() bool { return strings.Contains(b.text("#lost"), "Connection to the box is lost") })
	if air := fmt.Sprint(b.eval("document.querySelector('.state').dataset.state")); air != "unknown" {
		t.Errorf("the state is still marked as %s", air)
	}
	if grey := fmt.Sprint(b.eval("getComputedStyle(document.querySelector('main')).filter")); grey != "grayscale(1)" {
		t.Errorf("old values look new: %s", grey)
	}
	if lit := b.eval("[...document.querySelectorAll('.light')].some(e => e.checkVisibility({visibilityProperty: true}))"); lit != false {
		t.Error("lamps shine that nobody knows about")
	}
	b.shoot("lost")
	srv.closed.Store(false)
	b.until("the box is back", func() bool { return b.text("#word") == "ON AIR" && b.text("#lost") == "" })
}

func TestAHiddenTabAsksForNothing(t *testing.T) {
	f := onAir()
	srv := newGate(t, Handler(options(f)))
	b := open(t)
	b.show(srv.URL, 1280, 800, "dark")
	b.until("pictures", func() bool { return srv.count.Load() > 5 })
	// A page in front hides this one.
	b.eval(`Object.defineProperty(document, 'hidden', {value: true, configurable: true}); document.dispatchEvent(new Event('visibilitychange')); 0`)
	b.until("the event stream is closed", func() bool { return srv.open.Load() == 0 })
	before := srv.count.Load()
	b.eval(`new Promise(r => setTimeout(r, 4500))`)
	if after := srv.count.Load(); after != before {
		t.Errorf("%d requests from a hidden tab", after-before)
	}
	b.eval(`Object.defineProperty(document, 'hidden', {value: false, configurable: true}); document.dispatchEvent(new Event('visibilitychange')); 0`)
	b.until("it is followed again", func() bool { return srv.open.Load() > 0 && b.text("#word") == "ON AIR" })
}

// place is the text of one place of the front panel, with all its lines in one.
func (b *browser) place(name string) string {
	b.t.Helper()
	return fmt.Sprint(b.eval(fmt.Sprintf(`[...document.querySelectorAll('#front > li')]
  .find(li => li.querySelector('.name').textContent === %q)?.innerText.replaceAll(/\s+/g, ' ') ?? 'NO SUCH PLACE'`, name)))
}

func TestTheFrontPanelOnThePage(t *testing.T) {
	srv := newGate(t, Handler(options(onAir())))
	b := open(t)
	b.show(srv.URL, 1280, 800, "dark")
	for name, want := range map[string][]string{
		"STREAM": {"Amber, on, with short gaps", "on air to 1 of 2", "Key is up, moved 1:23:", "Last order, by press 1:23:", "ago: stream.start"},
		"MUTE":   {"Dark", "not muted", "bouncing: it moves by itself", "Key is up"},
		"RESET":  {"White, steady", "Let go, then press once for network.reset; Keep holding for factory.reset", "Key is DOWN, moved"},
		"PANIC":  {"Press once for factory.reset", "Key is up"},
		"TALLY":  {"Red, steady", "atem says program"},
	} {
		got := b.place(name)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s shows %q, want %q", name, got, w)
			}
		}
	}
	if strings.Contains(b.place("TALLY"), "Key") {
		t.Error("a lamp without a key has one")
	}
	if order := b.eval("[...document.querySelectorAll('#front .name')].map(e => e.textContent).join()"); order != "STREAM,MUTE,RESET,TALLY,PANIC" {
		t.Errorf("from left to right: %v", order)
	}
	switchers := strings.Join(strings.Fields(b.text("#switchers tbody")), " ")
	for _, want := range []string{"tsl3.1, input 3", "On program", "ago", "udp://:8900", "sent by 10.0.4.9:5728", "never", "ws://10.0.4.5:4455", "2 times not understood"} {
		if !strings.Contains(switchers, want) {
			t.Errorf("switchers: %q, want %q", switchers, want)
		}
	}
	if tones := b.eval("[...document.querySelectorAll('#switchers td[data-tone]')].map(e => e.dataset.tone).join()"); tones != "air,bad" {
		t.Errorf("switchers are marked as %v", tones)
	}
}

// everyLight is a box with a lamp of each colour in each rhythm.
func everyLight() (*fakeBox, map[string]panel.Pattern) {
	patterns := map[string]panel.Pattern{"off": {}}
	lamps := map[string]status.Lamp{"off": {Pattern: "off", Reason: "nothing"}}
	for c := hw.Red; c <= hw.White; c++ {
		for r := panel.Steady; r <= panel.Blink6; r++ {
			p := panel.Pattern{Color: c, Rhythm: r}
			patterns[p.String()] = p
			lamps[p.String()] = status.Lamp{Pattern: p.String(), Reason: "a test"}
		}
	}
	f := silent()
	f.cell.Update(func(b *status.Box) { b.Lamps = lamps })
	return f, patterns
}

// slot is the time in which no rhythm changes, and slots how many of them two
// seconds have.
const (
	slot  = 125 * time.Millisecond
	slots = 16
)

// times draws each lamp in time: █ where it shines. Everything happens in one
// task of the page, so that no clock counts.
const times = `(() => {
  const lamps = [...document.querySelectorAll('#front > li')];
  const lights = lamps.map(li => li.querySelector('.light'));
  const drawn = lights.map(() => '');
  const moves = document.getElementById('front').getAnimations({subtree: true});
  for (let slot = 0; slot < 16; slot++) {
    for (const m of moves) { m.pause(); m.currentTime = slot * 125 + 62; }
    lights.forEach((l, i) => { drawn[i] += l.checkVisibility({opacityProperty: true, visibilityProperty: true}) ? '█' : '·'; });
  }
  return Object.fromEntries(lamps.map((li, i) => [li.querySelector('.name').textContent, {
    drawn: drawn[i], color: getComputedStyle(lights[i]).backgroundColor, words: li.querySelector('.shows').textContent,
    label: li.querySelector('[role=img]').ariaLabel,
  }]));
})()`

func TestLampsShineOnThePageAsOnTheBox(t *testing.T) {
	f, patterns := everyLight()
	srv := newGate(t, Handler(options(f)))
	b := open(t)
	b.show(srv.URL, 1280, 800, "light")
	lamps, _ := b.eval(times).(map[string]any)
	if len(lamps) != len(patterns) {
		t.Fatalf("%d lamps, want %d", len(lamps), len(patterns))
	}
	for name, p := range patterns {
		lamp, _ := lamps[name].(map[string]any)
		if got, want := lamp["drawn"], drawn(p); got != want {
			t.Errorf("%s: %v, want %s", name, got, want)
		}
		word := strings.ToLower(fmt.Sprint(lamp["words"], " ", lamp["label"]))
		color, _, _ := strings.Cut(name, " ")
		if p.Color != hw.Dark && (strings.Count(word, color) != 2 || !hasColor(fmt.Sprint(lamp["color"]), p.Color)) {
			t.Errorf("%s: the words %q, the color %v", name, word, lamp["color"])
		}
	}
	b.shoot("lamps")
}

func drawn(p panel.Pattern) string {
	var s strings.Builder
	for i := range slots {
		lit, _ := p.At(time.UnixMilli(0).Add(time.Duration(i)*slot + slot/2))
		s.WriteString(map[bool]string{true: "█", false: "·"}[lit])
	}
	return s.String()
}

// hasColor reports whether an "rgb(1, 2, 3)" shows the parts of c, and no other.
func hasColor(rgb string, c hw.Color) bool {
	var parts [3]int
	if _, err := fmt.Sscanf(rgb, "rgb(%d, %d, %d)", &parts[0], &parts[1], &parts[2]); err != nil {
		return false
	}
	for i, part := range []hw.Color{hw.Red, hw.Green, hw.Blue} {
		if shown := parts[i] > 128; shown != (c&part != 0) {
			return false
		}
	}
	return true
}

// The page follows the box's clock, not the browser's.
func TestLampsBlinkWhenThoseOfTheBoxDo(t *testing.T) {
	f, _ := everyLight()
	srv := newGate(t, Handler(options(f)))
	b := open(t)
	b.call("Page.addScriptToEvaluateOnNewDocument", args{"source": `const Link = EventSource;
window.EventSource = class extends Link { constructor(url) { super(url); window.link = this; } };`})
	b.show(srv.URL, 1280, 800, "dark")
	b.until("lamps", func() bool { return b.eval("document.getElementById('front').childElementCount > 80") == true })
	for _, ahead := range []int{0, 700, 1300, -400} {
		// The box's clock is that far ahead; then, in the same task, how many
		// milliseconds each lamp is off it.
		off := fmt.Sprintf(`(() => {
  const skew = %d, front = document.getElementById('front');
  link.dispatchEvent(new MessageEvent('alive', {data: JSON.stringify({now: new Date(Date.now() + skew)})}));
  const late = a => Math.abs(performance.now() - a.startTime - (Date.now() + skew)) %% 2000;
  return Math.max(...front.getAnimations({subtree: true}).map(a => Math.min(late(a), 2000 - late(a))));
})()`, ahead)
		b.until("the lamps are in step", func() bool {
			most, ok := b.eval(off).(float64)
			return ok && most < 60
		})
	}
}

func TestWithoutMotionWordsTellTheRhythm(t *testing.T) {
	f, _ := everyLight()
	srv := newGate(t, Handler(options(f)))
	b := open(t)
	b.show(srv.URL, 360, 740, "dark")
	b.call("Emulation.setEmulatedMedia", args{"features": []args{{"name": "prefers-reduced-motion", "value": "reduce"}}})
	b.until("nothing moves", func() bool { return b.eval("document.getAnimations().length") == 0.0 })
	if got := b.place("amber blink 3"); !strings.Contains(got, "Amber, 3 blinks, pause") {
		t.Errorf("got %q", got)
	}
	// What blinks cannot be taken for what is steady.
	for name, want := range map[string]string{"red": "none", "red pulse": "inset(0px 50% 0px 0px)"} {
		shape := b.eval(fmt.Sprintf(`getComputedStyle([...document.querySelectorAll('#front > li')]
  .find(li => li.querySelector('.name').textContent === %q).querySelector('.light')).clipPath`, name))
		if shape != want {
			t.Errorf("%s has the shape %v, want %s", name, shape, want)
		}
	}
}

func TestAStopCanBeTakenBackForAsLongAsThePageSays(t *testing.T) {
	f := onAir()
	srv := newGate(t, Handler(options(f)))
	b := open(t)
	b.show(srv.URL, 360, 740, "dark")
	ends := func(at *time.Time) { f.cell.Update(func(b *status.Box) { b.Ending = at }) }
	hidden := func() bool { return b.eval("document.getElementById('ending').checkVisibility()") == false }
	if !hidden() {
		t.Error("nothing ends, but the page says so")
	}
	soon, past := time.Now().Add(10*time.Minute), time.Now().Add(-time.Minute)
	ends(&soon)
	b.until("how long", func() bool {
		var left int
		_, err := fmt.Sscanf(b.text("#ending"), "The show was stopped. Press STREAM within %d s to go on.", &left)
		return err == nil && left > 0 && left <= 600
	})
	if out := b.eval(overflow); out != "" {
		t.Errorf("runs out of its box: %v", out)
	}
	b.shoot("ending")
	ends(&past)
	b.until("the end", func() bool { return b.text("#ending") == "The show was stopped. It ends." })
	ends(nil)
	b.until("it goes on", hidden)
}

func TestHostileNamesAreOnlyText(t *testing.T) {
	const markup = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`
	long := strings.Repeat("W", 300)
	f := onAir()
	f.cell.Update(func(b *status.Box) {
		b.Keys = map[string]status.Key{
			markup: {Error: markup, Armed: markup, Holding: long}, "__proto__": {Down: true}, "constructor": {Error: long}, long: {},
		}
		b.Lamps = map[string]status.Lamp{
			markup: {Pattern: markup, Reason: markup}, long: {Pattern: long, Reason: long},
			"toString": {Pattern: "constructor valueOf", Reason: "red"}, "": {Pattern: "", Reason: ""},
		}
		b.Tally = status.Tally{State: markup, Reason: long, Sources: []status.TallySource{
			{Name: markup, Protocol: markup, Address: long, Input: markup, State: long, Sender: markup, Error: markup},
			{Name: long, Protocol: "tsl5", Address: "udp://:1", State: "constructor"},
		}}
	})
	srv := newGate(t, Handler(options(f)))
	b := open(t)
	b.show(srv.URL, 320, 640, "light")
	b.until("all places", func() bool { return b.eval("document.querySelectorAll('#front > li').length") == 6.0 })
	if made := b.eval("document.querySelectorAll('main img:not(#preview), main script').length"); made != 0.0 {
		t.Errorf("%v elements were made of names", made)
	}
	if lit := b.eval("[...document.querySelectorAll('.light')].some(e => e.checkVisibility({visibilityProperty: true}))"); lit != false {
		t.Error("a pattern that nobody knows shines")
	}
	if got := b.place("__proto__"); !strings.Contains(got, "Key is DOWN") || strings.Contains(got, "Dark") {
		t.Errorf("a key of an odd name: %q", got)
	}
	if got := b.place(markup); !strings.Contains(got, "Press once for <img") {
		t.Errorf("a key of markup: %q", got)
	}
	for _, width := range []int{320, 1280} {
		b.show(srv.URL, width, 640, "dark")
		if out := b.eval(overflow); out != "" {
			t.Errorf("%d wide, runs out of its box: %.300v", width, out)
		}
		b.shoot(fmt.Sprintf("hostile-%d", width))
	}
	if len(b.complaints) > 0 {
		t.Errorf("the browser complains: %v", b.complaints)
	}
}
