package status_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
)

func TestASlowWatcherSeesTheLatestAndHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c status.Cell[int]
		go func() {
			for i := range 100 {
				c.Update(func(v *int) { *v = i })
				time.Sleep(time.Millisecond)
			}
		}()
		time.Sleep(time.Second)
		v, seen, err := c.Wait(t.Context(), 0)
		if v != 99 || seen != 100 || err != nil {
			t.Errorf("got %d, version %d, %v; want the latest, 99", v, seen, err)
		}
	})
}

func TestWaitWaitsForSomethingNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c status.Cell[string]
		c.Update(func(s *string) { *s = "old" })
		_, seen := c.Get()
		time.AfterFunc(time.Minute, func() { c.Update(func(s *string) { *s = "new" }) })
		begin := time.Now()
		v, _, err := c.Wait(t.Context(), seen)
		if v != "new" || err != nil || time.Since(begin) != time.Minute {
			t.Errorf("got %q, %v after %v", v, err, time.Since(begin))
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c status.Cell[int]
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := c.Wait(ctx, 0); err == nil {
			t.Error("no error")
		}
	})
}

func TestEveryFaultSaysWhatToDo(t *testing.T) {
	for code, row := range status.FaultTable {
		if row.Title == "" || !strings.HasSuffix(row.Do, ".") {
			t.Errorf("%s: title %q, do %q", code, row.Title, row.Do)
		}
		f := status.NewFault(code, "detail", time.Unix(1, 0))
		if !strings.HasPrefix(f.Text, "detail. ") || !strings.HasSuffix(f.Text, row.Do) {
			t.Errorf("%s: %q", code, f.Text)
		}
		b := status.Box{Faults: []status.Fault{f}}
		if !b.Has(code) || (status.Box{}).Has(code) {
			t.Errorf("%s: Has is wrong", code)
		}
	}
}
