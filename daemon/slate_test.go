package daemon

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"encoderd.example/hw"
)

func TestTheSlateIsThereWithinTwoFramesTime(t *testing.T) {
	events := []struct {
		name    string
		happens func(*actor)
		most    float64 // periods until the slate's unit
	}{
		{"unplugged", func(a *actor) { a.end(fmt.Errorf("read: %w", hw.ErrGone)) }, 2},
		{"no signal", func(a *actor) { a.end(fmt.Errorf("read: %w", hw.ErrNoSignal)) }, 2},
		{"another format", func(a *actor) { a.end(errors.New("the source has changed its format")) }, 2},
		{"silence, and it keeps its time", func(a *actor) { a.silent.Store(true) }, 2.5},
	}
	for _, fps := range []int{25, 30, 60} {
		for _, e := range events {
			t.Run(fmt.Sprintf("%s at %d fps", e.name, fps), func(t *testing.T) {
				a := newActor(hw.Rate{Num: fps, Den: 1})
				a.closing = 300 * time.Millisecond // the slate does not wait for that
				doc := fmt.Sprintf("[video]\nwidth = 128\nheight = 72\nfps = %d\n[serve]\nweb = \"\"\nrtsp = \"\"\n[audio]\nsource = \"none\"\n", fps)
				inTheatre(t, doc, a, plain, nil, func(th *theatre) {
					period := time.Second / time.Duration(fps)
					for i := range 5 { // at different places between two frames
						a.silent.Store(false)
						th.until("picture", onDuty)
						time.Sleep(5*time.Second + time.Duration(i)*period/5)
						e.happens(a)
						most := time.Duration(e.most * float64(period))
						if got := th.slate(); got > most {
							t.Errorf("the slate came after %v, that is %.2f periods; want %v at most", got, float64(got)/float64(period), most)
						}
						time.Sleep(2 * falseAlarm)
					}
				})
			})
		}
	}
}

// end ends the capture with err, and the next try to open finds no signal.
func (a *actor) end(err error) {
	a.opens <- hw.ErrNoSignal
	a.fails <- err
}
