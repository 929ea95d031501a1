package status

import (
	"slices"
	"time"
)

// A FaultCode names a kind of trouble. Codes are stable: fleets alarm on them.
type FaultCode string

// The kinds of trouble. Each has one row in [FaultTable].
const (
	NoPicture      FaultCode = "no-picture"
	NoSound        FaultCode = "no-sound"
	SilentSound    FaultCode = "silent-sound"
	EncoderFailed  FaultCode = "encoder-failed"
	EncoderMissing FaultCode = "encoder-missing"
	// EncoderStalled stands while an encoder that hangs is brought back,
	// EncoderFallback while another one codes in its place.
	EncoderStalled  FaultCode = "encoder-stalled"
	EncoderFallback FaultCode = "encoder-fallback"
	DriverHangs     FaultCode = "driver-hangs"
	OutputRetrying  FaultCode = "output-retrying"
	OutputRefused   FaultCode = "output-refused"
	ServerFailed    FaultCode = "server-failed"
	ServiceStuck    FaultCode = "service-stuck"
	StorageLow      FaultCode = "storage-low"
	RecordFailed    FaultCode = "record-failed"
	RecordUncoded   FaultCode = "record-uncoded"
	RecordSlow      FaultCode = "record-slow"
	TooHot          FaultCode = "too-hot"
	UnderVoltage    FaultCode = "under-voltage"
	NoNetwork       FaultCode = "no-network"
	NetworkStays    FaultCode = "network-stays"
	KeyStuck        FaultCode = "key-stuck"
	PanelWire       FaultCode = "panel-wire"
	TallyLost       FaultCode = "tally-lost"
)

// A FaultText is what people read: what happened and what to do next.
type FaultText struct {
	Title string
	Do    string
	// Severe faults mean that viewers miss picture or sound.
	Severe bool
}

// FaultTable is the one list of faults; pages, lamps, metrics and the manual
// follow from it.
var FaultTable = map[FaultCode]FaultText{
	NoPicture:       {"No picture comes in", "Check the camera's cable and power. Viewers see the no-signal picture; the camera's picture returns by itself.", true},
	NoSound:         {"No sound comes in", "Check the sound cable and the chosen card. Viewers hear silence; the sound returns by itself.", true},
	SilentSound:     {"The sound is silent", "Check the mixer's output, its cable, and channels and gain under [audio]. If it is meant to be so quiet, set silence to a lower level or silence_after to a longer time.", false},
	EncoderFailed:   {"The encoder stopped", "It is started again by itself. If this stays, choose encoder = \"software\" or a smaller picture.", true},
	EncoderMissing:  {"No usable encoder", "Install libx264 (Debian: libx264-164) or choose a rendition that the hardware can encode.", true},
	EncoderStalled:  {"The encoder hangs", "It is brought back by itself, or another one takes over, within seconds. Connections stay.", true},
	EncoderFallback: {"A spare encoder is at work", "The picture goes on. The first encoder is tried again when the rendition's settings change, when its device is plugged in anew, or after a restart of the box.", false},
	DriverHangs:     {"A device driver does not answer", "The box goes on without it. Restart the box after the show; if it happens again, send the diagnostics.", false},
	OutputRetrying:  {"A destination cannot be reached", "Check the network and the address. The box keeps trying.", true},
	OutputRefused:   {"A destination refuses the stream", "Check the stream key at the platform, enter it again, then start the output.", true},
	ServerFailed:    {"A local server cannot start", "Another program may use the port. Choose another one under [serve].", false},
	ServiceStuck:    {"A part of the box hangs", "The box restarts itself within seconds. If it happens again, send the diagnostics.", true},
	StorageLow:      {"Storage is almost full", "Remove recordings or use a larger medium.", false},
	RecordFailed:    {"It cannot record", "Recording goes on by itself, in a new file, once it can. If it does not, put in an empty medium, or call the technician.", false},
	RecordUncoded:   {"Nothing is recorded", "The rendition that is recorded has no encoder. Recording goes on by itself once it has; the storage is not to blame.", false},
	RecordSlow:      {"The storage is too slow to record", "Parts of the recording are missing, or soon will be. Get a faster medium ready.", false},
	TooHot:          {"The box is too hot", "Give it air, or choose a smaller picture.", false},
	UnderVoltage:    {"The power is too weak", "Use the box's own power supply and cable. The box may stop at any moment.", false},
	NetworkStays:    {"The network was not reset", "This system does not carry out network resets: install encoderd-network-reset.path and its service, or set the network by hand.", false},
	NoNetwork:       {"No network", "Check the network cable and the switch. Connections return by themselves.", true},
	KeyStuck:        {"A key is stuck", "Let go of it, or free it: it counts again once it is up and quiet. The other keys work, and so does the page.", false},
	PanelWire:       {"A key or lamp cannot be used", "Check its pin under [[key]] or [[lamp]] and its wires. The others work; this one is tried again by itself.", false},
	TallyLost:       {"A switcher is silent", "Check the switcher and the way to it. Until it is heard again nobody knows whether this camera is on program.", false},
}

// Fault is one trouble that stands now.
type Fault struct {
	Code  FaultCode `json:"code"`
	Title string    `json:"title"`
	// Text says what exactly, and what to do next.
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
}

// NewFault builds a fault from its table row. detail, if not empty, says what
// exactly; it must hold no secret.
func NewFault(code FaultCode, detail string, since time.Time) Fault {
	row := FaultTable[code]
	text := row.Do
	if detail != "" {
		text = detail + ". " + row.Do
	}
	return Fault{Code: code, Title: row.Title, Text: text, Since: since}
}

// Has reports whether a fault of that kind stands.
func (b Box) Has(code FaultCode) bool {
	return slices.ContainsFunc(b.Faults, func(f Fault) bool { return f.Code == code })
}
