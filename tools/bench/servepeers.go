package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"encoderd.example/stream/streamtest/peer"
)

// The protocols that are measured.
const (
	overRTSP = "rtsp/tcp"
	overUDP  = "rtsp/udp"
	overRTMP = "rtmp"
	overFLV  = "http-flv"
	overHLS  = "hls"
)

// served lists them in the order of measuring.
var served = []string{overRTSP, overUDP, overRTMP, overFLV, overHLS}

// A rival is a server to measure.
type rival struct {
	name      string
	env       string // which variable names the program; "" is installed
	protocols []string
	start     func(ctx context.Context, b *bench, program, show string) (*host, error)
}

// The servers' names.
const (
	ours     = "encoderd"
	mediamtx = "MediaMTX"
	nginx    = "nginx-rtmp"
	go2rtc   = "go2rtc"
	bare     = "the floor"
)

var rivals = []rival{
	{ours, "", served, startOurs},
	{mediamtx, "PEER_MEDIAMTX", []string{overRTSP, overUDP, overRTMP, overHLS}, startMediaMTX},
	{nginx, "", []string{overRTMP, overHLS}, startNginx},
	{go2rtc, "PEER_GO2RTC", []string{overRTSP, overRTMP, overFLV, overHLS}, startGo2RTC},
	{bare, "", []string{overRTSP}, startFloor},
}

// A host is a server under way, with what publishes to it.
type host struct {
	*process
	publisher *load             // nil: it has the show itself
	url       map[string]string // by protocol
}

func (c *host) end() {
	if c.publisher != nil {
		c.publisher.stop()
	}
	c.stop()
}

func startOurs(_ context.Context, b *bench, _, show string) (*host, error) {
	var l *load
	err := relaxed(func() (err error) {
		l, err = b.startLoad("serve", show)
		return err
	})
	if err != nil {
		return nil, err
	}
	var d doorway
	if err := json.Unmarshal([]byte(l.first), &d); err != nil {
		l.stop()
		return nil, fmt.Errorf("hear from the server: %w", err)
	}
	return &host{process: l.process, url: ourURLs(d)}, nil
}

func ourURLs(d doorway) map[string]string {
	return map[string]string{
		overRTSP: "rtsp://" + d.RTSP + "/main",
		overUDP:  "rtsp://" + d.RTSP + "/main",
		overRTMP: "rtmp://" + d.RTMP + "/live/main",
		overFLV:  "http://" + d.HTTP + "/live/main.flv",
		overHLS:  "http://" + d.HTTP + "/live/main/index.m3u8",
		profile:  "http://" + d.Profile + "/debug/pprof/profile",
	}
}

const profile = "pprof"

// startFloor starts the bare writer on the bytes that our RTSP server writes.
func startFloor(_ context.Context, b *bench, _, show string) (*host, error) {
	s, err := readShow(show)
	if err != nil {
		return nil, err
	}
	units, err := s.batches()
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(units)
	if err != nil {
		return nil, fmt.Errorf("write the units: %w", err)
	}
	file := filepath.Join(b.dir, "batches.json")
	if err := os.WriteFile(file, doc, 0o600); err != nil {
		return nil, fmt.Errorf("write the units: %w", err)
	}
	l, err := b.startLoad("floor", file)
	if err != nil {
		return nil, err
	}
	return &host{process: l.process, url: map[string]string{overRTSP: "tcp://" + l.first}}, nil
}

// mediaMTXConfig leaves everything that is not about addresses as it is by
// default.
const mediaMTXConfig = `
logLevel: warn
rtspAddress: %s
rtspTransports: [udp, tcp]
rtpAddress: 127.0.0.1:%d
rtcpAddress: 127.0.0.1:%d
rtmpAddress: %s
hlsAddress: %s
webrtc: false
srt: false
moq: false
paths:
  all_others:
`

func startMediaMTX(ctx context.Context, b *bench, program, show string) (*host, error) {
	a, err := addresses(ctx)
	if err != nil {
		return nil, err
	}
	udp, err := portPair(ctx)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(mediaMTXConfig, a.RTSP, udp, udp+1, a.RTMP, a.HTTP)
	return b.startPeer(ctx, a, "rtmp://"+a.RTMP+"/live/main", show, map[string]string{
		overRTSP: "rtsp://" + a.RTSP + "/live/main",
		overUDP:  "rtsp://" + a.RTSP + "/live/main",
		overRTMP: "rtmp://" + a.RTMP + "/live/main",
		overHLS:  "http://" + a.HTTP + "/live/main/index.m3u8",
	}, config, program)
}

const go2RTCConfig = `
api: {listen: %q}
rtsp: {listen: %q}
rtmp: {listen: %q}
webrtc: {listen: ""}
srtp: {listen: ""}
log: {level: warn}
streams: {main: ""}
`

func startGo2RTC(ctx context.Context, b *bench, program, show string) (*host, error) {
	a, err := addresses(ctx)
	if err != nil {
		return nil, err
	}
	return b.startPeer(ctx, a, "rtmp://"+a.RTMP+"/main/main", show, map[string]string{
		overRTSP: "rtsp://" + a.RTSP + "/main",
		overRTMP: "rtmp://" + a.RTMP + "/main/main",
		overFLV:  "http://" + a.HTTP + "/api/stream.flv?src=main",
		overHLS:  "http://" + a.HTTP + "/api/stream.m3u8?src=main&mp4",
	}, fmt.Sprintf(go2RTCConfig, a.HTTP, a.RTSP, a.RTMP), program, "-config")
}

const nginxServeConfig = `
%s
daemon off;
master_process off;
pid %s/serve.pid;
error_log stderr warn;
worker_processes 1;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
rtmp {
  access_log off;
  server {
    listen %s;
    chunk_size 4096;
    application live {
      live on;
      hls on;
      hls_path %s;
      hls_fragment 1s;
      hls_playlist_length 8s;
    }
  }
}
http {
  access_log off;
  server {
    listen %s;
    location / { root %s; }
  }
}
`

func startNginx(ctx context.Context, b *bench, _, show string) (*host, error) {
	a, err := addresses(ctx)
	if err != nil {
		return nil, err
	}
	a.RTSP = "" // it has none
	segments, err := os.MkdirTemp(b.dir, "hls-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for segments: %w", err)
	}
	config := fmt.Sprintf(nginxServeConfig, peer.NginxModule(), b.dir, a.RTMP, segments, a.HTTP, segments)
	return b.startPeer(ctx, a, "rtmp://"+a.RTMP+"/live/main", show, map[string]string{
		overRTMP: "rtmp://" + a.RTMP + "/live/main",
		overHLS:  "http://" + a.HTTP + "/main.m3u8",
	}, config, "nginx", "-p", b.dir, "-e", "stderr", "-c")
}

// startPeer starts a program with its config as the last argument and, once it
// listens, what publishes the show to it.
func (b *bench) startPeer(ctx context.Context, a doorway, target, show string, urls map[string]string, config, program string, args ...string) (*host, error) {
	file := filepath.Join(b.dir, "peer.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write the peer's config: %w", err)
	}
	p, err := start(nil, program, append(args, file)...)
	if err != nil {
		return nil, err
	}
	c := &host{process: p, url: urls}
	err = await(ctx, p.name+" to listen", func() bool {
		return p.alive() != nil || listening(ctx, a.RTMP) && listening(ctx, a.HTTP)
	})
	if err = errors.Join(err, p.alive()); err != nil {
		c.end()
		return nil, err
	}
	job, err := json.Marshal(publishJob{File: show, URL: target})
	if err == nil {
		c.publisher, err = b.startLoad("publish", string(job))
	}
	if err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// addresses finds some that nobody listens on.
func addresses(ctx context.Context) (d doorway, err error) {
	for _, a := range []*string{&d.RTSP, &d.RTMP, &d.HTTP} {
		if *a, err = peer.FindAddress(ctx); err != nil {
			return d, err
		}
	}
	return d, nil
}

// portPair finds an even UDP port that is free, as the one after it is.
func portPair(ctx context.Context) (int, error) {
	first, second, err := openSomePair(ctx)
	if err != nil {
		return 0, err
	}
	port, err := portOf(first)
	return port, errors.Join(err, first.Close(), second.Close())
}

func portOf(c net.PacketConn) (int, error) {
	_, name, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(name)
}

// openSomePair opens an even UDP port and the one after it, wherever there are
// two.
func openSomePair(ctx context.Context) (first, second net.PacketConn, err error) {
	for range 100 {
		if first, second, err = openPair(ctx); err == nil {
			return first, second, nil
		}
	}
	return nil, nil, fmt.Errorf("no two UDP ports are free side by side: %w", err)
}

// openPair opens an even UDP port and the one after it (RFC 3550, 11).
func openPair(ctx context.Context) (first, second net.PacketConn, err error) {
	var lc net.ListenConfig
	if first, err = lc.ListenPacket(ctx, "udp4", "127.0.0.1:0"); err != nil {
		return nil, nil, err
	}
	port, err := portOf(first)
	if err == nil && port%2 == 1 {
		err = errors.New("an odd port")
	}
	if err == nil {
		second, err = lc.ListenPacket(ctx, "udp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1)))
	}
	if err != nil {
		return nil, nil, errors.Join(err, first.Close())
	}
	return first, second, nil
}

// invited returns who is there, and says who is not.
func (b *bench) invited() (here []rival, programs map[string]string) {
	programs = map[string]string{}
	for _, v := range rivals {
		if v.env == "" {
			here = append(here, v)
			continue
		}
		if p := os.Getenv(v.env); p != "" {
			here, programs[v.name] = append(here, v), p
			continue
		}
		b.table.note("%s is not measured: %s names no program", v.name, v.env)
	}
	return here, programs
}
