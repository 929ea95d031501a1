package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A pipe that nobody writes to hangs whoever opens it, as a disk may.
func TestOrdersDoNotWaitForADiskThatHangs(t *testing.T) {
	d := testDaemon(t)
	path := filepath.Join(d.State, wantedFile)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	given := make(chan error, 3)
	go func() {
		for _, order := range []string{"record.start", "audio.mute", "record.stop"} {
			given <- d.Do(t.Context(), order, nil, "test")
		}
	}()
	deadline := time.After(time.Minute)
	for range cap(given) {
		select {
		case err := <-given:
			if err != nil {
				t.Error(err)
			}
		case <-deadline:
			t.Fatal("orders hang")
		}
	}
	d.mu.Lock()
	w := d.wanted
	d.mu.Unlock()
	if w.Record || !w.Muted {
		t.Errorf("%+v", w)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0) // the disk answers
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	asked := d.saver.ask(d.save)
	select {
	case <-asked.done:
	case <-deadline:
		t.Fatal("nothing is written")
	}
	b, err := os.ReadFile(path)
	if err = errors.Join(err, asked.err); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"muted":true`) || !strings.Contains(string(b), `"record":false`) {
		t.Errorf("remembered %s", b)
	}
}
