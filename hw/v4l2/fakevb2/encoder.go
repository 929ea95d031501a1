package fakevb2

import (
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// An Encoder is what makes a node an encoder: pictures go in on its output
// queue, coded pictures come out on its capture queue.
type Encoder struct {
	Raw   []Format // that it takes
	Coded []uint32 // that it gives; "H264" if empty
	Most  [2]int   // largest picture; no limit if zero
	// SizeImage is how large its coded buffers are unless more is asked for;
	// 64 KiB if zero. A coded picture that does not fit goes on in the next one.
	SizeImage int
	// Latency is how many pictures stay inside before the oldest comes out.
	Latency int
	// Instances is how many may stream at once; no limit if zero.
	Instances int
	// LeastIn and LeastOut are how many buffers REQBUFS makes at the least.
	LeastIn, LeastOut int
	// GOP is the distance of key pictures where no control sets it; 30 if zero.
	GOP int
	// Code codes a picture; [Grey] if nil. The result is not
	// kept.
	Code func(Picture) []byte
	// Script spoils pictures: the n-th picture of an opening suffers Script[n].
	Script []CodingFault
	// LastOnPicture marks the last picture of a drain instead of an empty buffer.
	LastOnPicture bool
	// NoStop knows no order to drain.
	NoStop bool
	// NoSequence leaves all buffers at number zero.
	NoSequence bool
	// WholeRates cuts rates to whole pictures a second.
	WholeRates bool
}

// A Picture is what goes to a coder.
type Picture struct {
	Number        int    // since the opening
	Codec         uint32 // the code of the coded format
	Width, Height int    // that count
	Key           bool
	Headers       bool // parameter sets are due
	FrameNum      int  // since the last key picture
	Keys          int  // key pictures before it
	Planes        [][]byte
}

// A CodingFault spoils one picture on its way through an encoder.
type CodingFault struct {
	Dropped    bool // it comes back, nothing comes out
	Split      bool // it comes out in two buffers of one stamp
	HeaderOnly bool // parameter sets come in a buffer of their own before it; with Dropped, alone
	Empty      bool // a buffer without bytes comes out
	WrongKey   bool // the flags say the opposite of what it is
	NoStamp    bool // its stamp is zero
	Garbage    bool // a buffer of nonsense with an unknown stamp comes before it
	Error      bool // the error flag
	Fatal      bool // vb2_queue_error on both queues instead
}

func (e *Encoder) coded() []Format {
	codes := e.Coded
	if len(codes) == 0 {
		codes = []uint32{fourCC("H264")}
	}
	var list []Format
	for _, c := range codes {
		f := Format{Code: c}
		if e.Most[0] > 0 {
			f.Sizes, f.Range = []Size{{Width: e.Most[0], Height: e.Most[1]}}, true
		}
		list = append(list, f)
	}
	return list
}

func (e *Encoder) sizeImage() int {
	if e.SizeImage == 0 {
		return 64 << 10
	}
	return e.SizeImage
}

// A job is the coding of one opening. It follows v4l2-mem2mem.c.
//
//	coding ──STOP──► draining ──all out, LAST──► stopped
//	  ▲                                             │
//	  └──────────STREAMOFF + STREAMON, CAPTURE──────┘
type job struct {
	inst     *instance
	ready    []chunk // coded, no buffer for it yet
	pictures int
	sinceKey int // pictures, the key included; zero: the next is one
	keys     int
	force    bool // the next picture shall be one
	headed   bool // parameter sets went out since the start
	sequence uint32
	drain    int // pictures left to code; while draining
	draining bool
	stopped  bool
}

// A chunk is what one coded buffer will carry.
type chunk struct {
	data  []byte
	flags uint32
	stamp uapi.Timeval
}

// formatSet takes the picture's size over to the coded side.
func (j *job) formatSet(s *side) {
	if s != j.inst.in || j.inst.out.busy() {
		return
	}
	out := j.inst.out
	if out.format.Type == 0 {
		out.reset(j.inst)
	}
	out.format.Pix().Width, out.format.Pix().Height = s.crop.Width, s.crop.Height // at the same places in both views
}

func (j *job) streamon(f *file, s *side) error {
	n := j.inst.node
	if most := n.Encoder.Instances; most > 0 && !n.running[j.inst] && len(n.running) >= most {
		return unix.EBUSY
	}
	if err := s.streamon(f); err != nil {
		return err
	}
	n.running[j.inst] = true
	return nil
}

// streamoff of the coded side restarts the coding: with a key picture.
func (j *job) streamoff(f *file, s *side) error {
	if err := s.streamoff(f); err != nil {
		return err
	}
	if s == j.inst.out {
		j.ready, j.sinceKey, j.headed, j.sequence = nil, 0, false, 0
		j.draining, j.stopped = false, false
	}
	if s == j.inst.in {
		j.drain = 0
	}
	if !j.inst.in.streaming && !j.inst.out.streaming {
		delete(j.inst.node.running, j.inst)
	}
	return nil
}

// command follows v4l2_m2m_encoder_cmd. START clears the state and not what
// DQBUF remembers, as Linux does up to 7.2 at least.
func (j *job) command(k *Kernel, command uint32) error {
	switch {
	case j.inst.node.Encoder.NoStop:
		return unix.ENOTTY
	case command == uapi.EncoderStart:
		j.stopped = false
		return nil
	case command != uapi.EncoderStop:
		return unix.EINVAL
	case j.draining:
		return unix.EBUSY
	case j.stopped:
		return nil
	}
	j.draining, j.drain = true, len(j.inst.in.queued)
	for j.drain == 0 && j.step(k) { // nothing is inside: it ends at once
		continue
	}
	return nil
}

// step does the next piece of work, if there is one that can be done.
func (j *job) step(k *Kernel) bool {
	in, out := j.inst.in, j.inst.out
	inside := len(in.queued)
	if j.draining {
		inside = j.drain
	}
	switch {
	case !out.streaming, out.next() == nil:
		return false
	case len(j.ready) > 0:
		j.emit(k)
		return true
	case j.stopped:
		return false
	case j.draining && inside == 0:
		j.ready = append(j.ready, chunk{flags: uapi.BufFlagLast})
		j.emit(k)
		return true
	case in.next() == nil, !j.draining && inside <= j.inst.node.Encoder.Latency:
		return false
	}
	j.code(k)
	return true
}

// code takes the oldest picture, which goes back at once, and makes chunks of
// it.
func (j *job) code(k *Kernel) {
	b := j.inst.in.next()
	fault := j.fault()
	if fault.Fatal {
		j.inst.in.failed, j.inst.out.failed = true, true
		return
	}
	j.ready = j.spoil(fault, b.raw.Timestamp, j.picture(b))
	b.raw.Flags = uapi.BufFlagTimestampCopy
	b.raw.Sequence = uint32(j.pictures)
	j.pictures++
	j.inst.in.finish()
	if j.draining {
		j.drain--
		if last := len(j.ready) - 1; j.drain == 0 && last >= 0 && j.inst.node.Encoder.LastOnPicture {
			j.ready[last].flags |= uapi.BufFlagLast
		}
	}
	if len(j.ready) > 0 {
		j.emit(k)
	}
}

func (j *job) fault() CodingFault {
	if script := j.inst.node.Encoder.Script; j.pictures < len(script) {
		return script[j.pictures]
	}
	return CodingFault{}
}

// picture describes the next picture and moves the count of the GOP on.
func (j *job) picture(b *buffer) Picture {
	gop := max(j.inst.node.Encoder.GOP, 0)
	if v, ok := j.inst.values[uapi.CIDGOPSize]; ok {
		gop = int(v)
	}
	if gop == 0 {
		gop = 30
	}
	if j.force || j.sinceKey >= gop {
		j.sinceKey = 0
	}
	repeat := j.inst.values[uapi.CIDRepeatSeqHeader] != 0 || j.inst.values[uapi.CIDPrependSPSPPSToIDR] != 0
	crop := j.inst.in.crop
	p := Picture{
		Number: j.pictures, Codec: j.inst.out.format.Pix().PixelFormat, Width: int(crop.Width), Height: int(crop.Height),
		Key: j.sinceKey == 0, Headers: j.sinceKey == 0 && (!j.headed || repeat), FrameNum: j.sinceKey, Keys: j.keys,
	}
	if p.Key {
		j.keys++
	}
	for i := range b.planes {
		plane := &b.planes[i]
		p.Planes = append(p.Planes, plane.data()[min(plane.start, plane.used):min(plane.used, plane.size)])
	}
	j.force = false
	j.headed = true
	j.sinceKey++
	return p
}

// spoil codes a picture and makes of it what the fault wants.
func (j *job) spoil(f CodingFault, stamp uapi.Timeval, p Picture) []chunk {
	if f.HeaderOnly {
		p.Headers = false
	}
	code := j.inst.node.Encoder.Code
	if code == nil {
		code = Grey
	}
	flags := uint32(uapi.BufFlagTimestampCopy | uapi.BufFlagPFrame)
	if p.Key != f.WrongKey {
		flags = uapi.BufFlagTimestampCopy | uapi.BufFlagKeyFrame
	}
	if f.Error {
		flags |= uapi.BufFlagError
	}
	if f.NoStamp {
		stamp = uapi.Timeval{}
	}
	var out []chunk
	if f.Garbage {
		out = append(out, chunk{data: []byte("\xA5\x5A\x00\x00\x03garbage"), flags: uapi.BufFlagTimestampCopy, stamp: uapi.Timeval{Sec: 7777777}})
	}
	if f.HeaderOnly {
		out = append(out, chunk{data: headersOf(p), flags: uapi.BufFlagTimestampCopy, stamp: stamp})
	}
	switch data := slices.Clone(code(p)); {
	case f.Dropped:
	case f.Empty:
		out = append(out, chunk{flags: flags, stamp: stamp})
	case f.Split:
		out = append(out, chunk{data[:len(data)/2], flags, stamp}, chunk{data[len(data)/2:], flags, stamp})
	default:
		out = append(out, chunk{data, flags, stamp})
	}
	return out
}

// emit fills the next coded buffer with the first chunk, as far as it goes in.
func (j *job) emit(k *Kernel) {
	out := j.inst.out
	b, c := out.next(), &j.ready[0]
	plane := &b.planes[0]
	n := copy(plane.data(), c.data)
	c.data = c.data[n:]
	plane.used = uint32(n)
	b.raw.Timestamp, b.raw.Flags, b.raw.Sequence, b.raw.Field = c.stamp, c.flags, j.sequence, uapi.FieldNone
	if len(c.data) > 0 {
		b.raw.Flags &^= uapi.BufFlagLast
	} else {
		j.ready = j.ready[1:]
	}
	if !j.inst.node.Encoder.NoSequence {
		j.sequence++
	}
	out.finish()
	if b.raw.Flags&uapi.BufFlagLast != 0 {
		j.draining, j.stopped = false, true
		k.tell(j.inst.node, uapi.Event{Type: uapi.EventEOS}, nil)
	}
}
