package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"encoderd.example/daemon/status"
)

// recordings are the files that the box has, in the order in which they began.
func (p *process) recordings() []string {
	p.tb.Helper()
	files, err := filepath.Glob(filepath.Join(p.state, "recordings", "*.mp4"))
	if err != nil {
		p.tb.Fatal(err)
	}
	when := func(file string) time.Time {
		info, err := os.Stat(file)
		if err != nil {
			p.tb.Fatal(err)
		}
		return info.ModTime()
	}
	slices.SortFunc(files, func(a, b string) int { return when(a).Compare(when(b)) })
	return files
}

func records(b status.Box) bool { return b.Record.State == status.Recording }

// kept waits until so many pictures are on the medium.
func (p *process) kept(pictures uint64) status.Box {
	p.tb.Helper()
	return p.until("a recording", func(b status.Box) bool { return records(b) && b.Record.Pictures >= pictures })
}

// A show is recorded, slates and all; the power goes; the recording goes on by
// itself in another file, and both can be played.
func TestARecordingOutlivesAPowerCut(t *testing.T) {
	p := start(t, settings{})
	p.do("record.stop") // of nothing
	if b := p.now(); b.Record.State != status.Off || len(p.recordings()) != 0 {
		t.Errorf("%+v", b.Record)
	}
	p.do("record.start")
	p.kept(30)
	p.fault("camera-unplugged", true)
	p.until("the slate", func(b status.Box) bool { return !b.Input.Signal })
	p.frames(20)
	p.fault("camera-unplugged", false)
	p.until("the picture", func(b status.Box) bool { return b.Input.Signal })
	told := p.kept(p.now().Record.Pictures + 60).Record
	p.kill()

	first := p.recordings()
	name := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d{6}Z-main\.mp4$`)
	if len(first) != 1 || filepath.Base(first[0]) != told.File || !name.MatchString(told.File) {
		t.Fatalf("%v, the box says %+v", first, told)
	}
	torn, err := os.ReadFile(first[0])
	if err != nil {
		t.Fatal(err)
	}
	const size = 320 * 180
	gray := luma(t, "-i", first[0])
	if n := len(gray) / size; uint64(n) < told.Pictures {
		t.Errorf("%d pictures of the %d that the box said to be safe", n, told.Pictures)
	}
	safe := gray[:min(len(gray), int(told.Pictures)*size)] // the last of all may be torn
	if slates := int(told.Pictures) - len(codesOf(t, safe)); slates < 20 {
		t.Errorf("%d slates", slates)
	}

	p.launch()
	p.kept(60)
	p.do("record.start") // no news
	before := p.now()
	p.kept(before.Record.Pictures + 30)
	after := p.now()
	p.stop()
	second := p.recordings()
	if len(second) != 2 || second[0] != first[0] {
		t.Fatalf("after %v there are %v", first, second)
	}
	if now, err := os.ReadFile(first[0]); err != nil || !bytes.Equal(now, torn) {
		t.Errorf("the first recording was touched: %v", err)
	}
	m := decode(t, second[1], 320, 180)
	m.whole(t, before, after)
	m.inStep(t, 1)

	p.launch()
	p.kept(1)
	p.do("record.toggle")
	p.until("the end of the recording", func(b status.Box) bool { return b.Record.State == status.Off })
	p.kill()
	p.launch()
	p.until("all renditions to be live", onDuty)
	p.frames(30)
	if b := p.now(); b.Record.State != status.Off || len(p.recordings()) != 3 {
		t.Errorf("%+v, %v", b.Record, p.recordings())
	}
}
