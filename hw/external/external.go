// Package external runs cameras and encoders of others, each in a process of
// its own: what needs C++ or a vendor's library, and what may crash or hang.
//
// A device program stands in a folder that only its owner can write to, is
// started without a shell and without arguments, and talks over one socket in
// the protocol of package wire; docs/external-devices.md is for those who
// write one. Pictures travel as descriptors: neither side copies them.
//
//	encoderd ── Finder ─► hello? ─► Camera, EncoderDriver
//	              Camera.Open ─► process ─► capture ─► hw.Frame over its buffers
//	              Encoder.Open ─► process ─► pictures by index, units out of a ring
//
// A program is not trusted with our life: everything it sends is checked,
// memory that could be cut short is refused, every wait has an end, and who
// does not end is killed with all it has started. A program that ends or breaks
// the protocol is a device that is gone ([hw.ErrGone]), with the reason in the
// text. What it can do is what the user it runs as can do: it is installed by
// the owner of the box.
//
// Memory: buffers belong to their maker until both sides have closed them;
// frames stay readable until their last Release, also after the program is
// dead.
package external

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/external/wire"
)

// Dir is where device programs are installed.
const Dir = "/usr/lib/encoderd/devices"

// A Finder lists the device programs of a folder. Each is run once to ask what
// it is; the answer is kept until the file changes or the device turns out to
// be gone. Its methods may be called from any goroutine. It must not be copied.
type Finder struct {
	// Dir is the folder; empty means the constant [Dir]. One that does not
	// exist has no programs.
	Dir string
	// Owner is the user who must own folder and programs; zero is root.
	Owner uint32
	// Log gets what the programs print; nil discards it.
	Log *slog.Logger

	patience patience // zero means the usual one

	mu    sync.Mutex
	known map[string]answer // by path
}

// An answer is what a program said of itself.
type answer struct {
	file   fileID
	camera hw.Camera
	driver *hw.EncoderDriver
	err    error
	again  time.Time // ask again from then on; zero is never
}

// retry is how long a program that did not answer is left alone.
const retry = 30 * time.Second

// A fileID changes when a program is replaced.
type fileID struct {
	inode      uint64
	size, time int64
}

// Cameras lists the cameras that are there now, by name. It may start programs
// and wait some seconds for them. It fails if others can write to the folder.
func (f *Finder) Cameras() ([]hw.Camera, error) {
	var list []hw.Camera
	err := f.each(func(a answer) {
		if a.camera != nil {
			list = append(list, a.camera)
		}
	})
	return list, err
}

// Encoders lists the encoders that are there now, as Cameras does.
func (f *Finder) Encoders() ([]hw.EncoderDriver, error) {
	var list []hw.EncoderDriver
	err := f.each(func(a answer) {
		if a.driver != nil {
			list = append(list, *a.driver)
		}
	})
	return list, err
}

// each calls see with the answer of every program that may be run. A program
// that may not, or does not answer, is reported in the log once and left out.
func (f *Finder) each(see func(answer)) error {
	dir := cmp.Or(f.Dir, Dir)
	if err := f.checkDir(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look for device programs: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for device programs: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.ask(dir, entries) {
		see(a)
	}
	return nil
}

// ask returns the answers in the order of entries; programs that must be
// started are started side by side. It is called under mu.
func (f *Finder) ask(dir string, entries []fs.DirEntry) []answer {
	before := f.known
	f.known = map[string]answer{}
	answers := make([]answer, len(entries))
	var asking sync.WaitGroup
	for i, e := range entries {
		path := filepath.Join(dir, e.Name())
		old, asked := before[path]
		id, err := f.checkProgram(path)
		if asked && old.file == id && (err != nil || old.again.IsZero() || time.Now().Before(old.again)) {
			answers[i] = old
			continue
		}
		answers[i] = answer{file: id, err: err}
		if err == nil {
			asking.Go(func() { answers[i] = f.probe(path, id) })
		}
	}
	asking.Wait()
	for i, e := range entries {
		path := filepath.Join(dir, e.Name())
		a := answers[i]
		if old, asked := before[path]; a.err != nil && (!asked || old.err == nil || old.err.Error() != a.err.Error()) {
			f.log().Warn("device program is left out", "program", path, "err", a.err)
		}
		f.known[path] = a
	}
	return answers
}

func (f *Finder) log() *slog.Logger { return cmp.Or(f.Log, slog.New(slog.DiscardHandler)) }

// names are what a program may be called: its name becomes part of an ID.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// checkDir refuses a folder in which somebody else could put a program: one
// that is not the owner's, or that others can write to, or whose parents are.
// Others may write to a parent that is sticky, as /tmp is.
func (f *Finder) checkDir(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("folder %s: not an absolute path: %w", dir, hw.ErrUnsupported)
	}
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		owner, _ := ownerOf(info)
		mine := owner == f.Owner || at != dir && owner == 0
		open := info.Mode().Perm()&0o022 != 0
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			return fmt.Errorf("%s is a symbolic link: name the folder itself: %w", at, hw.ErrUnsupported)
		case !info.IsDir():
			return fmt.Errorf("%s is no folder: %w", at, hw.ErrUnsupported)
		case !mine:
			return fmt.Errorf("%s belongs to user %d, it must be of user %d: chown it: %w", at, owner, f.Owner, hw.ErrUnsupported)
		case open && (at == dir || info.Mode()&fs.ModeSticky == 0):
			return fmt.Errorf("%s can be written by others (%s): chmod go-w it: %w", at, info.Mode(), hw.ErrUnsupported)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// checkProgram says which file stands at path, and whether it may be run.
func (f *Finder) checkProgram(path string) (fileID, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return fileID{}, err
	}
	owner, inode := ownerOf(info)
	id := fileID{inode: inode, size: info.Size(), time: info.ModTime().UnixNano()}
	mode := info.Mode()
	switch {
	case !names.MatchString(filepath.Base(path)):
		return id, errors.New("its name must be of letters, digits, - and _")
	case !mode.IsRegular():
		return id, errors.New("it is no regular file")
	case owner != f.Owner:
		return id, fmt.Errorf("it belongs to user %d, it must be of user %d", owner, f.Owner)
	case mode.Perm()&0o022 != 0:
		return id, fmt.Errorf("it can be written by others (%s)", mode)
	case mode.Perm()&0o111 == 0:
		return id, errors.New("it is not executable")
	}
	return id, nil
}

func ownerOf(info fs.FileInfo) (uid uint32, inode uint64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Uid, s.Ino
	}
	return ^uint32(0), 0
}

// probe runs a program to hear its hello.
func (f *Finder) probe(path string, id fileID) answer {
	p := program{id: "external:" + filepath.Base(path), path: path, log: f.log(), patience: f.patience}
	if p.patience == (patience{}) {
		p.patience = usual
	}
	a := p.ask(func() { f.forget(path) })
	a.file = id
	if a.err != nil {
		a.again = time.Now().Add(retry)
	}
	return a
}

// forget makes the next listing ask again.
func (f *Finder) forget(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a, known := f.known[path]; known {
		a.again = time.Unix(0, 1)
		f.known[path] = a
	}
}

// ask starts the program, hears what it is, and ends it. gone is told by the
// devices when they turn out not to be there.
func (p program) ask(gone func()) answer {
	r, hello, err := p.start(context.Background())
	if err != nil {
		return answer{err: err}
	}
	defer r.stop()
	switch h := hello.(type) {
	case wire.HelloCamera:
		t, err := readCamera(h)
		if err != nil {
			return answer{err: err}
		}
		t.name = cmp.Or(t.name, p.id)
		c := &Camera{program: p, traitsOfCamera: t, gone: gone, rest: new(rest)}
		if h.Flags&wire.SignalInput != 0 {
			return answer{camera: signalCamera{c}}
		}
		return answer{camera: c}
	case wire.HelloEncoder:
		t, err := readEncoder(h)
		if err != nil {
			return answer{err: err}
		}
		d := p.driver(t, gone)
		return answer{driver: &d}
	default:
		return answer{err: violation("it begins with %s", wire.Name(hello))}
	}
}

// readCamera checks the hello of a camera.
func readCamera(m wire.Message) (traitsOfCamera, error) {
	h, ok := m.(wire.HelloCamera)
	switch {
	case !ok:
		return traitsOfCamera{}, violation("it begins with %s", wire.Name(m))
	case h.Version != wire.Version:
		return traitsOfCamera{}, fmt.Errorf("it speaks version %d of the protocol, this encoderd speaks %d: %w", h.Version, wire.Version, hw.ErrUnsupported)
	case h.Modes < 1 || h.Modes > wire.MaxModes:
		return traitsOfCamera{}, violation("a camera with %d modes", h.Modes)
	}
	parent, err := readParent(h.Parent)
	t := traitsOfCamera{name: wire.Text(h.Name[:]), parent: parent}
	if err != nil {
		return t, err
	}
	for _, m := range h.Mode[:h.Modes] {
		mode := m.Mode()
		if err := checkMode(mode); err != nil {
			return t, err
		}
		if !slices.Contains(t.modes, mode) {
			t.modes = append(t.modes, mode)
		}
	}
	return t, nil
}

// readParent checks which device a program says that it is a part of.
func readParent(p wire.Parent) (string, error) {
	parent := wire.Text(p[:])
	if parent != "" && (!strings.HasPrefix(parent, "/sys/devices/") || filepath.Clean(parent) != parent) {
		return "", violation("a part of %q, which is no folder below /sys/devices", parent)
	}
	return parent, nil
}
