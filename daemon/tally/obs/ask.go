package obs

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"
)

const (
	maxNested = 1000 // items of the preview scene, nested ones too, that are looked at
	maxTries  = 3    // to see the whole stage between two events
)

// ask looks at the stage now, when an event wants it, and every third of the
// timeout.
func (s *session) ask(ctx context.Context) error {
	again := time.NewTicker(max(s.link.Timeout/3, time.Millisecond))
	defer again.Stop()
	for {
		if err := s.survey(ctx); err != nil {
			return err
		}
		select {
		case <-s.look:
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// survey asks for the whole stage. If events change it meanwhile, it is asked
// again, but not for ever.
func (s *session) survey(ctx context.Context) error {
	for try := 1; ; try++ {
		s.mu.Lock()
		before, moving := s.changes, s.moving
		s.mu.Unlock()
		if !moving.IsZero() {
			if time.Since(moving) > maxMoving {
				return errMoving
			}
			return nil // OBS must not be asked now: it may crash
		}
		seen, err := s.see(ctx)
		if err != nil {
			return err
		}
		if s.accept(seen, before, try == maxTries) {
			s.report()
			return nil
		}
	}
}

// accept makes what was seen the stage, unless an event came meanwhile. It
// reports whether no other look is due now.
func (s *session) accept(seen stage, before int, last bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.moving.IsZero():
		return true
	case s.changes != before && !last:
		return false
	}
	s.stage = seen
	return true
}

// see asks for everything. What OBS cannot answer stays as it is known.
func (s *session) see(ctx context.Context) (stage, error) {
	s.mu.Lock()
	seen := s.stage
	s.mu.Unlock()
	steps := []func(context.Context, *stage) error{s.seeScenes, s.seeProgram, s.seePreview, s.seeActive, s.seeStaged}
	for _, step := range steps {
		if err := step(ctx, &seen); err != nil {
			return stage{}, err
		}
	}
	return seen, nil
}

// scene is what both GetSceneList and the requests for one scene answer.
type scene struct {
	Name    *string `json:"sceneName"`
	Program *string `json:"currentProgramSceneName"`
	Preview *string `json:"currentPreviewSceneName"`
	Scenes  []struct {
		Name string `json:"sceneName"`
	} `json:"scenes"`
	StudioMode *bool  `json:"studioModeEnabled"`
	Active     *bool  `json:"videoActive"`
	Items      []item `json:"sceneItems"`
}

// item is a scene, group or input within a scene.
type item struct {
	Name    string `json:"sourceName"`
	Type    string `json:"sourceType"`
	Group   bool   `json:"isGroup"`
	Enabled *bool  `json:"sceneItemEnabled"`
}

// get asks one thing. What cannot be read is like what was not answered.
func (s *session) get(ctx context.Context, kind string, data any) (scene, int, error) {
	r, err := s.request(ctx, kind, data)
	if err != nil {
		return scene{}, 0, err
	}
	var a scene
	if !r.Status.OK || len(r.Data) == 0 {
		return scene{}, r.Status.Code, nil
	}
	if err := json.Unmarshal(r.Data, &a); err != nil {
		s.desk.Bad("", err)
		return scene{}, r.Status.Code, nil
	}
	return a, r.Status.Code, nil
}

func (s *session) seeScenes(ctx context.Context, seen *stage) error {
	a, _, err := s.get(ctx, "GetSceneList", nil)
	if err != nil {
		return err
	}
	seen.take(a)
	if a.Scenes != nil {
		seen.scenes = map[string]bool{}
		for _, sc := range a.Scenes {
			seen.scenes[sc.Name] = true
		}
	}
	return nil
}

func (s *session) seeProgram(ctx context.Context, seen *stage) error {
	a, _, err := s.get(ctx, "GetCurrentProgramScene", nil)
	if err != nil {
		return err
	}
	seen.take(scene{Program: cmp.Or(a.Name, a.Program)}) // the field was renamed
	return nil
}

// take takes the scenes that an answer names.
func (s *stage) take(a scene) {
	if a.Program != nil {
		s.program, s.known = *a.Program, true
	}
	if a.Preview != nil {
		s.preview = *a.Preview
	}
}

func (s *session) seePreview(ctx context.Context, seen *stage) error {
	a, _, err := s.get(ctx, "GetStudioModeEnabled", nil)
	if err != nil || a.StudioMode == nil {
		return err
	}
	if !*a.StudioMode {
		seen.preview, seen.staged = "", nil
		return nil
	}
	if a, _, err = s.get(ctx, "GetCurrentPreviewScene", nil); err != nil {
		return err
	}
	seen.take(scene{Preview: cmp.Or(a.Name, a.Preview)})
	return nil
}

type sourceName struct {
	Name string `json:"sourceName"`
}

type sceneName struct {
	Name string `json:"sceneName"`
}

// seeActive asks for every name that is followed whether it is seen on program,
// wherever it is nested.
func (s *session) seeActive(ctx context.Context, seen *stage) error {
	active, missing := map[string]bool{}, map[string]bool{}
	for _, in := range s.link.Sources {
		if _, known := active[in.Name]; known {
			continue
		}
		a, code, err := s.get(ctx, "GetSourceActive", sourceName{in.Name})
		if err != nil {
			return err
		}
		missing[in.Name] = code == resultNotFound || code == resultWrongType
		switch {
		case a.Active != nil:
			active[in.Name] = *a.Active
		case missing[in.Name]:
			active[in.Name] = false
		default:
			active[in.Name] = seen.active[in.Name]
		}
	}
	seen.active, seen.missing = active, missing
	return nil
}

// seeStaged looks for the names that are followed in the preview scene and what
// is nested there. OBS's own word, videoShowing, would be true for what is in
// any window of its operator, too.
func (s *session) seeStaged(ctx context.Context, seen *stage) error {
	if seen.preview == "" {
		return nil
	}
	staged := map[string]bool{}
	queue, known := []item{{Name: seen.preview}}, map[string]bool{seen.preview: true}
	for len(queue) > 0 && len(known) < maxNested {
		inside, err := s.inside(ctx, queue[0])
		if err != nil {
			return err
		}
		queue = queue[1:]
		for _, it := range inside {
			if known[it.Name] {
				continue
			}
			known[it.Name] = true
			staged[it.Name] = s.follows(it.Name)
			if it.Group || it.Type == "OBS_SOURCE_TYPE_SCENE" {
				queue = append(queue, it)
			}
		}
	}
	seen.staged = staged
	return nil
}

// inside are the items of a scene or group that can be seen.
func (s *session) inside(ctx context.Context, of item) ([]item, error) {
	kind := "GetSceneItemList"
	if of.Group {
		kind = "GetGroupSceneItemList"
	}
	a, _, err := s.get(ctx, kind, sceneName{of.Name})
	hidden := func(it item) bool { return it.Enabled != nil && !*it.Enabled }
	return slices.DeleteFunc(a.Items, hidden), err
}
