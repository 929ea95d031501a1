// Package encode lets mediadevices code with the box's encoders: H.264 by
// hardware or software, sound as Opus. It stands apart from its parent because
// mediadevices' codec interfaces pull in all of WebRTC, which a program that
// only lists devices can do without.
//
//	track ─► video.Reader ─► picture ─► hw.Encoder.Submit
//	                                         │
//	peer ◄─ RTP packets ◄─ ReadCloser.Read ◄─┘ Next
//
// mediadevices pulls coded units, an [hw.Encoder] is pushed: a goroutine of
// each ReadCloser stands between. A picture that carries an [hw.Frame] goes to
// the encoder as it is, and a hardware encoder reads the camera's memory;
// any other image is copied once, since its memory is only good until the next
// one is read. Nothing queues up: an encoder with no room drops and counts.
package encode

import (
	"fmt"
	"io"
	"os"

	"github.com/pion/mediadevices/pkg/codec"
)

var (
	_ codec.VideoEncoderBuilder = H264{}
	_ codec.KeyFrameController  = Controller{}
	_ codec.BitRateController   = Controller{}
	_ codec.AudioEncoderBuilder = Opus{}
)

// errClosed is what Read returns after Close.
var errClosed = fmt.Errorf("encoder: %w: %w", os.ErrClosed, io.EOF)

// nothing is the release function of memory that the collector takes back.
func nothing() {}
