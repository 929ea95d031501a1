// Package serial knows the serial ports of the box. It is the only importer of
// go.bug.st/serial.
package serial

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.bug.st/serial/enumerator"
)

// A Port is one serial port that is plugged in now.
type Port struct {
	Path string `json:"path"` // "/dev/ttyUSB0"; the number may change with the order of plugging
	// ByPath is the name that the same socket has again after any restart, below
	// /dev/serial/by-path; "" if udev gives the port none.
	ByPath string `json:"by_path,omitempty"`
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
	links := byPath("/dev/serial/by-path")
	for _, f := range found {
		p := Port{Path: f.Name, ByPath: links[f.Name]}
		if f.IsUSB {
			p.USB = fmt.Sprintf("%s:%s %s", f.VID, f.PID, f.SerialNumber)
		}
		ports = append(ports, p)
	}
	slices.SortFunc(ports, func(a, b Port) int { return cmp.Compare(a.Path, b.Path) })
	return ports, nil
}

// byPath returns the links in a folder by where they lead to. One socket has
// links of several schemes: the first one counts.
func byPath(folder string) map[string]string {
	links := make(map[string]string)
	list, _ := os.ReadDir(folder) // without it no port has such a name
	for _, e := range list {
		link := filepath.Join(folder, e.Name())
		device, err := filepath.EvalSymlinks(link)
		if _, known := links[device]; err == nil && !known {
			links[device] = link
		}
	}
	return links
}
