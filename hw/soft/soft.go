// Package soft codes pictures and sound on the CPU: H.264 by libx264, AAC by
// go-aac or libvo-aacenc, Opus by libopus, JPEG both ways, and key pictures of
// H.264 back by libopenh264, for stills.
//
// The C libraries are the system's own, loaded when first needed, so that the
// program itself needs no C compiler, and a box without one of them loses that
// one codec with an error that names the package to install ([hw.ErrMissing]).
//
// Raw frames are borrowed: an encoder retains those it works on and gives them
// back as soon as the library has read them. Coded units are garbage-collected
// Go memory, copied once out of the library. Memory that C writes to or reads
// from during a call belongs to Go and does not move.
package soft

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ebitengine/purego"

	"encoderd.example/hw"
)

// errClosed is what calls on a closed encoder return.
var errClosed = fmt.Errorf("encoder: %w", os.ErrClosed)

// A lazy value is made at the first need. A failure is not kept: a library
// that is installed later is found by the next call.
type lazy[T any] struct {
	load func() (*T, error)

	mu    sync.Mutex
	value *T
}

func (l *lazy[T]) get() (*T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.value != nil {
		return l.value, nil
	}
	v, err := l.load()
	if err != nil {
		return nil, err
	}
	l.value = v
	return v, nil
}

// openLibrary opens the first of the named shared libraries that is there and
// says which. It stays loaded until the program ends.
func openLibrary(names []string, debian string) (handle uintptr, name string, err error) {
	var tried []error
	for _, name := range names {
		handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err == nil {
			return handle, name, nil
		}
		tried = append(tried, err)
	}
	// The first name is the usual one; that the other builds are not there
	// says nothing.
	return 0, "", fmt.Errorf("load %s: %w: apt-get install %s (%w)", names[0], hw.ErrMissing, debian, errors.Join(tried[:1]...))
}

// A symbol is a C function and a pointer to the Go function variable that is
// to call it.
type symbol struct {
	name string
	fn   any
}

// bind makes the symbols of a library callable. It checks first, because
// purego panics where a name is not found.
func bind(handle uintptr, library string, symbols []symbol) error {
	for _, s := range symbols {
		addr, err := purego.Dlsym(handle, s.name)
		if err != nil {
			return fmt.Errorf("%s has no %s: this build does not fit: %w", library, s.name, hw.ErrUnsupported)
		}
		purego.RegisterFunc(s.fn, addr)
	}
	return nil
}

// address returns where a C function stands, for calls that must not allocate.
func address(handle uintptr, library, name string) (uintptr, error) {
	addr, err := purego.Dlsym(handle, name)
	if err != nil {
		return 0, fmt.Errorf("%s has no %s: this build does not fit: %w", library, name, hw.ErrUnsupported)
	}
	return addr, nil
}
