package boards

import (
	"log/slog"
	"slices"
	"sync"

	"encoderd.example/hw"
)

// sensors are those that send raw pictures, which a device program may lead.
type sensors struct {
	programs func() ([]hw.Camera, error)
	log      *slog.Logger

	mu   sync.Mutex
	told map[string]bool // by name: a program leads it
}

func newSensors(programs func() ([]hw.Camera, error), log *slog.Logger) *sensors {
	return &sensors{programs: programs, log: log, told: map[string]bool{}}
}

// led reports whether a device program brings the pictures of a sensor, and
// tells so once. Programs do not say which sensor is theirs: any will do that is
// not for a device on USB. It may be called from any goroutine.
func (s *sensors) led(sensor string) bool {
	cameras, _ := s.programs() // why some are missing is told where they are listed
	i := slices.IndexFunc(cameras, func(c hw.Camera) bool {
		a, ok := c.(hw.Attached)
		return !ok || a.Parent() == ""
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	led := i >= 0
	if led && !s.told[sensor] {
		s.log.Info("a device program leads the sensor", "sensor", sensor, "camera", cameras[i].ID())
	}
	s.told[sensor] = led
	return led
}
