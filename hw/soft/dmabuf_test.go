package soft

import (
	"testing"

	"encoderd.example/hw"
	"encoderd.example/hw/hwtest"
)

// Whoever looks at the pixels of a camera's shared memory says so to the kernel,
// once a picture.
func TestSharedMemoryIsReadBetweenBeginAndEnd(t *testing.T) {
	var a hwtest.Accesses
	raw := a.Share(scene(t, mode(hw.NV12, 320, 180), 1)[0])
	coded := a.Share(mjpeg(picture(t, 64, 48, "yuvj420p")))

	codeOne(t, open(t, config(320, 180, 1_000_000)), raw)
	a.Check(t, hw.Reading, 1)

	d := NewJPEGDecoder()
	defer d.Close()
	f, err := d.Decode(coded)
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
	a.Check(t, hw.Reading, 1)

	for what, f := range map[string]*hw.Frame{"raw": raw, "coded": coded} {
		if _, err := EncodeJPEG(f, 160, 80); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		a.Check(t, hw.Reading, 1)
	}
}
