package external

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == childArg {
		unix.Exit(runChild(os.Args[2])) // without the second that the race detector sleeps
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(built)
		os.Exit(code)
	}))
}

// built is the folder of the reference programs, once there is one.
var built string

// programs builds the reference programs when they are first needed, and
// returns their folder.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "encoderd-devices")
	if err != nil {
		return "", err
	}
	built = dir
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", dir+"/", "./testcamera", "./x264")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build the reference programs: %w\n%s", err, out)
	}
	return dir, nil
})

// reference returns the path of a reference program.
func reference(t *testing.T, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// A journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) log() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// install puts reference programs into a folder of their own and returns its
// finder.
func install(t *testing.T, names ...string) *Finder {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range names {
		if err := os.Link(reference(t, p), filepath.Join(dir, p)); err != nil {
			t.Fatal(err)
		}
	}
	return &Finder{Dir: dir, Owner: uint32(os.Getuid()), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func findCamera(t *testing.T, f *Finder) hw.Camera {
	t.Helper()
	list, err := f.Cameras()
	if err != nil || len(list) != 1 {
		t.Fatalf("found %d cameras: %v", len(list), err)
	}
	return list[0]
}

func findEncoder(t *testing.T, f *Finder) hw.EncoderDriver {
	t.Helper()
	list, err := f.Encoders()
	if err != nil || len(list) != 1 {
		t.Fatalf("found %d encoders: %v", len(list), err)
	}
	return list[0]
}

// impatient lets tests of what never comes be short.
var impatient = patience{hello: 3 * time.Second, answer: 3 * time.Second, end: 300 * time.Millisecond, silent: time.Second}

// scripted is the program that plays a script.
func scripted(t *testing.T, script string) program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program{
		id: "external:" + script, path: self, args: []string{childArg, script}, patience: impatient,
		log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// noLeaks checks at the end of a test that no descriptor and no goroutine is
// left.
func noLeaks(t *testing.T) {
	t.Helper()
	goroutines := goleak.IgnoreCurrent()
	before := descriptors(t)
	t.Cleanup(func() {
		goleak.VerifyNone(t, goroutines)
		if after := descriptors(t); len(after) != len(before) {
			t.Errorf("%d descriptors before, %d after: %v", len(before), len(after), after)
		}
	})
}

func descriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(to, "/proc/") && !strings.Contains(to, "anon_inode") { // the listing, Go's poller
			list = append(list, e.Name()+" "+to)
		}
	}
	return list
}

func wantErr(t *testing.T, err error, is error, text string) {
	t.Helper()
	if !errors.Is(err, is) || err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %v with %q", err, is, text)
	}
}
