package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"encoderd.example/daemon/config"
)

// wantedFile is in the state directory.
const wantedFile = "wanted.json"

// loadWanted reads what was on air before the power went. Whatever the error,
// the result is usable.
func loadWanted(dir string) (Wanted, error) {
	w := Wanted{Outputs: map[string]bool{}, Restarts: map[string]int{}}
	b, err := os.ReadFile(filepath.Join(dir, wantedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, fmt.Errorf("read what was on air: %w", err)
	}
	var read Wanted
	if err := json.Unmarshal(b, &read); err != nil {
		return w, fmt.Errorf("read what was on air from %s: %w", wantedFile, err)
	}
	maps.Copy(w.Outputs, read.Outputs)
	w.Muted, w.Record = read.Muted, read.Record
	return w, nil
}

// keep forgets outputs that are not in the list and reports whether there was
// one: another one that has its name later was never put on air.
func (w Wanted) keep(list []config.Output) (dropped bool) {
	before := len(w.Outputs)
	maps.DeleteFunc(w.Outputs, func(name string, _ bool) bool {
		return !slices.ContainsFunc(list, func(o config.Output) bool { return o.Name == name })
	})
	return len(w.Outputs) < before
}

// save writes w, if that is new, so that a power cut leaves the old file or the
// new one. Whoever gives one order a hundred times a second wears nothing out.
func (w Wanted) save(dir string) error {
	b, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("remember what is on air: %w", err)
	}
	path := filepath.Join(dir, wantedFile)
	if was, err := os.ReadFile(path); err == nil && bytes.Equal(was, b) {
		return nil
	}
	if err := renameio.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("remember what is on air: %w", err)
	}
	return nil
}
