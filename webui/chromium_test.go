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
		"#name": "Main hall", "#word": "ON AIR", "#onair": "1:23:0", "#video-format": "1920 × 1080, 29.97 fps, NV12",
		"#sound-signal": "USB Audio", "#level-text": "-12.4 dBFS, -23.4 LUFS", "#av-offset": "3.2 ms late", "#tally": "On program",
		"#outputs tbody": "Trying again in 1", "#renditions tbody": "5.98 Mbit/s", "#readers tbody": "rtsp/udp",
		"#lamps tbody": "archive is unreachable, attempt 5", "#faults": "Check the network and the address", "#box": "21.0 GB of 32.0 GB free",
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
