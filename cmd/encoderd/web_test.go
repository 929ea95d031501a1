package main

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// overTCP asks the page's server, over TCP.
func (p *process) overTCP(method, path string) (code int, body []byte) {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.web+path, nil)
	if err != nil {
		p.tb.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.tb.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		p.tb.Fatal(err)
	}
	return resp.StatusCode, body
}

func TestThePageAndWhatProgramsReadBehindIt(t *testing.T) {
	p := start(t, settings{sub: true, outputs: hall("rtmp://127.0.0.1:1/live")})
	for path, want := range map[string][]string{
		"/":             {"<!doctype html>", "page.js"},
		"/healthz":      {`"ok"`},
		"/metrics":      {`encoderd_state{state="off"} 1`, `encoderd_rendition_frames_total{rendition="main"}`, `encoderd_output_state{output="hall",state="off"} 1`},
		"/page/page.js": {"api/v1/events"},
	} {
		if code, body := p.overTCP(http.MethodGet, path); code != http.StatusOK || !containsAll(strings.ToLower(string(body)), want...) {
			t.Errorf("%s answers %d without %q:\n%.2000s", path, code, want, body)
		}
	}
	code, body := p.overTCP(http.MethodPost, "/api/v1/actions/stream.start")
	if code != http.StatusForbidden {
		t.Errorf("an action over TCP is answered with %d: %s", code, body)
	}
	if b := p.now(); b.Outputs[0].State != "off" {
		t.Errorf("the refused action worked: %+v", b.Outputs[0])
	}
	p.do("stream.start")
	p.until("the action over the socket to work", func(b status.Box) bool { return b.Outputs[0].State != "off" })
}

// What others rely on; see the design page.
func TestTheStatusHasEverythingThatOthersRelyOn(t *testing.T) {
	p := start(t, settings{outputs: hall("rtmp://127.0.0.1:1/live")})
	v := p.view("main", "tcp")
	p.until("a reader and the output's retry", func(b status.Box) bool { return watched(1)(b) })
	p.do("stream.start")
	p.until("the output's retry", outputIs("backoff"))
	_, body := p.overTCP(http.MethodGet, "/api/v1/status")
	var doc map[string]any
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	first := func(key string) any {
		list, ok := doc[key].([]any)
		if !ok || len(list) == 0 {
			t.Fatalf("%s is %v", key, doc[key])
		}
		return list[0]
	}
	lamps, _ := doc["lamps"].(map[string]any)
	for _, part := range []struct {
		name string
		in   any
		keys string
	}{
		{"box", doc, "state board input renditions outputs readers av_offset_ms lamps tally faults temperature_c storage"},
		{"input", doc["input"], "signal width height fps format"},
		{"rendition", first("renditions"), "name codec encoder width height fps bitrate frames dropped copied_bytes"},
		{"output", first("outputs"), "name state error retry_at lag_ms bitrate"},
		{"reader", first("readers"), "protocol rendition peer since bytes lost"},
		{"fault", first("faults"), "code title text since"},
		{"lamp", lamps["STREAM"], "pattern reason"},
		{"tally", doc["tally"], "state sources"},
	} {
		have, ok := part.in.(map[string]any)
		if !ok {
			t.Errorf("%s is %v", part.name, part.in)
			continue
		}
		for key := range strings.FieldsSeq(part.keys) {
			if _, ok := have[key]; !ok {
				t.Errorf("%s has no %q: %v", part.name, key, have)
			}
		}
	}
	v.Kill()
}

func TestTheSnapshotIsThePictureThatComesIn(t *testing.T) {
	p := start(t, settings{})
	// On a busy machine the camera may be late, and the slate comes in.
	peer.Await(t, "a fresh test picture", func() bool {
		near := stream.Monotonic()
		code, body := p.overTCP(http.MethodGet, "/live/main.jpg")
		if code != http.StatusOK {
			t.Fatalf("status %d: %s", code, body)
		}
		img, err := jpeg.Decode(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		size := img.Bounds()
		if size.Dx() != 320 || size.Dy() != 180 {
			t.Errorf("size %v", size)
		}
		c, ok := picture.Read(gray(img), size.Dx(), size.Dx(), size.Dy())
		age := near - c.Clock(near)
		t.Logf("test picture: %t, %v old", ok, age)
		return ok && age < time.Second
	})
	if code, body := p.overTCP(http.MethodGet, "/live/none.jpg"); code != http.StatusNotFound {
		t.Errorf("a rendition that is not there: %d %s", code, body)
	}
}

func gray(img image.Image) []byte {
	var luma []byte
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			luma = append(luma, color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y)
		}
	}
	return luma
}
