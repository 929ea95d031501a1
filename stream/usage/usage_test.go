package usage

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a ledger of a file that need not exist, with a clock to turn.
func open(t *testing.T, path string, now *time.Time) *Ledger {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l.now = func() time.Time { return *now }
	return l
}

func table(t *testing.T, l *Ledger) string {
	t.Helper()
	var b strings.Builder
	if err := l.WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func want(t *testing.T, l *Ledger, rows ...string) {
	t.Helper()
	lines := "date,rendition,protocol,readers,peak,hours,bytes\n"
	for _, r := range rows {
		lines += r + "\n"
	}
	if got := table(t, l); got != lines {
		t.Errorf("got\n%swant\n%s", got, lines)
	}
}

func TestAnEvening(t *testing.T) {
	now := time.Date(2026, time.November, 21, 20, 0, 0, 0, time.UTC)
	l := open(t, filepath.Join(t.TempDir(), "usage.json"), &now)
	var a stream.Audience
	a.SetBook(l)
	join := func(protocol string) (*stream.Viewer, func()) {
		v := &stream.Viewer{Protocol: protocol, Rendition: "main"}
		leave, err := a.Admit(v, stream.Credentials{})
		if err != nil {
			t.Fatal(err)
		}
		return v, leave
	}
	one, leaveOne := join("hls")
	_, leaveTwo := join("hls")
	rtsp, _ := join("rtsp/tcp")
	one.Bytes.Add(1000)
	now = now.Add(time.Hour)
	leaveOne()
	leaveTwo()
	one.Bytes.Add(99) // written too late to count
	_, leaveThree := join("hls")
	leaveThree()
	want(t, l, "2026-11-21,main,hls,3,2,2.000,1000", "2026-11-21,main,rtsp/tcp,1,1,1.000,0")

	rtsp.Bytes.Add(500)
	now = now.Add(4 * time.Hour) // past midnight: the day before gets what was since the last look
	want(t, l, "2026-11-21,main,hls,3,2,2.000,1000", "2026-11-21,main,rtsp/tcp,1,1,5.000,500", "2026-11-22,main,rtsp/tcp,1,1,0.000,0")
	rtsp.Bytes.Add(7)
	now = now.Add(-time.Hour) // the clock is set back
	want(t, l, "2026-11-21,main,hls,3,2,2.000,1000", "2026-11-21,main,rtsp/tcp,1,1,5.000,500", "2026-11-22,main,rtsp/tcp,1,1,0.000,7")
}

func TestTheBookOutlivesTheProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "usage.json")
		now := time.Now()
		l := open(t, path, &now)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx, slog.New(slog.DiscardHandler)) }()
		v := &stream.Viewer{Protocol: "hls", Rendition: "main"}
		l.Joined(v)
		v.Bytes.Add(10)
		time.Sleep(saveEvery)
		synctest.Wait()
		again := open(t, path, &now) // as after a power cut
		if got := table(t, again); got != table(t, l) || !strings.Contains(got, ",1,1,0.000,10") {
			t.Errorf("got %s", got)
		}
		v.Bytes.Add(10)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		again = open(t, path, &now)
		if got := table(t, again); !strings.Contains(got, ",1,1,0.000,20") {
			t.Errorf("got %s", got)
		}
		again.Joined(&stream.Viewer{Protocol: "hls", Rendition: "main"})
		if got := table(t, again); !strings.Contains(got, ",2,1,0.000,20") {
			t.Errorf("got %s", got)
		}
	})
}

func TestOldDaysGo(t *testing.T) {
	now := time.Date(2026, time.November, 21, 20, 0, 0, 0, time.UTC)
	l := open(t, filepath.Join(t.TempDir(), "usage.json"), &now)
	for range KeepDays + 100 {
		v := &stream.Viewer{Protocol: "hls", Rendition: "main"}
		l.Joined(v)
		l.Left(v)
		now = now.AddDate(0, 0, 1)
	}
	if n := len(l.Lines()); n != KeepDays {
		t.Errorf("%d days are kept", n)
	}
}

func TestAWrongClockCostsNothing(t *testing.T) {
	now := time.Date(2026, time.November, 21, 20, 0, 0, 0, time.UTC)
	l := open(t, filepath.Join(t.TempDir(), "usage.json"), &now)
	watched := func(from time.Time) {
		now = from
		v := &stream.Viewer{Protocol: "hls", Rendition: "main"}
		l.Joined(v)
		l.Left(v)
		_ = l.Lines()
	}
	for i := range KeepDays - 2 {
		watched(time.Date(2026, time.November, 21+i, 20, 0, 0, 0, time.UTC))
	}
	today := now
	watched(time.Date(2106, time.February, 7, 6, 28, 0, 0, time.UTC))
	watched(time.Date(1970, time.January, 1, 0, 0, 10, 0, time.UTC))
	now = today
	lines := l.Lines()
	if len(lines) != KeepDays || lines[0].Date != "1970-01-01" || lines[1].Date != "2026-11-21" {
		t.Fatalf("%d days are kept, the oldest of %v", len(lines), lines[0].Date)
	}
	watched(today.AddDate(0, 0, 1))
	if lines = l.Lines(); len(lines) != KeepDays || lines[0].Date != "2026-11-21" {
		t.Errorf("%d days are kept, the oldest of %v", len(lines), lines[0].Date)
	}
}

func TestABadFileIsSetAside(t *testing.T) {
	for name, text := range map[string]string{
		"cut off":  `[{"date":"2026-11-21","rendition":"ma`,
		"no date":  `[{"date":"yesterday"}]`,
		"no lines": `{}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "usage.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(path)
			if err == nil || !strings.Contains(err.Error(), path+".bad") {
				t.Errorf("got %v", err)
			}
			if b, err := os.ReadFile(path + ".bad"); err != nil || string(b) != text {
				t.Errorf("set aside: %q, %v", b, err)
			}
			l.Joined(&stream.Viewer{Protocol: "hls", Rendition: "main"})
			if err := l.save(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestADiskThatRefuses(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	l := open(t, filepath.Join(dir, "none", "usage.json"), &now)
	l.Joined(&stream.Viewer{Protocol: "hls", Rendition: "main"})
	if err := l.save(); err == nil {
		t.Fatal("no error")
	}
	if err := os.Mkdir(filepath.Join(dir, "none"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.save(); err != nil { // what could not be written is still to write
		t.Fatal(err)
	}
	if again := open(t, l.path, &now); table(t, again) != table(t, l) {
		t.Error("the file differs")
	}
}
