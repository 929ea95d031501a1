package systemd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socket stands in for systemd's end of NOTIFY_SOCKET.
func socket(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

func TestReadySpeaksTheNotifyProtocol(t *testing.T) {
	c := socket(t)
	if err := Ready("on air"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if got := string(b[:n]); err != nil || got != "READY=1\nSTATUS=on air" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestNotifySocketMayBeAbstract(t *testing.T) {
	name := "@encoderd-test-" + strconv.Itoa(os.Getpid())
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	if err := errors.Join(Status("a"), Stopping()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"STATUS=a", "STOPPING=1"} {
		b := make([]byte, 100)
		if n, err := c.Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("got %q, %v; want %q", b[:n], err, want)
		}
	}
}

func TestASystemdThatIsGoneIsAnError(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	if err := Ready("x"); err == nil || !strings.HasPrefix(err.Error(), "notify systemd: ") {
		t.Errorf("got %v", err)
	}
	if err := Watchdog(t.Context(), func() bool { return true }); err == nil {
		t.Error("the watchdog cannot be fed, and nobody says so")
	}
}

func TestTheWatchdogOfAnotherProcessIsNotOurs(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "1000")
	t.Setenv("WATCHDOG_PID", "1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Watchdog(ctx, func() bool { t.Error("asked"); return true }); err != nil {
		t.Error(err)
	}
}

func TestABadWatchdogIntervalIsAnError(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "soon")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	if err := Watchdog(t.Context(), func() bool { return true }); err == nil {
		t.Error("taken for no watchdog")
	}
}

func TestOutsideSystemdNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	if err := errors.Join(Ready("x"), Status("y"), Stopping()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Watchdog(ctx, func() bool { t.Error("asked without a watchdog"); return true }); err != nil {
		t.Error(err)
	}
}

func TestWatchdogIsFedByProgressOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var fed []time.Duration
		ctx, cancel := context.WithTimeout(t.Context(), 10500*time.Millisecond)
		defer cancel()
		hung := func() bool { d := time.Since(begin); return d < 3500*time.Millisecond || d > 7500*time.Millisecond }
		err := feed(ctx, time.Second, hung, func() error {
			fed = append(fed, time.Since(begin)/time.Second)
			return nil
		})
		want := []time.Duration{1, 2, 3, 8, 9, 10}
		if err != nil || len(fed) != len(want) {
			t.Fatalf("fed at %v, want %v; %v", fed, want, err)
		}
		for i := range want {
			if fed[i] != want[i] {
				t.Errorf("fed at %v, want %v", fed, want)
			}
		}
	})
}

func TestJournalFields(t *testing.T) {
	var message string
	var fields map[string]string
	var prio journal.Priority
	h := &handler{level: slog.LevelInfo, send: func(m string, p journal.Priority, f map[string]string) error {
		message, prio, fields = m, p, f
		return nil
	}}
	log := slog.New(h).With("service", "push/youtube")
	log.WithGroup("net").Warn("will retry", "err", errors.New("connection reset"), "attempt", 3, "message", "x")
	if message != "will retry service=push/youtube net_err=connection reset net_attempt=3 net_message=x" {
		t.Errorf("message %q", message)
	}
	if prio != journal.PriWarning || fields["SERVICE"] != "push/youtube" || fields["NET_ATTEMPT"] != "3" {
		t.Errorf("priority %v, fields %v", prio, fields)
	}
	if log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug is on")
	}
}

func TestFieldNames(t *testing.T) {
	for key, want := range map[string]string{"service": "SERVICE", "retry_at": "RETRY_AT", "a-b": "A_B", "_x": "X", "9": "X_", "message": "X_MESSAGE"} {
		if got := fieldName(key); got != want || strings.HasPrefix(got, "_") {
			t.Errorf("%q became %q, want %q", key, got, want)
		}
	}
}
