package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"

	"encoderd.example/daemon/config"
)

func TestATakenPortNamesTheRemedy(t *testing.T) {
	other, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	d := &Daemon{Options: Options{Log: slog.New(slog.DiscardHandler)}}
	d.Web = func(ctx context.Context, addr string, _ config.Config, _ *Daemon, _ func()) error {
		_, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		return err
	}
	for name, service := range map[string]run{
		"rtsp":   d.serveRTSP(rtspConfig{Addr: other.Addr().String()}),
		"rtmp":   d.serveRTMP(rtmpConfig{Addr: other.Addr().String()}),
		"webrtc": d.serveWebRTC(webrtcConfig{Addr: other.Addr().String()}),
		"web":    d.web(webConfig{Addr: other.Addr().String()}),
	} {
		t.Run(name, func(t *testing.T) {
			err := service(t.Context(), func() { t.Error("live without a port") })
			if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "[serve]") {
				t.Errorf("got %v, want the port's error with what to do", err)
			}
		})
	}
}
