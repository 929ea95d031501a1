package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/status"
	"encoderd.example/hw/sim"
	"encoderd.example/stream/record"
)

// A stick is what recordings go to, which brakes and fails to order.
type stick struct {
	mu          sync.Mutex
	hold        chan struct{} // nil: nothing hangs
	fault       error
	free, total uint64
}

// insert has the box record to a stick.
func (r *rig) insert() *stick {
	c := &stick{free: 90e9, total: 100e9}
	r.recorder.Open = func(dir string, create bool) (record.Medium, error) {
		m, err := record.OpenDir(dir, create)
		if err != nil {
			return nil, err
		}
		return &slot{m, c}, nil
	}
	return c
}

// A slot is a folder that does as a stick says.
type slot struct {
	record.Medium
	stick *stick
}

type stickFile struct {
	record.File
	stick *stick
}

func (s *slot) Create(name string) (record.File, error) {
	f, err := s.Medium.Create(name)
	if err != nil {
		return nil, err
	}
	return &stickFile{f, s.stick}, nil
}

func (s *slot) Space() (free, total uint64, err error) {
	s.stick.mu.Lock()
	defer s.stick.mu.Unlock()
	return s.stick.free, s.stick.total, s.stick.fault
}

func (f *stickFile) Sync() error {
	f.stick.mu.Lock()
	hold, fault := f.stick.hold, f.stick.fault
	f.stick.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if fault != nil {
		return fault
	}
	return f.File.Sync()
}

// seize has the stick take nothing until release is called.
func (c *stick) seize() (release func()) {
	hold := make(chan struct{})
	c.set(func() { c.hold = hold })
	return func() {
		c.set(func() { c.hold = nil })
		close(hold)
	}
}

func (c *stick) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// files are the recordings that the box has.
func (r *rig) files() []string {
	r.t.Helper()
	list, err := filepath.Glob(filepath.Join(r.State, "recordings", "*.mp4"))
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

func recordIs(state string) func(status.Box) bool {
	return func(b status.Box) bool { return b.Record.State == state }
}

// lampIs reports whether a lamp shows a pattern, for a reason that has some
// words.
func lampIs(name, pattern, words string) func(status.Box) bool {
	return func(b status.Box) bool {
		return b.Lamps[name].Pattern == pattern && strings.Contains(b.Lamps[name].Reason, words)
	}
}

// Every light of the REC key, as a show may bring it.
func TestTheRecordKeyAndItsLamp(t *testing.T) {
	inBox(t, small+outputs, nil, func(r *rig) {
		c := r.insert()
		press := func() {
			if err := r.board.Panel.Press(sim.KeyRecord); err != nil {
				t.Fatal(err)
			}
		}
		r.until("a dark lamp", lampIs("REC", "off", ""))
		release := c.seize()
		press()
		b := r.until("the lamp of a beginning", lampIs("REC", "amber pulse", "the recording begins"))
		if b.Record.State != status.Starting || b.Record.Rendition != "main" || b.Record.Since != nil {
			t.Errorf("%+v", b.Record)
		}
		release()
		b = r.until("the lamp of a recording", lampIs("REC", "red", "recording"))
		if files := r.files(); len(files) != 1 || filepath.Base(files[0]) != b.Record.File {
			t.Errorf("%v: %+v", files, b.Record)
		}
		if b.Record.State != status.Recording || b.Record.Since == nil || b.Record.Pictures == 0 || b.Record.Bytes == 0 || b.Record.TotalBytes != 100e9 {
			t.Errorf("%+v", b.Record)
		}
		press() // it goes on
		r.order("record.start", nil)
		r.order("stream.start", nil)
		r.until("a try", lampIs("STREAM", "amber blink 4", ""))

		c.set(func() { c.free = 14.9e9 })
		r.until("the lamp of little space", lampIs("REC", "amber occulting", "only 14.9 GB are free"))
		c.set(func() { c.free = 4e9 })
		b = r.until("the lamp of hardly any space", lampIs("REC", "amber occulting", "storage is almost full"))
		if !b.Has(status.StorageLow) {
			t.Errorf("%+v", b.Faults)
		}
		c.set(func() { c.free = 90e9 })
		r.until("red again", lampIs("REC", "red", "recording"))

		release = c.seize()
		b = r.until("the lamp of a slow stick", lampIs("REC", "amber occulting", "too slow"))
		if b.Record.State != status.Slow || !b.Has(status.RecordSlow) {
			t.Errorf("%+v", b)
		}
		b = r.until("the lamp of a stick that hangs", lampIs("REC", "amber blink 5", "does not answer"))
		if !b.Has(status.RecordFailed) {
			t.Errorf("%+v", b.Faults)
		}
		release()
		r.until("red again", lampIs("REC", "red", "recording"))
		if files := r.files(); len(files) != 1 {
			t.Errorf("a slow stick made %v", files)
		}

		c.set(func() { c.fault = syscall.EIO })
		r.until("the lamp of a broken stick", lampIs("REC", "amber blink 5", "put the medium back in"))
		b = r.until("a pause", func(b status.Box) bool { return b.Record.RetryAt != nil })
		if b.Record.State != status.Failed || b.Record.Since != nil || !b.Has(status.RecordFailed) {
			t.Errorf("%+v", b.Record)
		}
		time.Sleep(5 * time.Second) // it is tried again, and nobody takes that for a beginning
		if b := r.now(); b.Record.State != status.Failed {
			t.Errorf("%+v", b.Record)
		}
		c.set(func() { c.fault = nil })
		press() // at once
		began := time.Now()
		b = r.until("red again", lampIs("REC", "red", "recording"))
		if d := time.Since(began); d > 5*time.Second || b.Has(status.RecordFailed) {
			t.Errorf("after %v: %+v", d, b.Faults)
		}
		if files := r.files(); len(files) != 2 {
			t.Errorf("after a fault: %v", files)
		}

		held := make(chan error, 1)
		go func() { held <- r.board.Panel.Hold(r.t.Context(), sim.KeyRecord, 2500*time.Millisecond) }()
		r.until("the lamp of a held key", lampIs("REC", "amber fast", "keep holding to stop"))
		r.until("the end", recordIs(status.Off))
		if err := <-held; err != nil {
			t.Error(err)
		}
		b = r.until("a dark lamp", lampIs("REC", "off", ""))
		if b.Record.File != "" || b.Record.Bytes == 0 || b.Outputs[0].State == status.Off {
			t.Errorf("%+v", b)
		}
		if err := r.Do(r.t.Context(), "record.stop", nil, "test"); err != nil {
			t.Errorf("a stop without a recording: %v", err)
		}
	})
}

func TestTheStreamLampTellsOfAStorageInDanger(t *testing.T) {
	tests := []struct {
		name   string
		danger func(*stick)
		words  string
	}{
		{"almost full", func(c *stick) { c.free = 4e9 }, "storage is almost full"},
		{"broken", func(c *stick) { c.fault = syscall.EIO }, "it cannot record"},
		{"slow", func(c *stick) { c.hold = make(chan struct{}) }, "too slow"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBox(t, small, nil, func(r *rig) {
				c := r.insert()
				r.order("record.start", nil)
				r.until("a recording", recordIs(status.Recording))
				c.set(func() { tt.danger(c) })
				r.until("the danger", func(b status.Box) bool { return b.Lamps["REC"].Pattern != "red" })
				b := r.now()
				b.Outputs = []status.Output{{Name: "hall", Rendition: "main", State: status.Live}}
				lamps := panel.Lamps(b, wire(parse(t, small), r.Board).roles, time.Now())
				if l := lamps["STREAM"]; l.Pattern != "amber blink 5" || !strings.Contains(l.Reason, tt.words) {
					t.Errorf("%+v", l)
				}
				c.set(func() {
					if c.hold != nil {
						close(c.hold)
					}
				})
			})
		})
	}
}

func TestRecordingSurvivesConfigsAndPowerCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, small, nil)
		r.insert()
		r.until("box on duty", onDuty)
		r.order("record.toggle", nil)
		r.until("a recording", recordIs(status.Recording))
		r.apply(small + outputs + "[[key]]\nname = 'REC'\n")
		r.until("outputs", func(b status.Box) bool { return len(b.Outputs) == 2 })
		time.Sleep(5 * time.Second)
		if files := r.files(); len(files) != 1 || r.now().Record.State != status.Recording {
			t.Errorf("a config without another recorder made %v", files)
		}
		r.apply(small + "[record]\nlength = '2m'\n")
		r.until("another file", func(status.Box) bool { return len(r.files()) == 2 })
		r.until("a recording", recordIs(status.Recording))
		r.stop()
		again := New(r.Options)
		if !again.wanted.Record {
			t.Error("after a power cut nobody records")
		}
		r.order("record.toggle", nil)
		if New(r.Options).wanted.Record {
			t.Error("after a power cut somebody records")
		}
	})
}

func TestARecordingOfNothingIsNone(t *testing.T) {
	inBox(t, small, nil, func(r *rig) {
		r.insert()
		r.order("record.start", nil)
		r.until("a recording", recordIs(status.Recording))
		r.video.busy.Store(true)
		close(r.video.latest().broken)
		b := r.until("a fault", recordIs(status.Failed))
		if !strings.Contains(b.Record.Error, "no pictures of main are coded") || !lampIs("REC", "amber blink 6", "no pictures of main")(b) {
			t.Errorf("%+v, %+v", b.Record, b.Lamps)
		}
		if b.Has(status.RecordFailed) || !b.Has(status.RecordUncoded) {
			t.Errorf("%+v", b.Faults)
		}
		r.video.busy.Store(false)
		r.until("a recording", recordIs(status.Recording))
		if files := r.files(); len(files) != 1 {
			t.Errorf("an encoder's restart made %v", files)
		}
	})
}

// neverRed fails if the lamp says within a time that anything is recorded.
func (r *rig) neverRed(within time.Duration) {
	r.t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if b := r.now(); b.Lamps["REC"].Pattern == "red" || b.Record.State == status.Recording || b.Record.Since != nil {
			r.t.Fatalf("%+v, %+v: %+v", b.Record, b.Lamps["REC"], b.Renditions)
		}
	}
}

func TestAnEncoderThatHangsRecordsNothing(t *testing.T) {
	inBox(t, small, nil, func(r *rig) {
		r.insert()
		r.order("record.start", nil)
		r.until("a recording", recordIs(status.Recording))
		r.video.mute.Store(true)
		r.until("a pause", lampIs("REC", "amber pulse", "no pictures of main are coded"))
		r.neverRed(time.Minute)
		r.video.mute.Store(false)
		r.until("a recording", lampIs("REC", "red", ""))
	})
}

func TestARecordingWithoutAnEncoderDoesNotBegin(t *testing.T) {
	inBox(t, small, nil, func(r *rig) {
		r.insert()
		r.video.busy.Store(true)
		close(r.video.latest().broken)
		r.until("no encoder", func(b status.Box) bool { return b.Renditions[0].State == status.Backoff })
		r.order("record.start", nil)
		b := r.until("the lamp of no encoder", lampIs("REC", "amber blink 6", "no pictures of main are coded"))
		if !b.Has(status.RecordUncoded) {
			t.Errorf("%+v", b.Faults)
		}
		r.neverRed(time.Minute)
		r.video.busy.Store(false)
		r.until("a recording", lampIs("REC", "red", ""))
	})
}

func TestARecordingWithoutPicturesSaysSo(t *testing.T) {
	inBox(t, small+"[audio]\nsource = 'none'\n", nil, func(r *rig) {
		c := r.insert()
		r.order("record.start", nil)
		r.until("a recording", recordIs(status.Recording))
		release := sync.OnceFunc(c.seize())
		defer release()
		time.Sleep(3 * time.Second) // until it was asked to keep something
		r.video.mute.Store(true)
		r.until("no recording", recordIs(status.Starting))
		r.neverRed(20 * time.Second)
		r.until("the lamp of a stick that hangs", lampIs("REC", "amber blink 5", "does not answer"))
	})
}

func TestTheEndOfARecordingThatFailsIsTold(t *testing.T) {
	tests := []struct {
		name string
		end  func(c *stick, release func())
		why  string
	}{
		{"it breaks", func(c *stick, release func()) { c.set(func() { c.fault = syscall.EIO }); release() }, "input/output error"},
		{"it hangs", func(*stick, func()) {}, "does not answer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBox(t, small, nil, func(r *rig) {
				c := r.insert()
				r.order("record.start", nil)
				r.until("a recording", recordIs(status.Recording))
				release := sync.OnceFunc(c.seize())
				defer release()
				time.Sleep(3 * time.Second)
				r.order("record.stop", nil)
				time.Sleep(500 * time.Millisecond)
				tt.end(c, release)
				b := r.until("the end", lampIs("REC", "amber blink 5", tt.why))
				if b.Record.State != status.Off || !strings.Contains(b.Record.Error, "the end of the last recording is missing") || !b.Has(status.RecordFailed) {
					t.Errorf("%+v, %+v", b.Record, b.Faults)
				}
				if !strings.Contains(r.log.String(), "level=ERROR msg=\"the end of a recording is missing\"") {
					t.Errorf("logged %s", r.log.String())
				}
				r.order("record.stop", nil) // "I know"
				r.until("a dark lamp", lampIs("REC", "off", ""))
			})
		})
	}
}

func TestWhichStorageIsAlmostFull(t *testing.T) {
	const GB = 1e9
	off, on := status.Off, status.Recording
	tests := []struct {
		name        string
		state       string
		record, box [2]uint64 // free and total
		below       bool      // recordings go below the state directory
		want        bool
	}{
		{"a stick with space, a box without", on, [2]uint64{900 * GB, 1000 * GB}, [2]uint64{0.4 * GB, 10 * GB}, false, false},
		{"a stick without space, a box with", on, [2]uint64{4 * GB, 100 * GB}, [2]uint64{90 * GB, 100 * GB}, false, true},
		{"idle, recordings elsewhere", off, [2]uint64{}, [2]uint64{0.1 * GB, 10 * GB}, false, false},
		{"idle, enough to begin", off, [2]uint64{}, [2]uint64{49 * GB, 1000 * GB}, true, false},
		{"idle, too little to begin", off, [2]uint64{}, [2]uint64{1.6 * GB, 1000 * GB}, true, true},
		{"idle, unknown", off, [2]uint64{}, [2]uint64{}, true, false},
	}
	for _, tt := range tests {
		b := status.Box{
			Record:  status.Record{State: tt.state, FreeBytes: tt.record[0], TotalBytes: tt.record[1]},
			Storage: status.Storage{FreeBytes: tt.box[0], TotalBytes: tt.box[1]},
		}
		f := faultList{stand: map[trouble]time.Time{}}
		f.storage(b, tt.below)
		b.Faults = f.list
		if b.Has(status.StorageLow) != tt.want {
			t.Errorf("%s: %+v", tt.name, b.Faults)
		}
	}
}

func TestRecordingWhereNoneCanBe(t *testing.T) {
	away := filepath.Join(t.TempDir(), "stick")
	inBox(t, small+"[record]\ndir = '"+away+"'\n", nil, func(r *rig) {
		r.recorder.Open = func(dir string, create bool) (record.Medium, error) {
			_, err := os.Stat(dir)
			return record.OpenDir(dir, create || err == nil) // what is there counts as a medium of its own
		}
		r.order("record.start", nil)
		b := r.until("a fault", recordIs(status.Failed))
		if !strings.Contains(b.Record.Error, away) || !strings.Contains(b.Record.Error, "put the medium in") {
			t.Errorf("%+v", b.Record)
		}
		if err := os.Mkdir(away, 0o700); err != nil {
			t.Fatal(err)
		}
		r.until("a recording", recordIs(status.Recording))
		r.order("record.stop", nil)
		r.until("the end", recordIs(status.Off))
		list, err := os.ReadDir(away)
		if err != nil || len(list) != 1 {
			t.Errorf("%v, %v", list, err)
		}
	})
}

func TestTheRecorderStopsAfterTheOutputs(t *testing.T) {
	var names []string
	for _, s := range plan(parse(t, small+outputs), sim.New(sim.Options{}).Hardware(), Wanted{Outputs: map[string]bool{"hall": true}, Record: true}) {
		names = append(names, s.Name)
	}
	at := func(name string) int { return slices.Index(names, name) }
	if at("encode/main") > at("record") || at("record") > at("push/hall") || at("record") < 0 {
		t.Errorf("started in the order %v", names)
	}
}
