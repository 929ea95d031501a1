package main

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// allSound has ffmpeg keep the sound of RTSP as it comes. From 7.1 on it takes
// no packet of AAC for a key, and would wait for one in vain.
const allSound = "-copyinkf:a"

// A viewer is ffmpeg, which keeps what it is served as it comes.
type viewer struct {
	*peer.Process
	file string
}

// view starts a viewer of a rendition; it stops by itself after some time, or
// when it is killed.
func (p *process) view(rendition, transport string, args ...string) viewer {
	p.tb.Helper()
	v := viewer{file: filepath.Join(p.tb.TempDir(), rendition+".nut")}
	all := []string{"-v", "warning", "-rtsp_transport", transport, "-i", "rtsp://" + p.rtsp + "/" + rendition}
	all = append(append(all, args...), "-map", "0", "-c", "copy", allSound, "-flush_packets", "1", "-f", "nut", "-y", v.file)
	v.Process = peer.Start(p.tb, "ffmpeg", all...)
	return v
}

// media is what came out of the box, decoded by ffmpeg.
type media struct {
	pictures []shot
	pcm      []int16
	sound    []chunk
}

// A chunk is a stretch of the samples, with the time of its first one.
type chunk struct {
	at      time.Duration
	samples int // of each channel
}

// A shot is one picture with what is burnt in.
type shot struct {
	at   time.Duration
	code picture.Code
	ok   bool // a test picture, not the slate
}

const sampleRate = hw.SampleRate

// decode reads a file of w x h pictures.
func decode(tb testing.TB, file string, w, h int) media {
	tb.Helper()
	var m media
	times := timesOf(tb, file, "v:0", "frame=best_effort_timestamp_time")
	luma := peer.Output(tb, "ffmpeg", "-v", "error", "-i", file, "-map", "0:v:0",
		"-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "-")
	if len(luma) != len(times)*w*h || len(times) == 0 {
		tb.Fatalf("%s holds %.1f pictures of %dx%d, and %d times", file, float64(len(luma))/float64(w*h), w, h, len(times))
	}
	for i, at := range times {
		s := shot{at: at}
		s.code, s.ok = picture.Read(luma[i*w*h:(i+1)*w*h], w, w, h)
		m.pictures = append(m.pictures, s)
	}
	m.pictures = m.pictures[:len(m.pictures)-1] // cut, if the viewer was killed while it wrote: ffmpeg fills it from the one before
	raw := peer.Output(tb, "ffmpeg", "-v", "error", "-i", file, "-map", "0:a:0",
		"-f", "s16le", "-ac", "2", "-ar", strconv.Itoa(sampleRate), "-")
	m.pcm = make([]int16, len(raw)/2)
	for i := range m.pcm {
		m.pcm[i] = int16(binary.LittleEndian.Uint16(raw[2*i:]))
	}
	m.sound = chunksOf(tb, file)
	want := 0
	for _, c := range m.sound {
		want += c.samples * hw.Channels
	}
	if len(m.pcm) != want || want == 0 {
		tb.Fatalf("%s holds %d packets of sound and %d samples, want %d", file, len(m.sound), len(m.pcm), want)
	}
	return m
}

// chunksOf asks ffprobe for the sound of a file.
func chunksOf(tb testing.TB, file string) (chunks []chunk) {
	tb.Helper()
	for _, line := range entries(tb, file, "a:0", "frame=best_effort_timestamp_time,nb_samples") {
		if len(line) < 2 {
			tb.Fatalf("ffprobe says %q of a frame of sound", line)
		}
		n, err := strconv.Atoi(line[1])
		if err != nil {
			tb.Fatal(err)
		}
		chunks = append(chunks, chunk{seconds(line[0]), n})
	}
	return chunks
}

// timesOf asks ffprobe for one time of each entry of a stream. The first one
// may be unknown to it.
func timesOf(tb testing.TB, file, which, entry string) []time.Duration {
	tb.Helper()
	var times []time.Duration
	for _, line := range entries(tb, file, which, entry) {
		times = append(times, seconds(line[0]))
	}
	return times
}

// entries asks ffprobe for some fields of each packet or frame of a stream.
func entries(tb testing.TB, file, which, fields string) [][]string {
	tb.Helper()
	out := peer.Output(tb, "ffprobe", "-v", "error", "-select_streams", which, "-show_entries", fields, "-of", "csv=p=0", file)
	r := csv.NewReader(bytes.NewReader(out))
	r.FieldsPerRecord = -1
	lines, err := r.ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	return lines
}

func seconds(text string) time.Duration {
	s, _ := strconv.ParseFloat(text, 64) // N/A is zero
	return time.Duration(math.Round(s * 1e9))
}

// slates counts the pictures that carry no code.
func (m media) slates() (n uint64) {
	for _, s := range m.pictures {
		if !s.ok {
			n++
		}
	}
	return n
}

// counters returns the burnt-in numbers of the first and the last test picture.
func (m media) counters(tb testing.TB) (first, last uint32) {
	tb.Helper()
	coded := slices.DeleteFunc(slices.Clone(m.pictures), func(s shot) bool { return !s.ok })
	if len(coded) == 0 {
		tb.Fatal("every picture is a slate")
	}
	return coded[0].code.Counter, coded[len(coded)-1].code.Counter
}

// lost returns how many pictures are missing between the first and the last.
// None may come twice or out of order.
func (m media) lost(tb testing.TB) (n uint64) {
	tb.Helper()
	var before *shot
	for i := range m.pictures {
		s := &m.pictures[i]
		if !s.ok {
			continue
		}
		if before != nil {
			if s.code.Counter <= before.code.Counter {
				tb.Errorf("picture %d follows %d", s.code.Counter, before.code.Counter)
			} else {
				n += uint64(s.code.Counter - before.code.Counter - 1)
			}
		}
		before = s
	}
	return n
}

// rises wants no picture twice or out of order, by the burnt-in clock: a
// camera that was unplugged counts from zero again.
func (m media) rises(tb testing.TB) {
	tb.Helper()
	var last time.Duration
	near := stream.Monotonic()
	for i, s := range m.pictures {
		if !s.ok {
			continue
		}
		at := s.code.Clock(near)
		if at <= last {
			tb.Errorf("picture %d is of %v, the one before of %v", i, at, last)
		}
		last = at
	}
}

// whole wants everything that the box took in between two moments to be in m,
// once and in order. What a busy machine made it leave out, it must have
// counted; before the first moment, too, for readers begin with what is cached.
func (m media) whole(tb testing.TB, before, after status.Box) {
	tb.Helper()
	lost, slates := m.lost(tb), m.slates()
	counted, shown := dropped(after)-dropped(before), after.Input.Slate-before.Input.Slate
	tb.Logf("%d pictures, %d missing (the box counts %d, and %d before), %d slates (the box counts %d, and %d before); %d packets of sound",
		len(m.pictures), lost, counted, dropped(before), slates, shown, before.Input.Slate, len(m.sound))
	if most := dropped(after); lost > most {
		tb.Errorf("%d pictures are missing, but only %d were counted as dropped", lost, most)
	}
	if most := after.Input.Slate; slates > most {
		tb.Errorf("%d pictures carry no code, but only %d slates were shown", slates, most)
	}
	if made := after.Renditions[0].Frames - before.Renditions[0].Frames; counted+shown > made/3 {
		tb.Errorf("the box left out %d pictures, showed %d slates and coded %d: the machine is too busy to tell more", counted, shown, made)
	}
	m.steady(tb)
}

// complete wants every picture that others got, of those between m's first and
// last: what the box left out nobody got.
func (m media) complete(tb testing.TB, others []media) {
	tb.Helper()
	first, last := m.counters(tb)
	mine := make(map[uint32]bool)
	for _, s := range m.pictures {
		mine[s.code.Counter] = mine[s.code.Counter] || s.ok
	}
	for _, o := range others {
		for _, s := range o.pictures {
			if n := s.code.Counter; s.ok && n > first && n < last && !mine[n] {
				tb.Errorf("picture %d is missing, which others got", n)
				mine[n] = true // said once
			}
		}
	}
}

// steady wants sound without gaps.
func (m media) steady(tb testing.TB) {
	tb.Helper()
	for i := 1; i < len(m.sound); i++ {
		want := time.Duration(m.sound[i-1].samples) * time.Second / sampleRate
		if d := m.sound[i].at - m.sound[i-1].at; (d - want).Abs() > 2*time.Millisecond {
			tb.Errorf("sound packet %d comes %v after the one before, want %v", i, d, want)
		}
	}
}

// heard returns the time of a sample.
func (m media) heard(sample int) time.Duration {
	for _, c := range m.sound {
		if sample < c.samples {
			return c.at + time.Duration(sample)*time.Second/sampleRate
		}
		sample -= c.samples
	}
	panic("there are fewer samples")
}

// longest returns the longest time without a new picture.
func (m media) longest() (d time.Duration) {
	for i := 2; i < len(m.pictures); i++ { // of the first, ffmpeg may not know the time
		d = max(d, m.pictures[i].at-m.pictures[i-1].at)
	}
	return d
}

// offsets returns for each beep how much later than its picture it is.
func (m media) offsets() []time.Duration {
	near := stream.Monotonic()
	var shifts []time.Duration // from the burnt-in clock to the file's
	for _, s := range m.pictures {
		if s.ok {
			shifts = append(shifts, s.at-s.code.Clock(near))
		}
	}
	if len(shifts) == 0 {
		return nil
	}
	shift := median(shifts)
	var offsets []time.Duration
	for _, onset := range picture.FindBeeps(m.pcm) {
		at := m.heard(onset)
		// Beeps begin at whole seconds of the clock.
		d := (at - shift) % time.Second
		if d < -time.Second/2 {
			d += time.Second
		}
		if d > time.Second/2 {
			d -= time.Second
		}
		offsets = append(offsets, d)
	}
	return offsets
}

// inStep wants sound and picture together, within what nobody notices.
func (m media) inStep(tb testing.TB, beeps int) {
	tb.Helper()
	const most = 40 * time.Millisecond
	o := m.offsets()
	if len(o) < beeps {
		tb.Fatalf("%d beeps, want %d", len(o), beeps)
	}
	mid := median(o)
	tb.Logf("sound minus picture: median %v of %d beeps, from %v to %v", mid.Round(10*time.Microsecond), len(o),
		slices.Min(o).Round(10*time.Microsecond), slices.Max(o).Round(10*time.Microsecond))
	if mid.Abs() >= most {
		tb.Errorf("sound is %v off the picture, want less than %v", mid, most)
	}
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

// dropped is what the box says it left out on the way to a rendition.
func dropped(b status.Box) uint64 { return b.Input.Missed + b.Renditions[0].Dropped }

// flashes wants the flash in the pictures to agree with the burnt-in clock.
func (m media) flashes(tb testing.TB) {
	tb.Helper()
	n := 0
	for _, s := range m.pictures {
		at := s.code.Clock(stream.Monotonic())
		if want := picture.Flashing(at); s.ok && s.code.Flash != want {
			tb.Errorf("picture %d of clock %v: flash is %t", s.code.Counter, at, s.code.Flash)
		}
		if s.code.Flash {
			n++
		}
	}
	if n == 0 {
		tb.Error("no picture has a flash")
	}
}

// probeLive asks ffprobe what an address serves.
func probeLive(tb testing.TB, url, transport string) string {
	tb.Helper()
	out := peer.Output(tb, "ffprobe", "-v", "error", "-rtsp_transport", transport,
		"-show_entries", "stream=codec_type,codec_name,width,height,sample_rate,channels", "-of", "csv=p=0:nk=0", url)
	return string(out)
}
