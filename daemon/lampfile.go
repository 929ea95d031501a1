package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"encoderd.example/hw"
)

// lampFile is in the state directory. It holds the lamps that the panel drives:
// whoever darkens them after a daemon that could not may have no config to find
// them by.
const lampFile = "lamps.json"

// rememberLamps writes down which lamps are driven, if that is new.
func rememberLamps(dir string, lamps []hw.LampWire) error {
	b, err := json.Marshal(lamps)
	if err != nil {
		return fmt.Errorf("remember the lamps: %w", err)
	}
	path := filepath.Join(dir, lampFile)
	if was, err := os.ReadFile(path); err == nil && bytes.Equal(was, b) {
		return nil
	}
	if err := renameio.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("remember the lamps: %w", err)
	}
	return nil
}

// RememberedLamps returns the lamps that the last panel of a daemon with this
// state directory drove; none if there was none, or what tells of it is damaged.
func RememberedLamps(state string) []hw.LampWire {
	b, err := os.ReadFile(filepath.Join(state, lampFile))
	if err != nil {
		return nil
	}
	var lamps []hw.LampWire
	if err := json.Unmarshal(b, &lamps); err != nil {
		return nil
	}
	return lamps
}
