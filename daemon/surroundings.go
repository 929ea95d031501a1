package daemon

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"encoderd.example/daemon/status"
)

// surroundings are what the system tells of the box; asking takes a while.
type surroundings struct {
	temperature float64
	storage     status.Storage
	network     status.Network
	power       status.Power
	unanswered  bool // a request to the system lies there
}

// lookAround asks, again and again until ctx ends.
func (d *Daemon) lookAround(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		now := surroundings{
			temperature: temperature(), storage: disk(d.State), network: network(),
			power: status.Power{UnderVoltage: underVoltage("/sys/class/hwmon")}, unanswered: d.unanswered(time.Now()),
		}
		d.mu.Lock()
		d.around = now
		d.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// network finds an interface by which somebody can be reached: one that is up,
// is no loopback, and has an address that is not for the link alone.
func network() status.Network {
	all, err := net.Interfaces()
	if err != nil {
		return status.Network{Up: true} // nobody knows: no alarm
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagRunning == 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		addresses, _ := i.Addrs()
		for _, a := range addresses {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
				return status.Network{Up: true, Interface: i.Name, Address: ip.IP.String()}
			}
		}
	}
	return status.Network{}
}

// underVoltage reports whether a sensor says that the supply gives too little:
// in0_lcrit_alarm of the Raspberry Pi's firmware driver (kernel:
// Documentation/hwmon/raspberrypi-hwmon.rst).
func underVoltage(class string) bool {
	alarms, _ := filepath.Glob(filepath.Join(class, "hwmon*", "in0_lcrit_alarm")) // the pattern is well formed
	for _, a := range alarms {
		if b, err := os.ReadFile(a); err == nil && strings.TrimSpace(string(b)) == "1" {
			return true
		}
	}
	return false
}
