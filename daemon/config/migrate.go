package config

import "fmt"

// A migration changes the tree of one layout into the next.
type migration func(tree map[string]any)

// migrations[i] leads from version i+1 to version i+2.
var migrations []migration

// migrate brings tree, whose "version" says its layout (absent = 1), to the
// latest one. What is not a version at all is left for the decoder to refuse.
func migrate(tree map[string]any, steps []migration) error {
	version := int64(1)
	if v, ok := tree["version"]; ok {
		if version, ok = v.(int64); !ok {
			return nil
		}
	}
	latest := int64(len(steps) + 1)
	if version < 1 || version > latest {
		return fmt.Errorf("version %d of the file is not known here, the latest is %d", version, latest)
	}
	for _, step := range steps[version-1:] {
		step(tree)
	}
	tree["version"] = latest
	return nil
}
