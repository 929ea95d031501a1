package fakevb2

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// A Receiver is an input for a digital signal such as HDMI. Change it by
// [Kernel.Change] only.
type Receiver struct {
	Signal  Signal
	Timings uapi.DVTimings   // of what comes in
	Known   []uapi.DVTimings // that it lists
	// NeedsEDID lets nothing come in until an EDID was set.
	NeedsEDID bool
	EDID      []byte
	// Room is how many blocks of EDID it has room for; two if zero.
	Room int
	// EDIDWrites counts S_EDID: each is a plug pulled for the source.
	EDIDWrites int
	// NoEvents sends none, as a chip without an interrupt line.
	NoEvents bool

	expected uapi.DVTimings // that were set
}

// A Signal is the state of what comes in.
type Signal int

// The states.
const (
	Good       Signal = iota
	NoSignal          // nothing comes in
	NotLocked         // something comes in that cannot be read
	OutOfRange        // it is more than the receiver takes
)

// Timings returns progressive ones of about that size and rate, as CTA-861
// would have them: 1920, 1080, 60 gives 148.5 MHz.
func Timings(width, height, rate int) uapi.DVTimings {
	bt := uapi.BTTimings{
		Width: uint32(width), Height: uint32(height),
		HFrontPorch: 88, HSync: 44, HBackPorch: 148, VFrontPorch: 4, VSync: 5, VBackPorch: 36,
		Polarities: uapi.DVVSyncPositive | uapi.DVHSyncPositive, Standards: uapi.DVStandardCEA861,
	}
	bt.SetPixelClock(uint64((width + 280) * (height + 45) * rate))
	return uapi.DVTimings{Type: uapi.DVTypeBT656_1120, BT: bt}
}

// Change changes a receiver of n and tells those who want to know.
func (k *Kernel) Change(n *Node, input int, change func(*Receiver)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := n.Receivers[input]
	change(r)
	if !r.NoEvents {
		k.tell(n, uapi.Event{Type: uapi.EventSourceChange, ID: uint32(input), Data: [16]uint32{uapi.EventSourceResolution}}, nil)
	}
	k.moved.Broadcast()
}

// receiver returns that of the selected input, if it is one.
func (n *Node) receiver() *Receiver { return n.Receivers[int(n.input)] }

// receives says whether pictures come in: of a receiver, while the signal is
// what it expects.
func (n *Node) receives() bool {
	r := n.receiver()
	return r == nil || r.state() == nil && r.Timings == r.expected
}

// state is what a measurement of the signal says.
func (r *Receiver) state() error {
	switch {
	case r.NeedsEDID && len(r.EDID) == 0, r.Signal == NoSignal:
		return unix.ENOLINK
	case r.Signal == NotLocked:
		return unix.ENOLCK
	case r.Signal == OutOfRange:
		return unix.ERANGE
	default:
		return nil
	}
}

// current returns the receiver that the calls on timings are about.
func (n *Node) current() (*Receiver, error) {
	switch r := n.receiver(); {
	case len(n.Receivers) == 0:
		return nil, unix.ENOTTY
	case r == nil:
		return nil, unix.ENODATA
	default:
		return r, nil
	}
}

func (k *Kernel) queryTimings(f *file, arg *uapi.DVTimings) error {
	r, err := f.node.current()
	if err != nil {
		return err
	}
	if err := r.state(); err != nil {
		return err
	}
	*arg = r.Timings
	return nil
}

func (k *Kernel) getTimings(f *file, arg *uapi.DVTimings) error {
	r, err := f.node.current()
	if err != nil {
		return err
	}
	*arg = r.expected
	return nil
}

func (k *Kernel) setTimings(f *file, arg *uapi.DVTimings) error {
	r, err := f.node.current()
	switch {
	case err != nil:
		return err
	case *arg == r.expected:
		return nil
	case f.inst.out.busy():
		return unix.EBUSY
	}
	r.expected = *arg
	f.inst.out.format = uapi.Format{} // the picture is another one
	return nil
}

func (k *Kernel) enumTimings(f *file, arg *uapi.DVTimingsEntry) error {
	r, err := f.node.current()
	if f.node.Subdev {
		r, err = f.node.pad(arg.Pad)
	}
	switch {
	case err != nil:
		return err
	case int(arg.Index) >= len(r.Known):
		return unix.EINVAL
	}
	arg.Timings = r.Known[arg.Index]
	return nil
}

// pad returns the receiver that an EDID is for.
func (n *Node) pad(number uint32) (*Receiver, error) {
	switch r := n.Receivers[int(number)]; {
	case len(n.Receivers) == 0:
		return nil, unix.ENOTTY
	case r == nil:
		return nil, unix.EINVAL
	default:
		return r, nil
	}
}

// block is the size of one block of an EDID.
const block = 128

// data is the kernel's view of a pointer that user space stored as a number.
func data(arg *uapi.EDID) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&arg.Data)), arg.Blocks*block) //nolint:gosec // user space vouches for its size
}

// getEDID follows vivid.
func (k *Kernel) getEDID(f *file, arg *uapi.EDID) error {
	r, err := f.node.pad(arg.Pad)
	have := uint32(0)
	if err == nil {
		have = uint32(len(r.EDID) / block)
	}
	switch {
	case err != nil:
		return err
	case arg.StartBlock == 0 && arg.Blocks == 0:
		arg.Blocks = have
		return nil
	case have == 0:
		return unix.ENODATA
	case arg.StartBlock >= have:
		return unix.EINVAL
	}
	arg.Blocks = min(arg.Blocks, have-arg.StartBlock)
	copy(data(arg), r.EDID[arg.StartBlock*block:])
	return nil
}

func (k *Kernel) setEDID(f *file, arg *uapi.EDID) error {
	r, err := f.node.pad(arg.Pad)
	switch {
	case err != nil:
		return err
	case arg.StartBlock != 0:
		return unix.EINVAL
	case arg.Blocks > uint32(r.room()):
		arg.Blocks = uint32(r.room())
		return unix.E2BIG
	}
	r.EDIDWrites++
	r.EDID = nil
	if arg.Blocks > 0 {
		r.EDID = append(r.EDID, data(arg)...)
	}
	return nil
}

func (r *Receiver) room() int {
	if r.Room == 0 {
		return 2
	}
	return r.Room
}

func (k *Kernel) enumInput(f *file, arg *uapi.Input) error {
	n := f.node
	if int(arg.Index) >= n.Inputs {
		return unix.EINVAL
	}
	*arg = uapi.Input{Index: arg.Index, Type: uapi.InputTypeCamera}
	r := n.Receivers[int(arg.Index)]
	if r == nil {
		copy(arg.Name[:], fmt.Sprintf("Camera %d", arg.Index))
		return nil
	}
	copy(arg.Name[:], fmt.Sprintf("HDMI %d", arg.Index))
	arg.Capabilities = uapi.InCapDVTimings
	if int32(arg.Index) == n.input {
		arg.Status = r.status()
	}
	return nil
}

func (r *Receiver) status() uint32 {
	switch err := r.state(); {
	case err == nil:
		return 0
	case errors.Is(err, unix.ENOLINK):
		return uapi.InStatusNoSignal
	default:
		return uapi.InStatusNoSync
	}
}

func (k *Kernel) getInput(f *file, arg *int32) error {
	if f.node.Inputs == 0 {
		return unix.ENOTTY
	}
	*arg = f.node.input
	return nil
}

func (k *Kernel) setInput(f *file, arg *int32) error {
	switch n := f.node; {
	case int(*arg) >= n.Inputs || *arg < 0:
		return unix.EINVAL
	case n.input == *arg:
		return nil
	case f.inst.out.busy():
		return unix.EBUSY
	default:
		n.input = *arg
		f.inst.out.format = uapi.Format{}
		return nil
	}
}

// Input returns the input that was selected last, inside [Kernel.Do].
func (n *Node) Input() int { return int(n.input) }
