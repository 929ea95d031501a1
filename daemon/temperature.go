package daemon

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// temperature returns the hottest thermal zone in °C, or zero if there is none
// (kernel: Documentation/driver-api/thermal/sysfs-api.rst).
func temperature() float64 {
	zones, _ := filepath.Glob("/sys/class/thermal/thermal_zone*/temp") // the pattern is well formed
	hottest := 0.0
	for _, z := range zones {
		b, err := os.ReadFile(z)
		if err != nil {
			continue // some zones answer EAGAIN while their sensor sleeps
		}
		if milli, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			hottest = max(hottest, float64(milli)/1000)
		}
	}
	return hottest
}
