package obs

import (
	"fmt"
	"strings"

	"encoderd.example/daemon/status"
)

// Kind says what an [Input] is in OBS.
type Kind string

// The kinds.
const (
	Any       Kind = ""      // a scene or an input; their names differ
	Scene     Kind = "scene" // on program with everything it is nested in
	InputKind Kind = "input"
)

// An Input is what a source of OBS follows.
type Input struct {
	Kind Kind
	Name string
}

// ParseInput reads an input as config spells it: scene:NAME, input:NAME, or the
// NAME of either.
func ParseInput(text string) (Input, error) {
	in := Input{Name: text}
	for _, kind := range []Kind{Scene, InputKind} {
		if name, ok := strings.CutPrefix(text, string(kind)+":"); ok {
			in = Input{Kind: kind, Name: name}
		}
	}
	if in.Name == "" {
		return Input{}, fmt.Errorf("%q names neither a scene nor an input of OBS", text)
	}
	return in, nil
}

// A stage is what OBS shows, as far as we know it. The zero stage knows
// nothing.
type stage struct {
	known   bool            // something was said of the program
	program string          // scene
	preview string          // scene; "" without studio mode
	scenes  map[string]bool // nil: not known
	active  map[string]bool // of those we follow: seen on program, by itself or nested
	staged  map[string]bool // of those we follow: in the preview scene
	missing map[string]bool // of those we follow: OBS knows no such name
}

// state is what the stage says of an input; "" if nothing yet. The error says
// that OBS has no such thing.
func (s *stage) state(in Input) (string, error) {
	switch {
	case in.Kind == InputKind && s.scenes[in.Name]:
		return "", fmt.Errorf("%s is a scene of OBS, not an input", in.Name)
	case in.Kind == Scene && s.scenes != nil && !s.scenes[in.Name] && in.Name != s.program && in.Name != s.preview:
		return "", fmt.Errorf("OBS has no scene %s", in.Name)
	case s.missing[in.Name] && !s.scenes[in.Name] && in.Name != s.program && in.Name != s.preview:
		return "", fmt.Errorf("OBS has no %s %s", orInput(in.Kind), in.Name)
	case in.Name == s.program || s.active[in.Name]:
		return status.Program, nil
	case !s.known:
		return "", nil
	case in.Name == s.preview || s.staged[in.Name]:
		return status.Preview, nil
	default:
		return status.Off, nil
	}
}

func orInput(k Kind) string {
	if k == Any {
		return "scene or input"
	}
	return string(k)
}
