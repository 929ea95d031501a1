// Package uevent hears from the kernel what is plugged in and out.
//
// The kernel tells of every change of a device on a netlink socket. At that
// moment udev has not yet made its links nor set permissions, so a listener
// takes an event as a reason to look again, now and a little later, and not as
// the truth: [Watch] does that.
//
// Events own their memory.
package uevent

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// An Event is one message of the kernel (Documentation/ABI/testing/sysfs-uevent
// and lib/kobject_uevent.c).
type Event struct {
	Action    string // "add", "remove", "change", "bind" …
	Path      string // of the device, below /sys
	Subsystem string
	Name      string // of the device node below /dev, or ""
	// Lost says that the kernel had to drop events: anything may have changed.
	// The other fields are empty.
	Lost bool
}

// errMalformed is what Parse wraps.
var errMalformed = errors.New("malformed event")

// Parse reads one message: "ACTION@PATH" and then KEY=VALUE strings, each ended
// by a zero byte. Unknown keys are skipped.
func Parse(msg []byte) (Event, error) {
	head, rest, ok := bytes.Cut(msg, []byte{0})
	action, path, at := strings.Cut(string(head), "@")
	if !ok || !at || action == "" {
		return Event{}, fmt.Errorf("%w: no ACTION@PATH at its start", errMalformed)
	}
	e := Event{Action: action, Path: path}
	for field := range bytes.SplitSeq(rest, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "ACTION":
			e.Action = value
		case "DEVPATH":
			e.Path = value
		case "SUBSYSTEM":
			e.Subsystem = value
		case "DEVNAME":
			e.Name = value
		}
	}
	return e, nil
}
