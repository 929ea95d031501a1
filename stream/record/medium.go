package record

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Medium is a folder that takes recordings. It is for use by one goroutine.
// Any call may hang for as long as the hardware does.
type Medium interface {
	// Create makes a file of a name that has no slash. The error is
	// [fs.ErrExist] if there is one.
	Create(name string) (File, error)
	// Remove takes a file away that Create made and nothing is in.
	Remove(name string) error
	// Names lists what is in the folder.
	Names() ([]string, error)
	// Space returns how many bytes recordings may still take, and how many the
	// medium has.
	Space() (free, total uint64, err error)
	Close() error
}

// A File is an open recording, of which its holder is the only owner. It is for
// use by one goroutine.
type File interface {
	io.Writer
	// Sync returns once all that was written is on the medium, and so is the name
	// of the file after it: a power cut leaves no name with nothing behind it.
	Sync() error
	// Truncate cuts the file off after so many bytes.
	Truncate(size int64) error
	// There returns [ErrGone] unless the file can still be found under its name.
	There() error
	Close() error
}

// modes of what recordings are kept in.
const (
	folderMode = 0o750
	fileMode   = 0o640
)

// OpenDir opens a folder of the file system, which is made if create says so.
// If it does not, the folder must be on a medium of its own: a mount point stays
// when its medium is out, and what is written there fills the box itself. That
// is [ErrNotMounted].
func OpenDir(dir string, create bool) (Medium, error) {
	if create {
		if err := makeAll(dir); err != nil {
			return nil, fmt.Errorf("make the folder: %w", err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder: %w", err)
	}
	d := &folder{dir: dir, root: root}
	if create {
		return d, nil
	}
	if err := d.mounted(mountPoints); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

// makeAll makes a folder and those above it, and has the medium keep them.
func makeAll(dir string) error {
	grown := growing(dir)
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return err
	}
	for _, parent := range grown {
		f, err := os.Open(parent)
		if err != nil {
			return err
		}
		if err := errors.Join(keepFolder(f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// growing returns the folders that one more is to be made in for dir to be
// there, the nearest first.
func growing(dir string) (parents []string) {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return parents
		}
		parents = append(parents, filepath.Dir(dir))
	}
}

// mountPoints are where media are put: a folder of the same file system is on
// none.
var mountPoints = []string{"/", "/run"}

// mounted returns [ErrNotMounted] if the folder is in the same file system as
// one of places.
func (d *folder) mounted(places []string) error {
	here, err := d.device()
	if err != nil {
		return err
	}
	for _, place := range places {
		var st unix.Stat_t
		if err := unix.Stat(place, &st); err == nil && st.Dev == here {
			return ErrNotMounted
		}
	}
	return nil
}

// device returns the number of the file system that the folder is in.
func (d *folder) device() (uint64, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	return st.Dev, errors.Join(err, f.Close())
}

type folder struct {
	dir  string
	root *os.Root
}

func (d *folder) Create(name string) (File, error) {
	// O_EXCL follows no link.
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, err
	}
	return &openFile{File: f, folder: d, name: name}, nil
}

// keep has the medium take the folder itself: a power cut may lose a file whose
// name is not there yet.
func (d *folder) keep() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(keepFolder(f), f.Close())
}

// keepFolder has the medium take an open folder.
func keepFolder(f *os.File) error {
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some file systems do not know it
		return fmt.Errorf("keep the folder: %w", err)
	}
	return nil
}

func (d *folder) Remove(name string) error { return d.root.Remove(name) }

func (d *folder) Names() ([]string, error) {
	list, err := fs.ReadDir(d.root.FS(), ".")
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, err
}

func (d *folder) Space() (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: d.dir, Err: err}
	}
	size := uint64(st.Bsize)
	return st.Bavail * size, st.Blocks * size, nil
}

func (d *folder) Close() error { return d.root.Close() }

type openFile struct {
	*os.File
	folder *folder
	name   string
	kept   bool // the name is
}

func (f *openFile) Sync() error {
	if err := f.flush(); err != nil || f.kept {
		return err
	}
	err := f.folder.keep()
	f.kept = err == nil
	return err
}

// flush leaves out what does not help to read the file, such as its times.
func (f *openFile) flush() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// There goes by the path: the open folder may be on a medium that is not where
// it was.
func (f *openFile) There() error {
	open, err := f.Stat()
	if err != nil {
		return err
	}
	found, err := os.Lstat(f.folder.dir + "/" + f.name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(open, found) {
		return ErrGone
	}
	return err
}
