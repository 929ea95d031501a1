package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// What all programs encode.
const (
	width, height = 1280, 720
	fps           = 30
	gop           = 60
	kbps          = 3000
	soundKbps     = 128
	soundRate     = 48000
	soundFrame    = 1024 // samples of an AAC frame
)

// A box is encoderd on the software board.
type box struct {
	*process
	web, rtsp string // addresses
}

const boxConfig = `
[video]
source = "test"
width = %d
height = %d
fps = %d

[audio]
source = "test"
bitrate = "%dk"

[[rendition]]
name = "main"
bitrate = "%dk"
gop = "%dms"
preset = "veryfast"
profile = "high"
threads = 1

[serve]
web = %q
rtsp = %q
`

const outputConfig = `
[[output]]
name = "sink"
url = %q
rendition = "main"
start = "boot"
`

// startBox starts encoderd, which pushes to the address, if any, and serves
// RTSP, if wanted. It returns once it is ready.
func (b *bench) startBox(ctx context.Context, push string, serve bool) (*box, error) {
	x := &box{}
	var err error
	if x.web, err = peer.FindAddress(ctx); err != nil {
		return nil, err
	}
	if serve {
		if x.rtsp, err = peer.FindAddress(ctx); err != nil {
			return nil, err
		}
	}
	config := fmt.Sprintf(boxConfig, width, height, fps, soundKbps, kbps, gop*1000/fps, x.web, x.rtsp)
	if push != "" {
		config += fmt.Sprintf(outputConfig, push)
	}
	state, err := os.MkdirTemp(b.dir, "state-")
	if err != nil {
		return nil, fmt.Errorf("make a state directory: %w", err)
	}
	file := filepath.Join(state, "bench.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write the config: %w", err)
	}
	if x.process, err = start(nil, b.encoderd, "run", "--board", "sim", "--state", state, "--config", file); err != nil {
		return nil, err
	}
	err = await(ctx, "encoderd to publish", func() bool { return x.alive() != nil || x.publishing(ctx) })
	if err = errors.Join(err, x.alive()); err != nil {
		x.stop()
		return nil, err
	}
	return x, nil
}

func (x *box) publishing(ctx context.Context) bool {
	s, err := x.status(ctx)
	return err == nil && len(s.Renditions) == 1 && s.Renditions[0].Frames > 0 && s.Sound.Signal
}

func (x *box) get(ctx context.Context, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+x.web+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("get %s: %s", path, resp.Status)
	}
	return resp, nil
}

func (x *box) status(ctx context.Context) (s status.Box, err error) {
	resp, err := x.get(ctx, "/api/v1/status")
	if err != nil {
		return s, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("read the status: %w", err)
	}
	return s, nil
}

// metrics returns the samples of /metrics, summed over their labels.
func (x *box) metrics(ctx context.Context) (map[string]float64, error) {
	resp, err := x.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	samples := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		name, _, _ := strings.Cut(line, " ")
		name, _, _ = strings.Cut(name, "{")
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err == nil && !strings.HasPrefix(line, "#") {
			samples[name] += v
		}
	}
	return samples, nil
}
