package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// told returns what the guest prints for walks on all paths, which change may
// alter; words of other programs are between them.
func told(t *testing.T, change func(*walk)) io.Reader {
	t.Helper()
	var out bytes.Buffer
	for _, p := range paths {
		w := walk{Path: p.name, Pictures: 200, Latency: []float64{0.25}}
		if !p.zero {
			w.Copied = 200 * 86400
		}
		if change != nil {
			change(&w)
		}
		out.WriteString("level=INFO msg=\"camera opened\"\n")
		if err := json.NewEncoder(&out).Encode(w); err != nil {
			t.Fatal(err)
		}
	}
	return &out
}

func TestEveryPathHasItsRows(t *testing.T) {
	b := bench{out: io.Discard}
	said, err := b.hearWalks(told(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(said, "camera opened") != len(paths) || strings.Contains(said, "{") {
		t.Errorf("other words: %q", said)
	}
	for _, p := range paths {
		i := slices.IndexFunc(b.table.Rows, func(r row) bool {
			return strings.HasPrefix(r.What, p.String()+", raw bytes that the CPU copied")
		})
		if i < 0 {
			t.Errorf("%s has no row", p)
			continue
		}
		r := b.table.Rows[i]
		if want := map[bool]float64{true: 0, false: 86400}[p.zero]; r.Ours != want || r.Zero != p.zero || !r.Met {
			t.Errorf("%s: %+v", p, r)
		}
	}
	if b.table.notZero() || b.table.missed() {
		t.Error("a target is said to be missed")
	}
}

func TestASingleCopyWhereNoneMayBeFailsTheRun(t *testing.T) {
	b := bench{out: io.Discard}
	_, err := b.hearWalks(told(t, func(w *walk) {
		if w.Path == "export" {
			w.Copied = 1
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	b.table.show(&s)
	if !b.table.notZero() || strings.Count(s.String(), "NOT MET") != 1 || !strings.Contains(s.String(), "= 0") {
		t.Errorf("the table says:\n%s", &s)
	}
}

func TestAPathWithoutAWalkFailsTheRun(t *testing.T) {
	broken := func(w *walk) {
		if w.Path == "import" {
			w.Error = "no camera"
		}
	}
	for name, from := range map[string]io.Reader{
		"one fails":        told(t, broken),
		"nothing is said":  strings.NewReader("bash: not found\n"),
		"one is unknown":   strings.NewReader(`{"Path":"teleport"}` + "\n"),
		"the line is torn": io.MultiReader(told(t, nil), &torn{}),
	} {
		t.Run(name, func(t *testing.T) {
			b := bench{out: io.Discard}
			if _, err := b.hearWalks(from); err == nil {
				t.Error("no error")
			}
		})
	}
}

type torn struct{}

func (*torn) Read([]byte) (int, error) { return 0, errors.New("torn") }

func TestAPathIsWalked(t *testing.T) {
	dir := t.TempDir()
	f := feed{format: "MJPG", width: pathWidth, height: pathHeight, fps: pathFPS, file: filepath.Join(dir, "MJPG")}
	if err := f.render(t.Context()); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(paths, path.model)
	w, err := paths[i].walk(dir, 15)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Latency) != 15 || w.Pictures < 10 || w.Copied+w.Decoded > 0 || w.Encoder != "v4l2:encoder" || !strings.HasPrefix(w.Reason, "export: ") {
		t.Errorf("%+v", w)
	}
}

func TestTheDaemonTakesTheConfigOfEachPath(t *testing.T) {
	for _, p := range paths {
		c, err := config.Parse([]byte(p.config()), config.Rules{})
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		i := slices.IndexFunc(c.Renditions, func(r config.Rendition) bool { return r.Name == p.rendition() })
		if i < 0 || c.Renditions[i].Encoder != p.encoder || c.Video.Buffers != p.buffers || (c.Video.Source == "test") != p.file() {
			t.Errorf("%s: %+v", p, c)
		}
	}
}

func TestAWalkIsWhatHappenedBetweenTwoMoments(t *testing.T) {
	buffers := &status.Buffers{Way: "export", Reason: "it is there"}
	before := count{status.Input{Missed: 1, Damaged: 1, Slate: 5, DecodedBytes: 10}, status.Rendition{Frames: 7, CopiedBytes: 100, Dropped: 2}}
	after := count{
		status.Input{Name: "vivid", Width: 320, Height: 180, Format: "NV12", Missed: 2, Damaged: 3, Slate: 5, DecodedBytes: 30},
		status.Rendition{Encoder: "enc", Frames: 17, CopiedBytes: 300, Dropped: 3, Buffers: buffers},
	}
	w := between(before, after)
	if w.Pictures != 10 || w.Copied != 200 || w.Decoded != 20 || w.Dropped != 1 || w.Missed != 3 || w.Slates != 0 || w.each(w.Copied) != 20 ||
		w.Camera != "vivid 320x180 NV12" || w.Reason != "export: it is there" {
		t.Errorf("%+v", w)
	}
	if after.way() != hw.Export || before.way() != "" {
		t.Errorf("ways %q and %q", before.way(), after.way())
	}
}
