package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/pelletier/go-toml/v2"
)

// secretsFile is the name of the store in the state directory.
const secretsFile = "secrets.toml"

// Secrets is the store of stream keys: one TOML file of NAME = "VALUE" lines,
// readable for its owner alone. People write into it and use it by name; no
// page and no command shows a value again. All methods may be called from any
// goroutine.
type Secrets struct {
	path string

	mu     sync.Mutex
	values map[string]Secret
}

// OpenSecrets reads the store in the state directory dir; a missing file is an
// empty store. A file that others can read is locked away from them first.
func OpenSecrets(dir string) (*Secrets, error) {
	s := &Secrets{path: filepath.Join(dir, secretsFile), values: map[string]Secret{}}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	return s, nil
}

func (s *Secrets) load() error {
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Perm()&^private != 0 {
		if err := os.Chmod(s.path, private); err != nil {
			return err
		}
	}
	doc, err := readLimited(s.path, maxSize)
	if err != nil {
		return err
	}
	return s.parse(doc)
}

// parse fills s. Its errors name lines and names, never values: the TOML
// parser's own words could repeat a piece of one.
func (s *Secrets) parse(doc []byte) error {
	tree := map[string]any{}
	if err := toml.Unmarshal(doc, &tree); err != nil {
		line := 0
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ = at.Position()
		}
		return fmt.Errorf(`%s line %d: this is not TOML, write NAME = "VALUE"`, s.path, line)
	}
	for name, v := range tree {
		value, ok := v.(string)
		if !ok || !validName(name) {
			return fmt.Errorf(`%s: an entry is not a secret, write NAME = "VALUE" with a name of %s`, s.path, nameLetters)
		}
		if value != "" {
			s.values[name] = named(name, value)
		}
	}
	return nil
}

// named returns a secret that a store holds.
func named(name, value string) Secret {
	s := NewSecret(value)
	s.ref = name
	return s
}

// Get returns the secret of that name. It fits [Rules.Secret].
func (s *Secrets) Get(name string) (Secret, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[name]
	return v, ok
}

// Names returns the names of all secrets, sorted.
func (s *Secrets) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.values))
}

// Set stores a secret, durably, and returns it. An empty value deletes it.
func (s *Secrets) Set(name, value string) (Secret, error) {
	if !validName(name) {
		return Secret{}, fmt.Errorf("store a secret: the name must be 1 to %d of %s", maxNameLength, nameLetters)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(s.values)
	next[name] = named(name, value)
	if value == "" {
		delete(next, name)
	}
	if err := s.write(next); err != nil {
		return Secret{}, fmt.Errorf("store secret %s: %w", name, err)
	}
	s.values = next
	return next[name], nil
}

func (s *Secrets) write(values map[string]Secret) error {
	plain := make(map[string]string, len(values))
	for name, v := range values {
		plain[name] = v.Reveal()
	}
	doc, err := toml.Marshal(plain)
	if err != nil {
		return errors.New("a secret holds characters that cannot be written")
	}
	return writeAtomic(s.path, doc)
}

// readLimited reads at most limit bytes of a file.
func readLimited(path string, limit int64) (doc []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, limit))
}
