package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"encoderd.example/daemon"
	"encoderd.example/daemon/config"
	"encoderd.example/daemon/status"
	"encoderd.example/webui"
)

// box is the daemon as the pages see it.
type box struct{ *daemon.Daemon }

var _ webui.Box = box{}

// Link implements [webui.Box].
func (b box) Link(rendition string, length time.Duration) (string, time.Time, error) {
	token, until, err := b.Daemon.Link(rendition, length)
	return token, until, translate(err)
}

// Do implements [webui.Box].
func (b box) Do(ctx context.Context, action string, args map[string]string, by string) error {
	return translate(b.Daemon.Do(ctx, action, args, by))
}

// Actions implements [webui.Box].
func (b box) Actions() []webui.ActionInfo {
	var list []webui.ActionInfo
	for _, a := range b.Daemon.Actions() {
		list = append(list, webui.ActionInfo{Name: a.Name, Text: a.Text, Args: append([]string{}, a.Args...)})
	}
	return list
}

// Healthy implements [webui.Box]: an idle box is well, one whose encoder or
// server is down is not.
func (b box) Healthy() error {
	s, version := b.Status()
	if version == 0 {
		return errors.New("the box is starting")
	}
	var errs []error
	broken := []status.FaultCode{status.EncoderFailed, status.EncoderMissing, status.ServerFailed, status.ServiceStuck}
	for _, f := range s.Faults {
		if slices.Contains(broken, f.Code) {
			errs = append(errs, errors.New(f.Title+": "+f.Text))
		}
	}
	return errors.Join(errs...)
}

// translate gives the daemon's errors the names that the pages know.
func translate(err error) error {
	for _, t := range []struct{ from, to error }{
		{daemon.ErrNoRendition, webui.ErrUnknown},
		{daemon.ErrNoAction, webui.ErrUnknown},
		{daemon.ErrBadArgument, webui.ErrArguments},
	} {
		if errors.Is(err, t.from) {
			return alias{err, t.to}
		}
	}
	return err
}

// An alias reads as one error and is another one, too.
type alias struct {
	error
	as error
}

// Unwrap returns both.
func (a alias) Unwrap() []error { return []error{a.error, a.as} }

// serveWeb serves the page over TCP.
func serveWeb(ctx context.Context, addr string, c config.Config, d *daemon.Daemon, log *slog.Logger, live func()) error {
	hosts := append([]string{}, c.Serve.Hosts...)
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	s := webui.Server{
		Options: webui.Options{Box: box{d}, Log: log.With("service", "web"), Hosts: hosts, Live: http.HandlerFunc(d.ServeLive)},
		Addr:    addr, Live: live,
	}
	return s.Run(ctx)
}

// socketName is the control socket in the state directory.
const socketName = "control.sock"

// listenControl opens the control socket; the state directory's lock says that
// an old one is dead.
func listenControl(ctx context.Context, state string) (net.Listener, error) {
	path := socketPath(state)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old control socket: %w", err)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the control socket: %w", err), ln.Close())
	}
	return ln, nil
}
