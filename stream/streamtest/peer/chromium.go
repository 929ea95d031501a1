package peer

import (
	"encoding/json"
	"os"
	"os/exec" //nolint:depguard // test infrastructure: real peers are programs
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// A Chromium is a browser with one page, driven by its DevTools protocol
// (chromedevtools.github.io/devtools-protocol). Its methods may be called from
// the test's goroutine only.
type Chromium struct {
	tb   testing.TB
	conn *websocket.Conn
	last int
}

// StartChromium starts a browser that plays without being clicked at. It ends
// with the test.
func StartChromium(tb testing.TB) *Chromium {
	tb.Helper()
	home := tb.TempDir()
	cmd := exec.Command(program(tb, "chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", //nolint:gosec,noctx // ended below
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-allow-origins=*",
		"--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0", "--user-data-dir="+home, "about:blank")
	// The browser is a family of processes: end all of them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start chromium: %v", err)
	}
	tb.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
	})
	c := &Chromium{tb: tb}
	c.attach(filepath.Join(home, "DevToolsActivePort"))
	c.Call("Page.enable", nil)
	c.Call("Network.enable", nil)
	return c
}

// attach connects to a new page. The browser writes into a file where it
// listens: the port, and the path of the browser itself.
func (c *Chromium) attach(file string) {
	c.tb.Helper()
	var port, path string
	Await(c.tb, "chromium to listen", func() bool {
		doc, _ := os.ReadFile(file)
		port, path, _ = strings.Cut(strings.TrimSpace(string(doc)), "\n")
		return path != ""
	})
	c.dial(port, path)
	var made struct {
		TargetID string `json:"targetId"`
	}
	if err := json.Unmarshal(c.Call("Target.createTarget", map[string]any{"url": "about:blank"}), &made); err != nil {
		c.tb.Fatal(err)
	}
	_ = c.conn.Close()
	c.dial(port, "/devtools/page/"+made.TargetID)
	c.tb.Cleanup(func() { _ = c.conn.Close() })
}

func (c *Chromium) dial(port, path string) {
	c.tb.Helper()
	conn, err := websocket.Dial("ws://127.0.0.1:"+port+path, "", "http://localhost")
	if err != nil {
		c.tb.Fatalf("talk to chromium: %v", err)
	}
	c.conn = conn
}

// Call sends a command and returns its result.
func (c *Chromium) Call(method string, params map[string]any) json.RawMessage {
	c.tb.Helper()
	c.last++
	if err := websocket.JSON.Send(c.conn, map[string]any{"id": c.last, "method": method, "params": params}); err != nil {
		c.tb.Fatalf("%s: %v", method, err)
	}
	for {
		var m struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
			Error  *struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := c.conn.SetDeadline(time.Now().Add(Patience)); err != nil {
			c.tb.Fatal(err)
		}
		if err := websocket.JSON.Receive(c.conn, &m); err != nil {
			c.tb.Fatalf("%s: %v", method, err)
		}
		switch {
		case m.ID == c.last && m.Error != nil:
			c.tb.Fatalf("%s: %s", method, m.Error.Message)
		case m.ID == c.last:
			return m.Result
		}
	}
}

// Show opens an address and returns once its scripts have run.
func (c *Chromium) Show(url string) {
	c.tb.Helper()
	c.Call("Page.navigate", map[string]any{"url": url})
	Await(c.tb, "chromium to load "+url, func() bool { return c.Eval("document.readyState + location.href") == "complete"+url })
}

// Eval runs an expression in the page, waits for it if it is a promise, and
// returns what it gives, as JSON is decoded.
func (c *Chromium) Eval(expression string) any {
	c.tb.Helper()
	var r struct {
		Result struct {
			Value any `json:"value"`
		} `json:"result"`
		Exception any `json:"exceptionDetails"`
	}
	doc := c.Call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true})
	if err := json.Unmarshal(doc, &r); err != nil || r.Exception != nil {
		c.tb.Fatalf("%s: %v, %v", expression, err, r.Exception)
	}
	return r.Result.Value
}

// Throttle makes the line to the page as slow as so many bytes a second; 0 is
// no limit.
func (c *Chromium) Throttle(bytesPerSecond int) {
	c.tb.Helper()
	if bytesPerSecond == 0 {
		bytesPerSecond = -1
	}
	c.Call("Network.emulateNetworkConditions", map[string]any{
		"offline": false, "latency": 0, "downloadThroughput": bytesPerSecond, "uploadThroughput": -1,
	})
}
