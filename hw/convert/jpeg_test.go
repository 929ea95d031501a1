package convert

import (
	"bytes"
	"errors"
	"image"
	"image/jpeg"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

// decoderNode is a decoder that pads pictures to whole macroblocks.
func decoderNode() *fakevb2.Node {
	n := scalerNode()
	n.Driver = "bcm2835-codec"
	n.Converter = &fakevb2.Converter{
		In: []fakevb2.Format{{Code: code("H264")}, {Code: code("MJPG")}},
		Out: []fakevb2.Format{
			{Code: code("NV12"), BytesPerPixel: 1.5, Align: 32, AlignLines: 16},
			{Code: code("YU12"), BytesPerPixel: 1.5, Align: 64, AlignLines: 16},
			{Code: code("YUYV"), BytesPerPixel: 2, Align: 64, AlignLines: 16},
		},
		Convert: last,
	}
	return n
}

// last paints with the last byte before the end marker.
func last(in, out [][]byte) {
	for _, mem := range out {
		fakevb2.Paint(mem, in[0][len(in[0])-3])
	}
}

func picture(t *testing.T, width, height int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewYCbCr(image.Rect(0, 0, width, height), image.YCbCrSubsampleRatio420), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// mjpeg is a frame of a camera whose JPEG ends with v.
func mjpeg(data []byte, n int, v byte) *hw.Frame {
	data = bytes.Clone(data)
	data[len(data)-3] = v
	f := hw.NewFrame(nil)
	f.Mode = hw.Mode{Pixel: hw.MJPEG, Width: 1920, Height: 1080, FPS: hw.Rate{Num: 30, Den: 1}}
	f.Stamp, f.Seq = time.Duration(n)*time.Second, uint32(n)
	f.Planes = []hw.Plane{{Data: data, FD: -1}}
	return f.Lend()
}

func decoder(t *testing.T, k *fakevb2.Kernel, takes ...hw.PixelFormat) *JPEGDecoder {
	t.Helper()
	list, err := finder(k, "video12").Decoders()
	if err != nil || len(list) != 1 {
		t.Fatalf("decoders %v, %v", list, err)
	}
	return NewJPEGDecoder(list[0], takes)
}

func decode(t *testing.T, d *JPEGDecoder, data []byte, n int) *hw.Frame {
	t.Helper()
	f := mjpeg(data, n, byte(n))
	defer f.Release()
	raw, err := d.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	if raw.Stamp != f.Stamp || raw.Seq != f.Seq || raw.FPS != f.FPS || !raw.FullRange || raw.Matrix != hw.BT601 {
		t.Errorf("picture %d: %s, stamp %v, number %d, full range %v, %s", n, raw.Mode, raw.Stamp, raw.Seq, raw.FullRange, raw.Matrix)
	}
	for i, p := range raw.Planes {
		if p.Data[0] != byte(n) || p.FD < 0 {
			t.Errorf("picture %d: plane %d holds %d, dma-buf %d", n, i, p.Data[0], p.FD)
		}
	}
	return raw
}

func TestJPEGIsDecodedIntoSharedMemory(t *testing.T) {
	k := fakevb2.New(decoderNode())
	d := decoder(t, k, hw.I420)
	data := picture(t, 1920, 1080)
	for i := range 10 {
		raw := decode(t, d, data, i)
		if raw.Pixel != hw.I420 || raw.Width != 1920 || raw.Height != 1080 || raw.Planes[1].Offset != 1920*1088 || raw.Planes[2].Stride != 960 {
			t.Errorf("%s: %+v", raw.Mode, raw.Planes)
		}
		raw.Release()
	}
	want := Stats{Submitted: 10, Converted: 10, CodedBytes: 10 * uint64(len(data))}
	if st := d.Stats(); st != want {
		t.Errorf("%+v, want %+v", st, want)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k, 0)
}

// Decoders look into the picture, tell what it is, and want the queue of what
// comes out started anew.
func TestDecoderSettlesTheFormatByTheFirstPicture(t *testing.T) {
	for name, refuse := range map[string]map[string]unix.Errno{
		"and tells": nil, "without a word": {"subscribe_event": unix.ENOTTY},
	} {
		t.Run(name, func(t *testing.T) { settle(t, refuse) })
	}
}

func settle(t *testing.T, refuse map[string]unix.Errno) {
	t.Helper()
	n := decoderNode()
	n.Converter.Finds = code("YUYV")
	n.Refuse = refuse
	k := fakevb2.New(n)
	d := decoder(t, k, hw.NV12)
	data := picture(t, 1280, 720)
	var held *hw.Frame
	for i := range 8 {
		raw := decode(t, d, data, i)
		if raw.Pixel != hw.YUYV || raw.Width != 1280 || raw.Height != 720 || len(raw.Planes) != 1 {
			t.Errorf("%s", raw.Mode)
		}
		if i == 3 {
			held = raw
			continue
		}
		raw.Release()
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if held.Planes[0].Data[0] != 3 {
		t.Error("a frame that was kept is spoilt")
	}
	held.Release()
	nothingLeft(t, k, 0)
}

func TestDecoderFollowsAChangeOfSize(t *testing.T) {
	k := fakevb2.New(decoderNode())
	d := decoder(t, k)
	before := decode(t, d, picture(t, 640, 480), 1)
	after := decode(t, d, picture(t, 320, 240), 2)
	if before.Width != 640 || after.Width != 320 || after.Height != 240 || before.Planes[0].Data[0] != 1 {
		t.Errorf("%s, then %s", before.Mode, after.Mode)
	}
	before.Release()
	after.Release()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k, 0)
}

func TestBrokenJPEGCostsOnlyItself(t *testing.T) {
	type fault = fakevb2.ConversionFault
	for name, bad := range map[string]fault{
		"sent back":       {Refused: true},
		"damaged":         {Error: true},
		"swallowed":       {Dropped: true},
		"without a stamp": {NoStamp: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := decoderNode()
				n.Converter.Script = []fault{{}, bad}
				k := fakevb2.New(n)
				d := decoder(t, k)
				data := picture(t, 64, 48)
				decode(t, d, data, 1).Release()
				f := mjpeg(data, 2, 2)
				if raw, err := d.Decode(f); !errors.Is(err, ErrDamaged) {
					t.Fatalf("%v, %v", raw, err)
				}
				f.Release()
				for i := 3; i < 9; i++ {
					decode(t, d, data, i).Release()
				}
				if st := d.Stats(); st.Converted != 7 || st.Submitted != 8 {
					t.Errorf("%+v", st)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
				nothingLeft(t, k, 0)
			})
		})
	}
}

func TestJPEGThatTheDriverRefusesToQueueIsDamage(t *testing.T) {
	n := decoderNode()
	k := fakevb2.New(n)
	d := decoder(t, k)
	data := picture(t, 64, 48)
	first := decode(t, d, data, 1) // kept, so that only JPEG is queued
	k.Do(func() { n.RefuseQBuf = 1 })
	f := mjpeg(data, 2, 2)
	defer f.Release()
	if _, err := d.Decode(f); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	first.Release()
	decode(t, d, data, 3).Release()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k, 0)
}

func TestDecoderIsGoneAndComesBack(t *testing.T) {
	k := fakevb2.New(decoderNode())
	d := decoder(t, k)
	data := picture(t, 64, 48)
	decode(t, d, data, 1).Release()
	k.Unplug()
	f := mjpeg(data, 2, 2)
	defer f.Release()
	for range 2 {
		if _, err := d.Decode(f); !errors.Is(err, hw.ErrGone) {
			t.Errorf("%v", err)
		}
	}
	k.Replug()
	decode(t, d, data, 3).Release()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k, 0)
}

func TestDecoderVanishesAtEveryCall(t *testing.T) {
	data := picture(t, 64, 48)
	for n := 1; ; n++ {
		node := decoderNode()
		node.Converter.Finds = code("YU12")
		k := fakevb2.New(node)
		k.UnplugAt = n
		f := finder(k, "video12")
		list, err := f.Decoders()
		if err == nil && len(list) == 1 {
			err = decodeTwo(NewJPEGDecoder(list[0], nil), data)
		}
		if fds, maps := k.Left(); fds != 0 || maps != 0 {
			t.Fatalf("call %d: %d descriptors and %d mappings are left", n, fds, maps)
		}
		if len(k.Calls()) < n {
			if err != nil {
				t.Errorf("undisturbed: %v", err)
			}
			return
		}
		if err != nil && !errors.Is(err, hw.ErrGone) {
			t.Errorf("call %d (%s): %v", n, k.Calls()[n-1], err)
		}
	}
}

func decodeTwo(d *JPEGDecoder, data []byte) (err error) {
	defer func() { err = errors.Join(err, d.Close()) }()
	for i := range 2 {
		f := mjpeg(data, i, 1)
		raw, err := d.Decode(f)
		f.Release()
		if err != nil {
			return err
		}
		raw.Release()
	}
	return nil
}

func TestWhatIsNoJPEGForHardwareIsToldApart(t *testing.T) {
	good := picture(t, 64, 48)
	sof := bytes.Index(good, []byte{0xff, markSOF0})
	with := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	k := fakevb2.New(decoderNode())
	d := decoder(t, k)
	for name, tt := range map[string]struct {
		data []byte
		want error
	}{
		"empty":                  {nil, ErrDamaged},
		"no start":               {good[2:], ErrDamaged},
		"no frame header":        {good[:sof], ErrDamaged},
		"cut off in the header":  {good[:sof+8], ErrDamaged},
		"no marker":              {with(2, 0), ErrDamaged},
		"scan before the header": {[]byte{0xff, 0xd8, 0xff, markSOS, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0}, ErrDamaged},
		"no lines":               {with(sof+6, 0), ErrDamaged},
		"progressive":            {with(sof+1, 0xc2), hw.ErrUnsupported},
		"twelve bits":            {with(sof+4, 12), hw.ErrUnsupported},
		"larger than said":       {append(bytes.Clone(good), make([]byte, 1<<20)...), ErrDamaged},
	} {
		f := mjpeg(append([]byte(nil), good...), 1, 1)
		f.Planes[0].Data = tt.data
		if _, err := d.Decode(f); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		f.Release()
	}
	decode(t, d, good, 5).Release() // it is still good
	raw := hw.NewFrame(nil).Lend()
	raw.Pixel = hw.YUYV
	if _, err := d.Decode(raw); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a raw picture: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k, 0)
}

func TestDecoderWithNothingUsableSaysSo(t *testing.T) {
	n := decoderNode()
	n.Converter.Most = [2]int{64, 32}
	if _, err := decoder(t, fakevb2.New(n)).Decode(mjpeg(picture(t, 64, 48), 1, 1)); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("too large a picture: %v", err)
	}
	n.Converter.Most = [2]int{}
	n.Grants = func(f *uapi.Format) {
		if f.Type == uapi.BufTypeVideoCapture {
			f.Pix().PixelFormat = code("NV24")
		}
	}
	k := fakevb2.New(n)
	f := mjpeg(picture(t, 64, 48), 1, 1)
	defer f.Release()
	if _, err := decoder(t, k).Decode(f); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	k.Do(func() { n.Grants, n.Refuse = nil, map[string]unix.Errno{"reqbufs": unix.ENOMEM} })
	if _, err := decoder(t, k).Decode(f); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("%v", err)
	}
	nothingLeft(t, k, 0)
}

func FuzzReadHeader(f *testing.F) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 16, 16)), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xd8, 0xff, 0xff, 0xc0, 0, 17, 8, 0, 1, 0, 1, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := readHeader(data)
		if err == nil && (h.width < 1 || h.height < 1) {
			t.Errorf("a picture of %dx%d", h.width, h.height)
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%v is neither damage nor unsupported", err)
		}
	})
}
