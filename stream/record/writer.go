package record

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A writer has the medium to itself. It is for use by one goroutine, which may
// hang in it.
type writer struct {
	open    func(dir string, create bool) (Medium, error)
	to      Settings
	session *session
	log     *slog.Logger

	medium Medium
	file   File // nil: none is open
	name   string
	size   int64 // of its whole fragments

	owed            int // pictures of the batch that nobody was told of
	pictures, bytes int // those of them that are written
}

// run writes until the queue is closed and empty, or something fails, and
// leaves what it wrote closed.
func (w *writer) run() (err error) {
	w.session.wait(true)
	defer w.session.wait(false)
	if w.medium, err = w.open(w.to.Dir, w.to.Make); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.medium.Close()) }()
	if err := w.space(roomToBegin); err != nil {
		return err
	}
	for {
		w.session.wait(false)
		batch := w.session.queue.take()
		if batch == nil {
			w.session.wait(true)
			return w.end()
		}
		w.session.wait(true)
		err := w.batch(batch)
		w.session.queue.done()
		if err != nil {
			w.salvage()
			w.session.lose(w.owed)
			return err
		}
	}
}

// batch puts fragments on the medium.
func (w *writer) batch(batch []*fragment) error {
	w.owed, w.pictures, w.bytes = picturesIn(batch), 0, 0
	for _, f := range batch {
		if err := w.write(f); err != nil {
			return err
		}
		w.bytes, w.pictures = w.bytes+f.bytes, w.pictures+f.pictures
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", w.name, err)
	}
	if err := w.file.There(); err != nil {
		return fmt.Errorf("write %s: %w", w.name, err)
	}
	err := w.space(roomToGoOn)
	w.tell()
	return err
}

// tell reports what was written of the batch as kept.
func (w *writer) tell() {
	w.session.update(func(r *Report) {
		r.File = w.name
		r.Bytes += uint64(w.bytes)
		r.Pictures += uint64(w.pictures)
	})
	w.owed, w.pictures, w.bytes = w.owed-w.pictures, 0, 0
}

func (w *writer) write(f *fragment) error {
	size := 0
	if f.begins != nil {
		if err := w.begin(f.begins); err != nil {
			return err
		}
		n, err := w.file.Write(f.begins.data)
		if err != nil {
			return fmt.Errorf("write %s: %w", w.name, err)
		}
		size += n
	}
	for _, b := range f.data {
		n, err := w.file.Write(b)
		if err != nil {
			return fmt.Errorf("write %s: %w", w.name, err)
		}
		size += n
	}
	w.size += int64(size)
	return nil
}

// end closes the open file.
func (w *writer) end() error {
	if w.file == nil {
		return nil
	}
	err := errors.Join(w.file.Sync(), w.file.Close())
	w.file = nil
	if err != nil {
		return fmt.Errorf("close %s: %w", w.name, err)
	}
	if w.size > 0 {
		w.log.Info("recorded", "file", w.name, "bytes", w.size)
	}
	return nil
}

// salvage closes a file that cannot be gone on with, without the fragment that
// was being written.
func (w *writer) salvage() {
	if w.file == nil {
		return
	}
	there := w.file.There()
	err := errors.Join(w.file.Truncate(w.size), w.end())
	switch {
	case err != nil:
	case w.size == 0:
		err = w.medium.Remove(w.name)
	case there == nil:
		w.tell()
	}
	if err != nil {
		w.log.Warn("the end of a recording may be torn", "file", w.name, "err", err)
	}
}

// begin opens the next file.
func (w *writer) begin(h *heading) (err error) {
	if err := w.end(); err != nil {
		return err
	}
	w.size = 0
	if w.file, w.name, err = w.create(h.began); err != nil {
		return fmt.Errorf("begin a recording: %w", err)
	}
	w.log.Info("recording", "file", w.name)
	return nil
}

// noClock is how names begin while the box does not know the time.
const noClock = "no-clock-"

// epoch is a time before which no box was built: a clock that says so is not
// set.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// maxTries is how many files of one second there are names for.
const maxTries = 1000

// create makes a file with a name of its own; one that is there is never
// touched.
func (w *writer) create(began time.Time) (f File, name string, err error) {
	stem, number := began.UTC().Format("2006-01-02T150405Z-")+w.to.Name, 1
	if began.Before(epoch) {
		if number, err = w.next(); err != nil {
			return nil, "", err
		}
	}
	for range maxTries {
		switch {
		case began.Before(epoch):
			name = fmt.Sprintf("%s%04d-%s.mp4", noClock, number, w.to.Name)
		case number > 1:
			name = fmt.Sprintf("%s_%d.mp4", stem, number) // "_" sorts after "."
		default:
			name = stem + ".mp4"
		}
		if f, err = w.medium.Create(name); !errors.Is(err, fs.ErrExist) {
			return f, name, err
		}
		number++
	}
	return nil, "", err
}

// next returns the number after the highest that a file without a time has.
func (w *writer) next() (int, error) {
	names, err := w.medium.Names()
	if err != nil {
		return 0, err
	}
	highest := 0
	for _, name := range names {
		rest, is := strings.CutPrefix(name, noClock)
		digits, _, _ := strings.Cut(rest, "-")
		if n, err := strconv.Atoi(digits); is && err == nil {
			highest = max(highest, n)
		}
	}
	return highest + 1, nil
}

// How much of the reserve must be free.
const (
	roomToGoOn  = 1.0
	roomToBegin = 1.5
)

// reserve returns the bytes of a medium that recordings leave free: the box
// itself may need them.
func reserve(total uint64) uint64 {
	const least, most, part = 64 << 20, 1 << 30, 33
	return min(max(total/part, least), most)
}

// space takes in how much space there is, and fails if that is too little.
func (w *writer) space(parts float64) error {
	free, total, err := w.medium.Space()
	if err != nil {
		return fmt.Errorf("look at the storage: %w", err)
	}
	w.session.update(func(r *Report) { r.Free, r.Total = free, total })
	if least := parts * float64(reserve(total)); float64(free) < least {
		return fmt.Errorf("%w: %.1f MB are free, and %.1f MB of it must stay so", ErrFull, float64(free)/1e6, least/1e6)
	}
	return nil
}

// remedies say what can be done about an error; the first that fits counts.
var remedies = []struct {
	errs []error
	do   string
}{
	{[]error{ErrFull, syscall.ENOSPC, syscall.EDQUOT}, "remove recordings or use a larger medium"},
	{[]error{ErrHangs}, "put in another medium, and switch the box off and on after the show"},
	{[]error{ErrNotMounted}, "put the medium in, or to record on the box's own disk choose a dir without a leading slash under [record] in the config"},
	{[]error{ErrGone, syscall.EIO, syscall.ENODEV, syscall.ENXIO, syscall.ESTALE}, "put the medium back in, or another one"},
	{[]error{fs.ErrNotExist}, "put the medium in, or choose another dir under [record] in the config"},
	{[]error{fs.ErrPermission, syscall.EROFS}, "the box may not write there: choose another dir under [record] in the config, or let it"},
	{[]error{syscall.ENOTDIR}, "choose another dir under [record] in the config"},
}

// remedy adds to an error about dir what can be done.
func remedy(dir string, err error) error {
	for _, r := range remedies {
		for _, known := range r.errs {
			if errors.Is(err, known) {
				return fmt.Errorf("record to %s: %w; %s", dir, err, r.do)
			}
		}
	}
	return fmt.Errorf("record to %s: %w", dir, err)
}
