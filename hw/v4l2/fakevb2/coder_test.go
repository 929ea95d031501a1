package fakevb2_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/fakevb2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDecodersTakeTheGreyPictures(t *testing.T) {
	const gop = 33
	for _, size := range []struct {
		codec                   string
		width, height, pictures int
	}{{"H264", 64, 48, 70}, {"H264", 70, 50, 70}, {"H264", 1920, 1080, 3}, {"HEVC", 64, 48, 70}} {
		t.Run(fmt.Sprintf("%s %dx%d", size.codec, size.width, size.height), func(t *testing.T) {
			var coded []byte
			for i := range size.pictures {
				coded = append(coded, fakevb2.Grey(fakevb2.Picture{
					Number: i, Codec: uint32(hw.FourCC(size.codec)), Width: size.width, Height: size.height,
					Key: i%gop == 0, Headers: i == 0, FrameNum: i % gop, Keys: (i + gop - 1) / gop,
				})...)
			}
			var complaints bytes.Buffer
			decode := exec.CommandContext(context.Background(), "ffmpeg", "-v", "error", "-f", strings.ToLower(size.codec), "-i", "-", "-f", "rawvideo", "-pix_fmt", "gray", "-")
			decode.Stdin, decode.Stderr = bytes.NewReader(coded), &complaints
			got, err := decode.Output()
			if err != nil || complaints.Len() > 0 {
				t.Fatalf("ffmpeg: %v: %s", err, &complaints)
			}
			if want := bytes.Repeat([]byte{got[0]}, size.pictures*size.width*size.height); !bytes.Equal(got, want) {
				t.Errorf("%d bytes of grey came out, want %d", len(got), len(want))
			}
		})
	}
}
