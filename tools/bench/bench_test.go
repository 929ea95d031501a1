package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestATargetIsMetByTheRatioOrWithoutAPeerByTheValue(t *testing.T) {
	tests := []struct {
		name string
		row  row
		met  bool
	}{
		{"ratio within", row{Ours: 10, Peer: 10, Ratio: 1, Most: 1.05}, true},
		{"ratio beyond", row{Ours: 11, Peer: 10, Ratio: 1.1, Most: 1.05}, false},
		{"value within", row{Ours: 3, Most: 3}, true},
		{"value beyond", row{Ours: 4, Most: 3}, false},
		{"no target", row{Ours: 99, Peer: 1, Ratio: 99}, true},
		{"zero", row{Zero: true}, true},
		{"hardly zero", row{Ours: 0.001, Zero: true}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var table table
			table.add(tt.row)
			if got := table.Rows[0].Met; got != tt.met || table.missed() == tt.met {
				t.Errorf("met: %v, want %v", got, tt.met)
			}
			var s strings.Builder
			table.show(&s)
			if got := strings.Contains(s.String(), "NOT MET"); got == tt.met {
				t.Errorf("the table says:\n%s", &s)
			}
		})
	}
}

func TestComparingTakesTheMedianOfRatios(t *testing.T) {
	var table table
	table.compare("", "", []float64{10, 20, 90}, []float64{10, 10, 30}, 1)
	if got := table.Rows[0]; got.Ours != 20 || got.Peer != 10 || got.Ratio != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestQuantiles(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[len(hundred)-1-i] = float64(i)
	}
	tests := []struct {
		name string
		of   []float64
		q    float64
		want float64
	}{
		{"median of an odd count", []float64{3, 1, 2}, 0.5, 2},
		{"median of an even count", []float64{4, 1, 2, 3}, 0.5, 2.5},
		{"nearly all", hundred, 0.99, 99},
		{"all", hundred, 1, 99},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := quantile(tt.of, tt.q); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
}

func TestAMissingPacketIsCounted(t *testing.T) {
	whole := flow{first: 0.033, last: 1.033, count: 31}
	if got := whole.missing(30); got != 0 {
		t.Errorf("%d of a whole flow are missing", got)
	}
	whole.count--
	if got := whole.missing(30); got != 1 {
		t.Errorf("%d are missing, want 1", got)
	}
}

// videoPacket returns an RTP packet with its marker bit as told.
func videoPacket(stamp uint32, marker bool) packet {
	data := make([]byte, rtpHeader+8)
	if marker {
		data[1] = 0x80
	}
	binary.BigEndian.PutUint32(data[4:], stamp)
	return packet{channel: 0, data: data}
}

func senderReport(at time.Time, stamp uint32) packet {
	data := make([]byte, 28)
	data[1] = typeSR
	binary.BigEndian.PutUint32(data[8:], uint32(at.Unix()+ntpEpoch))
	binary.BigEndian.PutUint32(data[12:], uint32(uint64(at.Nanosecond())<<32/uint64(time.Second)))
	binary.BigEndian.PutUint32(data[16:], stamp)
	return packet{channel: 1, data: data}
}

func TestLatencyRunsFromTheCaptureToTheLastPacket(t *testing.T) {
	const stamp = math.MaxUint32 - 1000 // RTP time wraps around right after
	begin := time.Unix(1_700_000_000, 250_000_000)
	w := watch{began: begin.Add(-time.Minute), settle: settle}
	w.see(videoPacket(stamp, true), begin) // before any report: nothing is known
	w.see(senderReport(begin, stamp), begin)
	taken := begin.Add(time.Second / fps)
	wrapped := uint32(stamp)
	wrapped += videoClock / fps
	w.see(videoPacket(wrapped, false), taken.Add(5*time.Millisecond))
	w.see(videoPacket(wrapped, true), taken.Add(12*time.Millisecond))
	if got := w.result.Latency; len(got) != 1 || math.Abs(got[0]-12) > 0.02 {
		t.Errorf("latencies %v ms, want one of 12", got)
	}
}

func TestUnitsAreWhatBelongsToOneInstant(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	w := watch{began: now.Add(-settle - time.Second), settle: settle}
	for i, p := range []packet{videoPacket(1, false), videoPacket(1, true), videoPacket(2, true), videoPacket(3, true)} {
		w.see(p, now.Add(time.Duration(i)*time.Millisecond))
	}
	const each = rtpHeader + 8 + 4
	if got := w.result.Units; len(got) != 2 || got[0].Bytes != 2*each || got[1].Bytes != each {
		t.Errorf("got %+v", got)
	}
}

func TestThePictureTellsTheInstantAtWhichItWasTaken(t *testing.T) {
	for n := range 3 * fps {
		at := time.Duration(n) * time.Second / fps
		if got := instant(picture.Code{ClockMS: uint32(at / time.Millisecond)}); got != at {
			t.Errorf("picture %d: %v, want %v", n, got, at)
		}
	}
}

func TestAPerfectCopyHasNoError(t *testing.T) {
	pattern, err := newPattern(hw.NV12)
	if err != nil {
		t.Fatal(err)
	}
	frame := paint(pattern, 7)
	defer frame.Release()
	luma := make([]byte, 0, width*height)
	for y := range height {
		luma = append(luma, frame.Planes[0].Data[y*frame.Planes[0].Stride:][:width]...)
	}
	if got := lumaPSNR(luma, frame.Planes[0]); got < 100 {
		t.Errorf("PSNR of a copy is %.1f dB", got)
	}
	for i := range luma {
		luma[i]++
	}
	if got := lumaPSNR(luma, frame.Planes[0]); math.Abs(got-48.13) > 0.01 { // 20·log10(255)
		t.Errorf("PSNR of an error of one everywhere is %.2f dB, want 48.13", got)
	}
}

func TestTheMachineTellsItsShareOfWork(t *testing.T) {
	before := machine{idle: 100, steal: 10, total: 1000}
	after := machine{idle: 150, steal: 20, total: 1200}
	got := after.since(before)
	if got.Busy != 0.75 || got.Steal != 0.05 {
		t.Errorf("got %+v", got)
	}
	if m, err := readMachine(); err != nil || m.total <= m.idle {
		t.Errorf("this machine: %+v, %v", m, err)
	}
	if s := fmt.Sprint(got); !strings.Contains(s, "75 % busy, 5.0 % stolen") {
		t.Error(s)
	}
}

func TestFFmpegsProgressIsReadToItsLastWholeLine(t *testing.T) {
	for _, tt := range []struct {
		progress string
		want     int
	}{
		{"", 0},
		{"frame=1\nfps=0\nprogress=continue\n", 1},
		{"frame=1\nfps=0\nframe=  42\nfps=30\n", 42},
	} {
		if got := lastFrame(tt.progress); got != tt.want {
			t.Errorf("%q: %d, want %d", tt.progress, got, tt.want)
		}
	}
}

func TestPicturesOfAFileAreFound(t *testing.T) {
	yuyv := &fileCamera{mode: hw.Mode{Pixel: hw.YUYV, Width: 4, Height: 2}}
	if got := yuyv.split(make([]byte, 40)); len(got) != 2 || got[1] != (place{16, 16}) {
		t.Errorf("raw pictures: %v", got)
	}
	jpeg := &fileCamera{mode: hw.Mode{Pixel: hw.MJPEG}}
	if got := jpeg.split([]byte("\xff\xd8abc\xff\xd9\xff\xd8d\xff\xd9\xff\xd8cut")); len(got) != 2 || got[1] != (place{7, 5}) {
		t.Errorf("JPEG pictures: %v", got)
	}
	coded := &fileCamera{mode: hw.Mode{Pixel: hw.H264}}
	if got := coded.split([]byte("\x00\x00\x00\x01\x09\xf0abc\x00\x00\x00\x01\x65d\x00\x00\x00\x01\x09\x10ef")); !slices.Equal(got, []place{{0, 15}, {15, 8}}) {
		t.Errorf("access units: %v", got)
	}
}

func TestFilesOfMemoryCountAsMemory(t *testing.T) {
	self := &process{cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}}
	before := self.files()
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "bench")
	defer f.Close()
	if _, err := f.Write(make([]byte, 3<<20)); err != nil {
		t.Fatal(err)
	}
	if got := self.files() - before; got != 3 {
		t.Errorf("3 MB count as %v", got)
	}
}

func TestWhatIsStartedRelaxedHasTheSlack(t *testing.T) {
	slack := func() string {
		doc, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(doc))
	}
	usual, within := slack(), ""
	if err := relaxed(func() error { within = slack(); return nil }); err != nil {
		t.Fatal(err)
	}
	if after := slack(); within != "1000000" || after != usual {
		t.Errorf("slack was %s ns, is %s within, and %s after", usual, within, after)
	}
}
