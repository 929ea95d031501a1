package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// The daemon may not touch the system's network: it leaves a request in its
// state directory, for which encoderd-network-reset.path waits.
const (
	requestDir     = "requests"
	networkRequest = "network-reset"
	// requestTime is how long the system may take to answer one.
	requestTime = 10 * time.Second
)

// factoryMark stands in the state directory from the order of a factory reset
// until everything else is gone: a power cut in between changes nothing. In it
// stands where recordings are, as the config had it.
const factoryMark = "factory-reset"

// resetNetwork asks the system to take the network settings back to those of a
// new box.
func (d *Daemon) resetNetwork() error {
	dir := filepath.Join(d.State, requestDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("ask for a network reset: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(dir, networkRequest), nil, 0o600); err != nil {
		return fmt.Errorf("ask for a network reset: %w", err)
	}
	return nil
}

// unanswered reports whether the system has left a request lying. On a disk that
// hangs it does, too.
func (d *Daemon) unanswered(now time.Time) bool {
	info, err := os.Stat(filepath.Join(d.State, requestDir, networkRequest))
	return err == nil && now.Sub(info.ModTime()) > requestTime
}

// resetAll makes the next start forget everything, and starts anew. The mark
// comes last: what is refused here must not come about at a later start.
func (d *Daemon) resetAll() error {
	if err := d.resetNetwork(); err != nil {
		return err
	}
	d.mu.Lock()
	dir := d.config.Record.Dir
	d.mu.Unlock()
	if err := renameio.WriteFile(filepath.Join(d.State, factoryMark), []byte(dir), 0o600); err != nil {
		return fmt.Errorf("factory reset: %w", err)
	}
	d.Restart()
	return nil
}

// FactoryReset empties the state directory if that was ordered before the last
// end, and reports whether it was. Recordings stay: they are the owner's, not
// settings. What keep names stays, too. It is for the start, when nothing has
// been read yet.
func FactoryReset(state string, keep ...string) (done bool, err error) {
	mark := filepath.Join(state, factoryMark)
	dir, err := os.ReadFile(mark)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("factory reset: %w", err)
	}
	list, err := os.ReadDir(state)
	if err != nil {
		return false, fmt.Errorf("factory reset: %w", err)
	}
	top, _, _ := strings.Cut(path.Clean(string(dir)), "/")
	stays := map[string]bool{factoryMark: true, requestDir: true, recordings: true, top: true}
	for _, name := range keep {
		stays[name] = true
	}
	for _, e := range list {
		path := filepath.Join(state, e.Name())
		if stays[e.Name()] || e.IsDir() && records(path) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return false, fmt.Errorf("factory reset: %w", err)
		}
	}
	if err := os.Remove(mark); err != nil { // last, so that a cut in between begins anew
		return false, fmt.Errorf("factory reset: %w", err)
	}
	return true, nil
}

// records reports whether there is a recording somewhere in a folder: it may have
// had another name in the config once.
func records(dir string) bool {
	found := false
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error { // what cannot be read has none to see
		if err == nil && e.Type().IsRegular() && filepath.Ext(path) == ".mp4" {
			found = true
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// recordings is where they stand if the config does not say otherwise.
const recordings = "recordings"
