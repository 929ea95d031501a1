package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A journal notes when services start and stop.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// take returns what was noted since the last call.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	j.lines = nil
	return lines
}

// services reads a set such as "cam enc=4k<cam rtmp<enc".
func (j *journal) services(set string) (ss []Service) {
	for s := range strings.FieldsSeq(set) {
		s, needs, _ := strings.Cut(s, "<")
		name, config, _ := strings.Cut(s, "=")
		ss = append(ss, Service{
			Name: name, Needs: strings.Fields(needs), Config: config,
			Run: func(ctx context.Context, live func()) error {
				j.note("+" + s)
				live()
				<-ctx.Done()
				j.note("-" + name)
				return nil
			},
		})
	}
	return ss
}

func TestApplyTouchesOnlyWhatDiffers(t *testing.T) {
	tests := []struct{ name, from, to, want string }{
		{"nothing", "cam enc<cam rtmp<enc", "cam enc<cam rtmp<enc", ""},
		{"new stream key", "cam enc<cam rtmp<enc rtsp<enc", "cam enc<cam rtmp=2<enc rtsp<enc", "-rtmp +rtmp=2"},
		{"new output", "cam enc<cam", "cam enc<cam srt<enc", "+srt"},
		{"output gone", "cam enc<cam srt<enc", "cam enc<cam", "-srt"},
		{
			"encoder changed takes its outputs along", "cam enc<cam rtmp<enc web",
			"cam enc=4k<cam rtmp<enc web", "-rtmp -enc +enc=4k +rtmp",
		},
		{
			"camera swapped", "cam enc<cam rtmp<enc web", "cam=2 enc<cam rtmp<enc web",
			"-rtmp -enc -cam +cam=2 +enc +rtmp",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				var g Group
				g.Apply(t.Context(), j.services(tt.from))
				synctest.Wait()
				j.take()
				g.Apply(t.Context(), j.services(tt.to))
				synctest.Wait()
				got := j.take()
				stops := slices.IndexFunc(got, func(s string) bool { return s[0] == '+' })
				if stops >= 0 {
					slices.Sort(got[stops:]) // starts run side by side
				}
				if want := strings.Fields(tt.want); !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
				g.Apply(t.Context(), nil)
			})
		})
	}
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		tries := 0
		g.Apply(t.Context(), []Service{{Name: "rtmp", Run: func(_ context.Context, live func()) error {
			tries++
			live() // a server that takes us in and throws us out again
			return errors.New("connection reset")
		}}})
		time.Sleep(10 * time.Minute)
		g.Apply(t.Context(), nil)
		if tries < 20 || tries > 35 {
			t.Errorf("%d tries in ten minutes", tries)
		}
	})
}

func TestPermanentErrorsAreNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last Status
		tries := 0
		g := Group{Report: func(_ string, s Status) { last = s }}
		g.Apply(t.Context(), []Service{{Name: "rtmp", Run: func(context.Context, func()) error {
			tries++
			return fmt.Errorf("publish: %w", Permanent(errors.New("bad stream key")))
		}}})
		time.Sleep(time.Hour)
		synctest.Wait()
		if tries != 1 || last.State != Failed {
			t.Errorf("%d tries, %v", tries, last.State)
		}
	})
}

func TestAPanicIsAnErrorLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs []error
		tries := 0
		g := Group{Report: func(_ string, s Status) {
			if s.State == Backoff {
				errs = append(errs, s.Err)
			}
		}}
		g.Apply(t.Context(), []Service{{Name: "enc", Run: func(ctx context.Context, live func()) error {
			if tries++; tries == 1 {
				panic("index out of range")
			}
			live()
			<-ctx.Done()
			return nil
		}}})
		time.Sleep(time.Minute)
		g.Apply(t.Context(), nil)
		if tries != 2 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "index out of range") {
			t.Errorf("%d tries, %v", tries, errs)
		}
	})
}

func TestOneThatIgnoresItsContextIsStuckAndHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var mu sync.Mutex
		states := map[string]State{}
		g := Group{Report: func(name string, s Status) {
			mu.Lock()
			defer mu.Unlock()
			states[name] = s.State
		}}
		g.Apply(t.Context(), []Service{{Name: "driver", Grace: time.Second, Run: func(_ context.Context, live func()) error {
			live()
			<-release
			return nil
		}}})
		synctest.Wait()
		begin := time.Now()
		g.Apply(t.Context(), nil)
		mu.Lock()
		if states["driver"] != Stuck || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", states["driver"], time.Since(begin))
		}
		mu.Unlock()
		close(release)
	})
}

func TestOneFollowsWhatItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		fail := make(chan struct{})
		var g Group
		g.Apply(t.Context(), []Service{
			{Name: "enc", Run: func(ctx context.Context, live func()) error {
				j.note("enc up")
				time.Sleep(time.Second)
				live()
				select {
				case <-fail:
					return errors.New("encoder broke")
				case <-ctx.Done():
					return nil
				}
			}},
			{Name: "out", Needs: []string{"enc"}, Run: func(ctx context.Context, live func()) error {
				j.note("out up")
				live()
				<-ctx.Done()
				j.note("out down")
				return ctx.Err()
			}},
		})
		time.Sleep(500 * time.Millisecond)
		if got := j.take(); !slices.Equal(got, []string{"enc up"}) {
			t.Errorf("before the need is live: %v", got)
		}
		time.Sleep(time.Second)
		fail <- struct{}{}
		time.Sleep(10 * time.Second)
		want := []string{"out up", "out down", "enc up", "out up"}
		if got := j.take(); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		g.Apply(t.Context(), nil)
	})
}
