// Package serial knows the serial ports of the box. It is the only importer of
// go.bug.st/serial.
package serial

import (
	"cmp"
	"fmt"
	"slices"

	"go.bug.st/serial/enumerator"
)

// A Port is one serial port that is plugged in now.
type Port struct {
	Path string `json:"path"` // "/dev/ttyUSB0"; the number may change with the order of plugging
	// USB is "vendor:product serial" of a USB adapter, "" for other ports.
	USB string `json:"usb,omitempty"`
}

// List returns the ports that are there, by path.
func List() ([]Port, error) {
	found, err := enumerator.GetDetailedPortsList()
	if err != nil {
		return nil, fmt.Errorf("list serial ports: %w", err)
	}
	var ports []Port
	for _, f := range found {
		p := Port{Path: f.Name}
		if f.IsUSB {
			p.USB = fmt.Sprintf("%s:%s %s", f.VID, f.PID, f.SerialNumber)
		}
		ports = append(ports, p)
	}
	slices.SortFunc(ports, func(a, b Port) int { return cmp.Compare(a.Path, b.Path) })
	return ports, nil
}
