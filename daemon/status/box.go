package status

import "time"

// The states of the box and of its outputs, as pages and API spell them.
const (
	Off         = "off"
	Starting    = "starting"
	Live        = "live"
	Degraded    = "degraded"
	Broken      = "fault"
	Unconfirmed = "unconfirmed"
	Backoff     = "backoff"
	Failed      = "failed"
	Recovering  = "recovering" // of renditions: the encoder hangs and is brought back
)

// Box is the state of the whole box. Lights, pages, metrics and reports are
// pure functions of it. It holds no secrets.
type Box struct {
	// State is off (nothing wanted on air), starting, live, degraded or fault.
	State   string    `json:"state"`
	Name    string    `json:"name"`
	Board   string    `json:"board"`
	Version string    `json:"version"`
	Since   time.Time `json:"since"` // start of the daemon

	Input      Input       `json:"input"`
	Sound      Sound       `json:"sound"`
	Renditions []Rendition `json:"renditions"`
	Outputs    []Output    `json:"outputs"`
	Readers    []Reader    `json:"readers"`
	Record     Record      `json:"record"`
	// Ending is when a show that was stopped is over for good, nil if none was:
	// until then viewers see the slate on the same connections, and a start goes on.
	Ending     *time.Time      `json:"ending,omitempty"`
	AVOffsetMS float64         `json:"av_offset_ms"` // + means that the sound is late
	Keys       map[string]Key  `json:"keys"`
	Lamps      map[string]Lamp `json:"lamps"`
	Tally      Tally           `json:"tally"`
	Faults     []Fault         `json:"faults"`
	Services   []Service       `json:"services"`

	// Identify says that somebody asked which box this is, and it says so.
	Identify bool `json:"identify"`

	Network      Network `json:"network"`
	Power        Power   `json:"power"`
	TemperatureC float64 `json:"temperature_c"` // 0 = unknown
	Storage      Storage `json:"storage"`
}

// Input is the picture coming in.
type Input struct {
	Source  string  `json:"source"` // as configured
	ID      string  `json:"id"`     // stable name of the camera in use, or ""
	Name    string  `json:"name"`
	Signal  bool    `json:"signal"` // false while the slate is shown
	Width   int     `json:"width"`
	Height  int     `json:"height"`
	FPS     float64 `json:"fps"` // measured
	Format  string  `json:"format"`
	Frames  uint64  `json:"frames"`
	Missed  uint64  `json:"missed"`
	Damaged uint64  `json:"damaged"`
	Slate   uint64  `json:"slate_frames"`
	// DecodedBytes are what the processor wrote of raw pictures to decode JPEG,
	// once for all renditions; no part of their CopiedBytes.
	DecodedBytes uint64 `json:"decoded_bytes"`
}

// Sound is the sound coming in.
type Sound struct {
	Source string `json:"source"`
	ID     string `json:"id"`
	Name   string `json:"name"`
	Signal bool   `json:"signal"` // false while silence is filled in
	Muted  bool   `json:"muted"`
	// Silent says that what comes in has been silent for longer than it should.
	Silent bool `json:"silent"`
	// Levels are of what viewers hear; -120 stands for none.
	PeakDBFS float64         `json:"peak_dbfs"` // of the louder channel
	Channels [2]SoundChannel `json:"channels"`  // left and right
	// LoudnessLUFS and MomentaryLUFS are the EBU R128 loudness of the last 3 s
	// and of the last 400 ms.
	LoudnessLUFS  float64 `json:"loudness_lufs"`
	MomentaryLUFS float64 `json:"momentary_lufs"`
	DriftPPM      float64 `json:"drift_ppm"` // of the card against CLOCK_MONOTONIC
	Xruns         uint64  `json:"xruns"`
	Gaps          uint64  `json:"gaps"`  // times that lost sound was replaced by silence
	Steps         uint64  `json:"steps"` // times that sound was more than 80 ms off and moved by force
}

// SoundChannel is the level of the left or right channel.
type SoundChannel struct {
	PeakDBFS float64 `json:"peak_dbfs"`
	RMSDBFS  float64 `json:"rms_dbfs"` // of the last 400 ms
}

// Rendition is one coding of the picture.
type Rendition struct {
	Name    string  `json:"name"`
	Codec   string  `json:"codec"`
	Encoder string  `json:"encoder"`
	Width   int     `json:"width"`
	Height  int     `json:"height"`
	FPS     float64 `json:"fps"`     // measured
	Bitrate int     `json:"bitrate"` // measured, bit/s
	Target  int     `json:"target_bitrate"`
	Frames  uint64  `json:"frames"`
	Dropped uint64  `json:"dropped"`
	// CopiedBytes are what the processor wrote of raw pictures between camera and
	// encoder: each copy, conversion and scaling of each picture by itself, slates
	// too. Not counted are JPEG decoding (see [Input].DecodedBytes), the painting
	// of slates, stills, coded bytes, and what an encoder's library copies inside.
	CopiedBytes uint64 `json:"copied_bytes"`
	State       string `json:"state"` // off, starting, live, recovering, backoff, failed
	Error       string `json:"error,omitempty"`
	// EncoderReason says why it is not the encoder that comes first.
	EncoderReason string `json:"encoder_reason,omitempty"`
	// Buffers is absent until a camera has come.
	Buffers *Buffers `json:"buffers,omitempty"`
}

// Buffers says how pictures get from the camera to an encoder, and why so.
type Buffers struct {
	Way    string `json:"way"` // export, import, copy, convert, decode, through, heap
	Reason string `json:"reason"`
}

// Output is one destination.
type Output struct {
	Name      string     `json:"name"`
	URL       string     `json:"url"` // without key, user, password and query
	Rendition string     `json:"rendition"`
	State     string     `json:"state"` // off, starting, unconfirmed, live, backoff, failed
	Required  bool       `json:"required"`
	Error     string     `json:"error,omitempty"`
	Attempt   int        `json:"attempt,omitempty"`
	RetryAt   *time.Time `json:"retry_at,omitempty"`
	LagMS     float64    `json:"lag_ms"`
	Bitrate   int        `json:"bitrate"` // measured, bit/s
	Sent      uint64     `json:"sent_bytes"`
	Lost      uint64     `json:"lost"`
	Since     *time.Time `json:"since,omitempty"` // on air since
}

// Reader is one local viewer.
type Reader struct {
	Protocol  string    `json:"protocol"`
	Rendition string    `json:"rendition"`
	Peer      string    `json:"peer"`
	Since     time.Time `json:"since"`
	Bytes     uint64    `json:"bytes"`
	Lost      uint64    `json:"lost"`
	LagMS     float64   `json:"lag_ms"` // of media that waits for it, where the protocol tells
}

// The states of the recorder beside off, starting and failed. Slow says that it
// goes on, but that the medium takes less than comes in.
const (
	Recording = "recording"
	Slow      = "slow"
)

// Record is the recorder.
type Record struct {
	State string     `json:"state"` // off, starting, recording, slow, failed
	Since *time.Time `json:"since,omitempty"`
	// Error says why it failed or only begins, and of one that is off, that the
	// end of the last recording is missing.
	Error string `json:"error,omitempty"`
	// Uncoded says that it failed because no pictures of Rendition are coded.
	Uncoded bool `json:"uncoded,omitempty"`
	// RetryAt is when one that failed is tried again by itself.
	RetryAt   *time.Time `json:"retry_at,omitempty"`
	Rendition string     `json:"rendition,omitempty"` // that is recorded
	File      string     `json:"file,omitempty"`      // that is being written
	// Bytes and Pictures are on the medium, and Lost pictures were left out, since
	// the daemon began.
	Bytes    uint64 `json:"bytes"`
	Pictures uint64 `json:"pictures"`
	Lost     uint64 `json:"lost"`
	// FreeBytes and TotalBytes are the medium's, zero while nothing is recorded.
	FreeBytes  uint64 `json:"free_bytes"`
	TotalBytes uint64 `json:"total_bytes"`
}

// Lamp is what a lamp shows and why.
type Lamp struct {
	Pattern string `json:"pattern"`
	Reason  string `json:"reason"`
}

// The states of the tally. Unknown says that a switcher is silent: nobody can
// say whether this camera is on program.
const (
	Preview = "preview"
	Program = "program"
	Unknown = "unknown"
)

// Tally is what the switchers say about this camera.
type Tally struct {
	State   string        `json:"state"` // off, preview, program, unknown
	Reason  string        `json:"reason"`
	Sources []TallySource `json:"sources"`
}

// TallySource is one that can say so.
type TallySource struct {
	Name     string `json:"name"` // as configured
	Protocol string `json:"protocol"`
	Address  string `json:"address"` // of the switcher, port or line, without secrets
	Input    string `json:"input"`   // which of the switcher's this camera is
	State    string `json:"state"`   // off, preview, program, unknown
	// Sender is the address of who said so, where it could be anybody, and
	// Senders are all whose words count, if there are several: the source says
	// program if one of them does, else preview if one does.
	Sender  string        `json:"sender,omitempty"`
	Senders []TallySender `json:"senders,omitempty"`
	Bad     uint64        `json:"bad"` // times that what came was not understood
	// Heard is when anything last came from Sender, nil if nothing has yet, and
	// AgeMS how long ago that was.
	Heard *time.Time `json:"heard,omitempty"`
	AgeMS int64      `json:"age_ms"`
	// Changed is when it last said something new of this camera.
	Changed *time.Time `json:"changed,omitempty"`
	// Error says why nothing can be heard.
	Error string `json:"error,omitempty"`
}

// TallySender is one of several who speak for a source.
type TallySender struct {
	Sender string `json:"sender"`
	State  string `json:"state"`  // off, preview, program
	AgeMS  int64  `json:"age_ms"` // since anything came from there
}

// Key is how a key on the box stands, and what it last did.
type Key struct {
	Down bool `json:"down"`
	// Edge is when it last moved, nil if it has not since the start.
	Edge *time.Time `json:"edge,omitempty"`
	// Holding is the order that comes if the key stays down, and Armed the one
	// that a short press confirms, once the key is up.
	Holding string `json:"holding,omitempty"`
	Armed   string `json:"armed,omitempty"`
	// Gesture (press, double, hold or long), Action and At are of the last order.
	Gesture string     `json:"gesture,omitempty"`
	Action  string     `json:"action,omitempty"`
	At      *time.Time `json:"at,omitempty"`
	// Error says why the key does nothing: stuck, bouncing, its line in use, or
	// that the last order was refused.
	Error string `json:"error,omitempty"`
}

// Service is one line of the supervisor.
type Service struct {
	Name    string     `json:"name"`
	State   string     `json:"state"`
	Error   string     `json:"error,omitempty"`
	Attempt int        `json:"attempt,omitempty"`
	RetryAt *time.Time `json:"retry_at,omitempty"`
}

// Network is the way out of the box.
type Network struct {
	Up        bool   `json:"up"`
	Interface string `json:"interface,omitempty"` // of the default route
	Address   string `json:"address,omitempty"`   // of the box there
}

// Power is what the box runs on.
type Power struct {
	// UnderVoltage says that the supply gives too little now.
	UnderVoltage bool `json:"under_voltage"`
}

// Storage is the disk that holds the state directory.
type Storage struct {
	TotalBytes uint64 `json:"total_bytes"`
	FreeBytes  uint64 `json:"free_bytes"`
}
