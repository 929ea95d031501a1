package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"encoderd.example/hw"
)

func TestADamagedFileBringsThePreviousAtAStartButNothingAtAReload(t *testing.T) {
	o := options{state: t.TempDir()}
	log := slog.New(slog.DiscardHandler)
	write := func(name, doc string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(o.state, name), []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := reload(o, hw.Board{}); err != nil || len(c.Renditions) != 1 {
		t.Errorf("a box without a config: %v", err)
	}
	write("config.toml", "[box\n")
	write("config.toml.previous", "[box]\nname = \"before\"\n")
	if c, err := load(o, log); err != nil || c.Box.Name != "before" {
		t.Errorf("at a start: %q, %v", c.Box.Name, err)
	}
	if _, err := reload(o, hw.Board{}); !errors.Is(err, errConfig) {
		t.Errorf("at a reload: %v", err)
	}
}
