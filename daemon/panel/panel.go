// Package panel is what the face of the box means: movements of keys become
// orders, and the status becomes patterns of lamps.
//
//	edges ─► Keys ─► order ─► actions of the box ─► … ─► status.Box
//	                                                        │
//	lamps ◄─ Pattern.At ◄─────── Lamps: rows, first fit ◄───┘
//
// Lamps is pure, and the whole truth about the lights: nothing else sets one.
// Its rows are also the table of docs/panel.md, which people read in the dark.
package panel

import (
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A Role is what a lamp, or a contact that is closed like one is lit, tells.
type Role string

// The roles. Those from RoleProgram on are of contacts: they are on or off, and
// never blink.
const (
	RoleStream Role = "stream"
	RoleRecord Role = "record"
	RoleMute   Role = "mute"
	RoleTally  Role = "tally" // for who is at the camera
	RoleStage  Role = "stage" // for who is in front of it
	RoleReset  Role = "reset"

	RoleProgram   Role = "program"
	RolePreview   Role = "preview"
	RoleLive      Role = "live"
	RoleRecording Role = "recording"
	RoleFault     Role = "fault"
)

// Roles returns all roles, lamps first.
func Roles() []Role {
	return []Role{
		RoleStream, RoleRecord, RoleMute, RoleTally, RoleStage, RoleReset,
		RoleProgram, RolePreview, RoleLive, RoleRecording, RoleFault,
	}
}

// Contact reports whether the role is one of contacts.
func (r Role) Contact() bool {
	switch r {
	case RoleProgram, RolePreview, RoleLive, RoleRecording, RoleFault:
		return true
	default:
		return false
	}
}

// DefaultLamps returns what lamps with the usual names show if the config does
// not say otherwise.
func DefaultLamps() map[string]Role {
	return map[string]Role{
		"STREAM": RoleStream, "REC": RoleRecord, "MUTE": RoleMute,
		"TALLY": RoleTally, "STAGE": RoleStage, "RESET": RoleReset,
	}
}

// Lamps says how every lamp shines in a given state at a given time, and why.
// shows names the lamps and what each is for; one of an unknown role stays dark.
func Lamps(b status.Box, shows map[string]Role, now time.Time) map[string]status.Lamp {
	lamps := make(map[string]status.Lamp, len(shows))
	for name, role := range shows {
		lamps[name] = lamp(b, role, now)
	}
	return lamps
}

func lamp(b status.Box, role Role, now time.Time) status.Lamp {
	for _, r := range rows {
		if r.role != role {
			continue
		}
		if reason, ok := r.when(b, now); ok {
			return status.Lamp{Pattern: r.pattern.String(), Reason: reason}
		}
	}
	return status.Lamp{Pattern: Pattern{}.String(), Reason: "it is for nothing"}
}

// A row is one light: the first row of a role whose time has come says how its
// lamps shine.
type row struct {
	role    Role
	pattern Pattern
	means   string // for people
	do      string // what to do, "" if nothing
	when    func(b status.Box, now time.Time) (reason string, ok bool)
}

// What the lamps of all keys say of one that asks for a second thought.
const (
	confirmMeans = "A key was held, and what it orders waits for one more press"
	confirmToDo  = "Let go, then press it once within 5 seconds. To leave all as it is: let go, do nothing."
)

// rows is the one list of lights, per role from urgent to calm. Within a role
// all rhythms differ: who cannot tell the colors apart, or has a lamp of one
// color, sees the same.
//
// Steady red says that something is so now: on air, recording, muted, on
// program. Nothing else of those lamps is steady.
var rows = []row{
	{RoleStream, Pattern{hw.Amber, LongTwoShort}, confirmMeans, confirmToDo, waits(RoleStream)},
	{RoleStream, Pattern{hw.White, Call}, "Somebody is looking for this box", "", identify},
	{RoleStream, Pattern{hw.Amber, DoubleFlash}, "The STREAM key is held down after the show was stopped", "Let go to go on with the show. Keep holding to stop it now.", endingHeld},
	{RoleStream, Pattern{hw.Amber, Fast}, "The STREAM key is held down, or one without a lamp of its own", "Keep holding: STREAM stops the show. Let go: you stay on air.", streamHeld},
	{RoleStream, Pattern{hw.Amber, LongShort}, "The show was stopped; viewers see a still picture", "Was that a mistake? Press STREAM within 20 seconds and it goes on.", ending},
	{RoleStream, Pattern{hw.Amber, Blink6}, "The box itself: power, heat, or a part of it", "Give it air and its own power supply. If it goes on blinking, call the technician: \"six blinks\".", boxFails},
	{RoleStream, Pattern{hw.Amber, Blink2}, "No network", "Push the network cable in at both ends. Is the switch on?", noNetwork},
	{RoleStream, Pattern{hw.Amber, Blink3}, "The platform refuses the stream", "Call the technician: the stream key is wrong or used up.", refused},
	{RoleStream, Pattern{hw.Amber, Blink4}, "The platform cannot be reached", "Wait a minute, the box keeps trying. Then call the technician.", unreachable},
	{RoleStream, Pattern{hw.Amber, Blink1}, "No picture comes in; viewers see \"no signal\"", "Check the camera: is it on, is its cable in?", noInput},
	{RoleStream, Pattern{hw.Amber, Blink5}, "The recording is in danger: storage full, slow or broken", "Put in an empty medium, or call the technician.", storage},
	{RoleStream, Pattern{hw.Amber, Pulse}, "On the way: not everybody who should get the show has it yet", "Wait. It takes up to half a minute.", connecting},
	{RoleStream, Pattern{hw.Amber, Occulting}, "On air, but something is missing: the sound, or one of several platforms", "Go on with the show. Look at the page, or tell the technician.", degraded},
	{RoleStream, Pattern{hw.Red, Steady}, "ON AIR, and all is well", "", onAir},
	{RoleStream, Pattern{}, "Not on air", "Press STREAM to start.", always("nothing is on air")},

	{RoleRecord, Pattern{hw.Amber, LongTwoShort}, confirmMeans, confirmToDo, waits(RoleRecord)},
	{RoleRecord, Pattern{hw.White, Call}, "Somebody is looking for this box", "", identify},
	{RoleRecord, Pattern{hw.Amber, Fast}, "The REC key is held down", "Keep holding to stop recording. Let go to record on.", recordHeld},
	{RoleRecord, Pattern{hw.Amber, Blink6}, "Nothing is recorded: the box has no encoder for it", "Call the technician: \"six blinks\". The medium is not to blame.", uncoded},
	{RoleRecord, Pattern{hw.Amber, Blink5}, "It cannot record: storage full or broken", "Put in an empty medium, or call the technician.", recordFails},
	{RoleRecord, Pattern{hw.Amber, Occulting}, "Recording, but the storage is slow or almost full", "Get an empty or a faster medium ready.", recordDegraded},
	{RoleRecord, Pattern{hw.Amber, Pulse}, "Recording is about to begin, or waits for pictures", "Wait.", recordBegins},
	{RoleRecord, Pattern{hw.Red, Steady}, "RECORDING", "", recordState(status.Recording, "recording")},
	{RoleRecord, Pattern{}, "Not recording", "Press REC to record.", always("nothing is recorded")},

	{RoleMute, Pattern{hw.Amber, LongTwoShort}, confirmMeans, confirmToDo, waits(RoleMute)},
	{RoleMute, Pattern{hw.White, Call}, "Somebody is looking for this box", "", identify},
	{RoleMute, Pattern{hw.Amber, Fast}, "The MUTE key is held down", "Keep holding for what it is to do. Let go to leave all as it is.", muteHeld},
	{RoleMute, Pattern{hw.Red, Steady}, "MUTED: viewers hear nothing", "Press MUTE to let them hear.", muted},
	{RoleMute, Pattern{hw.Amber, Pulse}, "No sound comes in", "Check the mixer, its cable, and whether a microphone is on.", soundMissing},
	{RoleMute, Pattern{}, "Viewers hear the sound", "", always("not muted")},

	{RoleTally, Pattern{hw.Red, Steady}, "ON PROGRAM: this camera is seen now", "Keep the camera still.", tally(status.Program, "on program")},
	{RoleTally, Pattern{hw.Blue, DoubleFlash}, "Nobody knows: the switcher is silent", "Act as if you were on program. Tell who is at the switcher.", tally(status.Unknown, "a switcher is silent")},
	{RoleTally, Pattern{hw.Green, Pulse}, "Next: this camera is on preview", "Get ready.", tally(status.Preview, "on preview")},
	{RoleTally, Pattern{}, "Not in use", "", always("not on program")},

	{RoleStage, Pattern{hw.Red, Steady}, "This camera is seen now", "", tally(status.Program, "on program")},
	{RoleStage, Pattern{hw.Green, Pulse}, "This camera is next", "", tally(status.Preview, "on preview")},
	{RoleStage, Pattern{}, "Not in use, or not known", "", always("not known to be on program")},

	{RoleReset, Pattern{hw.Red, Fast}, "RESET was held for 10 seconds: everything will be erased", "Let go, then press once within 5 seconds. To leave all as it is: let go, do nothing.", armed(factoryReset, true)},
	{RoleReset, Pattern{hw.Red, DoubleFlash}, "Everything will be erased: waits for your press", "Press RESET once within 5 seconds. To leave all as it is: do nothing.", armed(factoryReset, false)},
	{RoleReset, Pattern{hw.White, Steady}, "RESET was held for 5 seconds: the network will be reset", "Let go, then press once within 5 seconds. To leave all as it is: let go, do nothing.", armed(networkReset, true)},
	{RoleReset, Pattern{hw.White, Pulse}, "The network will be reset: waits for your press", "Press RESET once within 5 seconds. To leave all as it is: do nothing.", armed(networkReset, false)},
	{RoleReset, Pattern{hw.White, Call}, "Somebody is looking for this box, and no reset waits", "", identify},
	{RoleReset, Pattern{hw.Amber, Occulting}, "RESET is held down", "Keep holding until the light you want. Let go to leave all as it is.", resetHeld},
	{RoleReset, Pattern{}, "Nothing", "", always("no reset is asked for")},

	{RoleProgram, Pattern{hw.Red, Steady}, "This camera is on program", "", tally(status.Program, "on program")},
	{RoleProgram, Pattern{}, "Not on program, or not known", "", always("not known to be on program")},
	{RolePreview, Pattern{hw.Green, Steady}, "This camera is on preview", "", tally(status.Preview, "on preview")},
	{RolePreview, Pattern{}, "Not on preview, or not known", "", always("not known to be on preview")},
	{RoleLive, Pattern{hw.Red, Steady}, "On air: every required destination has confirmed, and pictures are coded", "", onAir},
	{RoleLive, Pattern{}, "Not on air", "", always("not everything that is required is on air")},
	{RoleRecording, Pattern{hw.Red, Steady}, "Recording", "", records},
	{RoleRecording, Pattern{}, "Not recording", "", always("nothing is recorded")},
	{RoleFault, Pattern{hw.Amber, Steady}, "Viewers miss something", "", severe},
	{RoleFault, Pattern{}, "No fault that viewers notice", "", always("no fault that viewers notice")},
}
