package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
	"github.com/pelletier/go-toml/v2"
)

// private is the mode of every file here: configs can hold keys, too.
const private = 0o600

// previousSuffix is what Save appends to the name of the file it replaced.
const previousSuffix = ".previous"

// Load reads and checks the file at path. The error wraps [Faults] if the file
// can be read, else an [fs.PathError].
func Load(path string, rules Rules) (Config, error) {
	doc, err := read(path)
	if err != nil {
		return Config{}, err
	}
	c, err := Parse(doc, rules)
	if err != nil {
		return Config{}, fmt.Errorf("config %s:\n%w", path, err)
	}
	return c, nil
}

// LoadOrPrevious is Load for a box that has to come up again after a power cut:
// if the file is gone, empty, or is not TOML any more, it loads the one that
// Save replaced last. Then from is that file's name and err says what happened
// to the other, for a fault to be shown. If no config can be used, from is "".
func LoadOrPrevious(path string, rules Rules) (c Config, from string, err error) {
	reason := damage(path)
	if reason == nil {
		if c, err = Load(path, rules); err != nil {
			return Config{}, "", err
		}
		return c, path, nil
	}
	c, err = Load(path+previousSuffix, rules)
	if errors.Is(err, fs.ErrNotExist) {
		return loadAnyway(path, rules)
	}
	if err != nil {
		return Config{}, "", errors.Join(reason, err)
	}
	return c, path + previousSuffix, fmt.Errorf("%w; the previous good one is in use, save the config again", reason)
}

// loadAnyway loads a file that has no forerunner: an empty one may be meant.
func loadAnyway(path string, rules Rules) (Config, string, error) {
	c, err := Load(path, rules)
	if err != nil {
		return Config{}, "", err
	}
	return c, path, nil
}

// damage says in which way the file cannot be what anybody saved or meant.
func damage(path string) error {
	doc, err := read(path)
	if err != nil {
		return err
	}
	if len(doc) == 0 {
		return fmt.Errorf("config %s is empty", path)
	}
	if _, err := parseTree(doc); err != nil {
		return fmt.Errorf("config %s: %w", path, err)
	}
	return nil
}

// read returns the file, or enough of it to see that it is too large.
func read(path string) ([]byte, error) {
	doc, err := readLimited(path, maxSize+1)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return doc, nil
}

// Save writes c to path so that after a power cut at any moment either the old
// file or the new one is there, and keeps the old one, if it was good, as
// path.previous. Keys that stood in the config file move into keys, under the
// name of their output. Comments do not survive.
func Save(path string, c Config, keys *Secrets) error {
	if err := keepPrevious(path, keys); err != nil {
		return fmt.Errorf("keep the previous config: %w", err)
	}
	if err := saveAs(path, c, keys); err != nil {
		return fmt.Errorf("save config: %w", err)
	}
	return nil
}

// keepPrevious copies a good file aside, without the keys it may hold.
func keepPrevious(path string, keys *Secrets) error {
	doc, err := readLimited(path, maxSize+1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := Parse(doc, Rules{})
	if err != nil || len(doc) == 0 {
		return nil //nolint:nilerr // a file that was not good is not kept
	}
	if !slices.ContainsFunc(secrets(&old), kept.inFile) {
		return writeAtomic(path+previousSuffix, doc)
	}
	return saveAs(path+previousSuffix, old, keys)
}

// A kept secret has the name under which the store has it.
type kept struct {
	name   string
	secret *Secret
}

// inFile reports whether the secret stands in the config file itself.
func (k kept) inFile() bool { return !k.secret.IsZero() && k.secret.Ref() == "" }

// secrets lists all secrets of c; they belong to c and its lists.
func secrets(c *Config) []kept {
	list := []kept{{"watch_password", &c.Watch.Password}}
	for i := range c.Outputs {
		list = append(list, kept{c.Outputs[i].Name, &c.Outputs[i].Key})
	}
	for i := range c.Tallies {
		list = append(list, kept{"password_of_" + c.Tallies[i].Name, &c.Tallies[i].Password})
	}
	return list
}

func saveAs(path string, c Config, keys *Secrets) error {
	c.Outputs, c.Tallies = slices.Clone(c.Outputs), slices.Clone(c.Tallies)
	for _, k := range secrets(&c) {
		if !k.inFile() {
			continue
		}
		stored, err := keys.Set(k.name, k.secret.Reveal())
		if err != nil {
			return err
		}
		*k.secret = stored
	}
	doc, err := encode(c)
	if err != nil {
		return err
	}
	return writeAtomic(path, doc)
}

// encode writes c as TOML. What a rendition has from [video] is left out, so
// that it follows a later change there.
func encode(c Config) ([]byte, error) {
	c.Renditions = slices.Clone(c.Renditions)
	for i := range c.Renditions {
		r := &c.Renditions[i]
		if r.Width == c.Video.Width && r.Height == c.Video.Height {
			r.Width, r.Height = 0, 0
		}
		if r.FPS == c.Video.FPS {
			r.FPS = Rate{}
		}
	}
	var doc bytes.Buffer
	if err := toml.NewEncoder(&doc).EnableMarshalerInterface().Encode(c); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return doc.Bytes(), nil
}

// tomlString quotes s. JSON's escapes are a part of TOML's.
func tomlString(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // strings and buffers do not fail
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// writeAtomic replaces path and returns once file and folder are on the disk.
func writeAtomic(path string, doc []byte) error {
	dir := filepath.Dir(path)
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(private))
	if err != nil {
		return err
	}
	if _, err := f.Write(doc); err != nil {
		return errors.Join(err, f.Cleanup())
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return errors.Join(err, f.Cleanup())
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir durable, which fsync of the file does not.
func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
