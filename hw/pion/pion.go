// Package pion makes the box's cameras and microphones known to
// pion/mediadevices, and finds them there again. It and its folder encode, which
// does the same for encoders, are the only ones in the product that import that
// library.
//
// mediadevices' driver manager is the one list of what is plugged in: probe
// and the source "auto" read it, and any program built on mediadevices can
// record from our drivers. Pictures for the box itself do not take that way:
// its readers lose stamps and releases (docs/decisions/0004), so a device
// found here is opened through its hw interface.
package pion

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/pion/mediadevices/pkg/driver"

	"encoderd.example/hw"
)

// A Registry keeps mediadevices' driver manager in step with what is plugged
// in. All methods may be called from any goroutine.
type Registry struct {
	manager *driver.Manager

	mu      sync.Mutex
	cameras map[string]hw.Camera // by ID, which is also the driver's label
	mics    map[string]hw.Mic
}

// NewRegistry returns a registry on mediadevices' own manager.
func NewRegistry() *Registry {
	return &Registry{
		manager: driver.GetManager(),
		cameras: map[string]hw.Camera{},
		mics:    map[string]hw.Mic{},
	}
}

// Sync registers what is new and deletes what is gone.
func (r *Registry) Sync(cameras []hw.Camera, mics []hw.Mic) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	cams := index(cameras, hw.Camera.ID)
	forget(r, r.cameras, driver.Camera, func(id string) bool { return cams[id] != nil })
	for id, c := range cams {
		if r.cameras[id] == nil {
			errs = append(errs, r.register(&camera{dev: r.camera(id)}, driver.Info{Label: id, Name: c.Name(), DeviceType: driver.Camera}))
		}
	}
	sound := index(mics, hw.Mic.ID)
	forget(r, r.mics, driver.Microphone, func(id string) bool { return sound[id] != nil })
	for id, m := range sound {
		if r.mics[id] == nil {
			errs = append(errs, r.register(&mic{dev: r.mic(id)}, driver.Info{Label: id, Name: m.Name(), DeviceType: driver.Microphone}))
		}
	}
	r.cameras, r.mics = cams, sound
	return errors.Join(errs...)
}

func (r *Registry) register(a driver.Adapter, info driver.Info) error {
	if err := r.manager.Register(a, info); err != nil {
		return fmt.Errorf("register %s with mediadevices: %w", info.Label, err)
	}
	return nil
}

// camera returns a function that finds the camera of that ID as it is plugged
// in now: the same ID may stand for another node after a replug.
func (r *Registry) camera(id string) func() (hw.Camera, error) {
	return func() (hw.Camera, error) { return find(r, &r.cameras, id) }
}

func (r *Registry) mic(id string) func() (hw.Mic, error) {
	return func() (hw.Mic, error) { return find(r, &r.mics, id) }
}

func find[T any](r *Registry, known *map[string]T, id string) (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := (*known)[id]
	if !ok {
		return v, fmt.Errorf("%s: %w", id, hw.ErrGone)
	}
	return v, nil
}

// forget deletes the drivers of kind that are ours and not present.
func forget[T any](r *Registry, known map[string]T, kind driver.DeviceType, present func(string) bool) {
	for _, d := range r.manager.Query(driver.FilterDeviceType(kind)) {
		label := d.Info().Label
		if _, ours := known[label]; ours && !present(label) {
			r.manager.Delete(d.ID())
		}
	}
}

func index[T any](list []T, id func(T) string) map[string]T {
	m := make(map[string]T, len(list))
	for _, v := range list {
		m[id(v)] = v
	}
	return m
}

// Cameras returns the cameras that mediadevices lists, by ID.
func (r *Registry) Cameras() []hw.Camera {
	r.mu.Lock()
	defer r.mu.Unlock()
	return listed(r, r.cameras, driver.FilterAnd(driver.FilterVideoRecorder(), driver.FilterDeviceType(driver.Camera)), hw.Camera.ID)
}

// Mics returns the microphones that mediadevices lists, by ID.
func (r *Registry) Mics() []hw.Mic {
	r.mu.Lock()
	defer r.mu.Unlock()
	return listed(r, r.mics, driver.FilterAnd(driver.FilterAudioRecorder(), driver.FilterDeviceType(driver.Microphone)), hw.Mic.ID)
}

func listed[T any](r *Registry, known map[string]T, filter driver.FilterFn, id func(T) string) []T {
	var found []T
	for _, d := range r.manager.Query(filter) {
		if v, ok := known[d.Info().Label]; ok {
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b T) int { return cmp.Compare(id(a), id(b)) })
	// The manager is one for the program: another registry may list it, too.
	return slices.CompactFunc(found, func(a, b T) bool { return id(a) == id(b) })
}
