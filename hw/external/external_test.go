package external

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
)

func TestFinderListsCamerasAndEncoders(t *testing.T) {
	noLeaks(t)
	f := install(t, "testcamera", "x264")
	c, d := findCamera(t, f), findEncoder(t, f)
	if c.ID() != "external:testcamera" || c.Name() != "Test picture in a process" {
		t.Errorf("camera %q, %q", c.ID(), c.Name())
	}
	modes, err := c.Modes()
	if err != nil || len(modes) < 2 || modes[0] != (hw.Mode{Pixel: hw.NV12, Width: 1920, Height: 1080, FPS: hw.Rate{Num: 30, Den: 1}}) {
		t.Errorf("modes %v: %v", modes, err)
	}
	if d.Name != "external:x264" || !d.Hardware || !slices.Equal(d.Importer.Takes(), []hw.PixelFormat{hw.NV12, hw.I420, hw.YUYV, hw.I422}) {
		t.Errorf("driver %+v", d)
	}
	if _, ok := c.(hw.SignalCamera); ok {
		t.Error("a camera that told nothing of a signal awaits one")
	}
}

func TestNoFolderIsNoDevice(t *testing.T) {
	f := &Finder{Dir: "/usr/lib/encoderd/no-such-folder"}
	if list, err := f.Cameras(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if list, err := f.Encoders(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestAFolderThatOthersCanChangeIsRefused(t *testing.T) {
	for name, spoil := range map[string]struct {
		with func(dir string, f *Finder) error
		text string
	}{
		"writable by the group": {func(dir string, _ *Finder) error { return os.Chmod(dir, 0o775) }, "written by others"},
		"writable by all":       {func(dir string, _ *Finder) error { return os.Chmod(dir, 0o1777) }, "written by others"},
		"below one that all can change": {func(dir string, f *Finder) error {
			f.Dir = filepath.Join(dir, "devices")
			return errors.Join(os.Mkdir(f.Dir, 0o755), os.Chmod(dir, 0o777))
		}, "written by others"},
		"of another user": {func(_ string, f *Finder) error { f.Owner = 4_000_000; return nil }, "belongs to user"},
		"a file":          {func(dir string, f *Finder) error { f.Dir = filepath.Join(dir, "testcamera"); return nil }, "no folder"},
		"a symbolic link": {func(dir string, f *Finder) error {
			f.Dir = filepath.Join(dir, "link")
			return os.Symlink(dir, f.Dir)
		}, "symbolic link"},
		"relative": {func(_ string, f *Finder) error { f.Dir = "devices"; return nil }, "absolute"},
	} {
		t.Run(name, func(t *testing.T) {
			f := install(t, "testcamera")
			if err := spoil.with(f.Dir, f); err != nil {
				t.Fatal(err)
			}
			_, err := f.Cameras()
			wantErr(t, err, hw.ErrUnsupported, spoil.text)
			_, err = f.Encoders()
			wantErr(t, err, hw.ErrUnsupported, spoil.text)
		})
	}
}

func TestAProgramThatOthersCanChangeIsLeftOut(t *testing.T) {
	for name, spoil := range map[string]struct {
		with func(path string) error
		text string
	}{
		"writable by the group": {func(p string) error { return os.Chmod(p, 0o775) }, "written by others"},
		"writable by all":       {func(p string) error { return os.Chmod(p, 0o757) }, "written by others"},
		"not executable":        {func(p string) error { return os.Chmod(p, 0o644) }, "not executable"},
		"a symbolic link": {func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink(reference(t, "testcamera"), p))
		}, "no regular file"},
		"a folder":       {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, "no regular file"},
		"a strange name": {func(p string) error { return os.Rename(p, p+" 2.0") }, "letters"},
		"a backup":       {func(p string) error { return os.Rename(p, filepath.Join(filepath.Dir(p), ".old")) }, "letters"},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			f := install(t, "x264")
			j := &journal{}
			f.Log = j.log()
			path := filepath.Join(f.Dir, "testcamera")
			raw, err := os.ReadFile(reference(t, "testcamera"))
			if err == nil {
				err = errors.Join(os.WriteFile(path, raw, 0o755), spoil.with(path))
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if list, err := f.Cameras(); err != nil || len(list) != 0 {
					t.Errorf("%v, %v", list, err)
				}
			}
			if d := findEncoder(t, f); d.Name != "external:x264" { // the others stay
				t.Errorf("driver %q", d.Name)
			}
			if text := j.String(); strings.Count(text, "left out") != 1 || !strings.Contains(text, spoil.text) {
				t.Errorf("logged: %s", text)
			}
		})
	}
}

// script installs a program of a few lines, which says in a file how often it
// was started.
func script(t *testing.T, f *Finder, lines string) (starts func() int) {
	t.Helper()
	count := filepath.Join(t.TempDir(), "starts")
	path := filepath.Join(f.Dir, "script")
	text := "#!/bin/sh\necho started >> " + count + "\n" + lines
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return func() int {
		b, _ := os.ReadFile(count)
		return strings.Count(string(b), "started")
	}
}

func TestAProgramIsAskedOnce(t *testing.T) {
	noLeaks(t)
	f := install(t)
	starts := script(t, f, "exec "+reference(t, "testcamera")+"\n")
	for range 3 {
		findCamera(t, f)
	}
	if n := starts(); n != 1 {
		t.Errorf("started %d times", n)
	}
	again := script(t, f, "exec "+reference(t, "testcamera")+" # another one\n")
	findCamera(t, f)
	f.forget(filepath.Join(f.Dir, "script"))
	findCamera(t, f)
	if starts() != 1 || again() != 2 {
		t.Errorf("the old one was started %d times, the new one %d times", starts(), again())
	}
}

func TestACameraThatIsGoneIsAskedAgain(t *testing.T) {
	noLeaks(t)
	f := install(t)
	f.patience = impatient
	gone := filepath.Join(t.TempDir(), "gone")
	starts := script(t, f, "test -e "+gone+" && exit 5\nexec "+reference(t, "testcamera")+"\n")
	c := findCamera(t, f)
	if err := os.WriteFile(gone, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	findCamera(t, f) // nobody has noticed yet
	_, err := c.Open(t.Context(), hw.Mode{})
	wantErr(t, err, hw.ErrGone, "ended with status 5")
	before := starts()
	for range 3 { // a program that failed is left alone for a while
		if list, err := f.Cameras(); err != nil || len(list) != 0 {
			t.Errorf("%v, %v", list, err)
		}
	}
	if n := starts() - before; n != 1 {
		t.Errorf("asked %d times", n)
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	path := filepath.Join(f.Dir, "script")
	a := f.known[path]
	if wait := time.Until(a.again); wait < retry-10*time.Second || wait > retry {
		t.Errorf("asked again in %s", wait)
	}
	a.again = time.Now() // the while is over
	f.known[path] = a
	f.mu.Unlock()
	findCamera(t, f)
}

func TestAHangingProgramDoesNotHangTheList(t *testing.T) {
	noLeaks(t)
	f := install(t, "testcamera")
	f.patience = impatient
	f.patience.hello = 500 * time.Millisecond
	script(t, f, "trap '' TERM\nwhile :; do read line; done < /dev/zero\n")
	begin := time.Now()
	findCamera(t, f)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}
