// Package systemd is the daemon's side of systemd: readiness, watchdog and
// journal. The unit files that it belongs to lie beside it. It is the only
// importer of go-systemd.
//
// Outside systemd every call does nothing, so that the program runs the same
// from a shell.
package systemd

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready tells systemd that the unit is up; text is shown by systemctl status.
func Ready(text string) error { return notify(daemon.SdNotifyReady + "\nSTATUS=" + text) }

// Status changes what systemctl status shows.
func Status(text string) error { return notify("STATUS=" + text) }

// Stopping tells systemd that shutdown has begun.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// Watchdog feeds systemd's watchdog until ctx ends. Four times in each
// interval that the unit sets (WatchdogSec=) it asks alive, and only a yes is
// passed on: a hung media path ends in a restart. Without a watchdog it just
// waits.
func Watchdog(ctx context.Context, alive func() bool) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read the watchdog's interval: %w", err)
	}
	if interval == 0 {
		<-ctx.Done()
		return nil
	}
	return feed(ctx, interval/4, alive, func() error { return notify(daemon.SdNotifyWatchdog) })
}

func feed(ctx context.Context, every time.Duration, alive func() bool, send func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if !alive() {
			continue
		}
		if err := send(); err != nil {
			return err
		}
	}
}
