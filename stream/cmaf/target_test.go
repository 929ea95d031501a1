package cmaf

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

const picture = 40 * time.Millisecond

// follows publishes so many pictures and returns every target that players
// could have been told, in order. No segment may exceed the one of its time.
func (f *fake) follows(t *testing.T, st *Stream, pictures int) (targets []time.Duration) {
	t.Helper()
	for range pictures {
		f.publish(1)
		synctest.Wait()
		for _, m := range []Medium{Video, Sound} {
			seq := st.Latest(m)
			if seq == nil || len(seq.Complete()) == 0 {
				continue // no list without a whole segment
			}
			if n := len(targets); n == 0 || targets[n-1] != seq.Target {
				targets = append(targets, seq.Target)
			}
			if d := seq.Complete()[len(seq.Complete())-1].Duration; d.Round(time.Second) > seq.Target {
				t.Fatalf("%v lasts %v, more than the target of %v", m, d, seq.Target)
			}
		}
	}
	return targets
}

// asked returns where key pictures are that come each so many pictures, and
// when somebody asks for one, at most once a second. An encoder may begin its
// count anew with that or not.
func asked(gop int, anew bool, seed uint64) func(n int) bool {
	random := rand.New(rand.NewPCG(seed, uint64(gop)))
	last, counted := 0, 0
	return func(n int) bool {
		wish := n-last >= 25 && random.IntN(40) == 0
		due := n-counted >= gop || n == 0
		if due || wish && anew {
			counted = n
		}
		if due || wish {
			last = n
		}
		return due || wish
	}
}

// Players may rely on the first target that they are told (RFC 8216bis, 6.2.1),
// also if the first group of pictures is short, and however often somebody asks
// for a key picture.
func TestTheTargetIsKnownFromTheFirstListOn(t *testing.T) {
	for gop, want := range map[int]int{5: 1, 12: 1, 22: 2, 25: 1, 35: 2, 50: 2, 51: 2, 60: 3, 100: 4, 250: 10} {
		for _, anew := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v apart, the count begins anew: %t", time.Duration(gop)*picture, anew), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, sg := newFake(), &Segmenter{Idle: time.Hour}
					run(t, sg)
					f.r.SetKeyInterval(time.Duration(gop) * picture)
					st := sg.Of(f.r)
					if got := st.Target(); got != time.Duration(want)*time.Second {
						t.Errorf("before the first segment %v", got)
					}
					f.key = asked(gop, anew, 1)
					f.publish(1)
					st.Ask()
					if got := f.follows(t, st, 40*gop+2500); len(got) != 1 || got[0] != time.Duration(want)*time.Second {
						t.Errorf("told %v, want always %d s", got, want)
					}
				})
			})
		}
	}
}

// A camera that codes by itself decides alone.
func TestAnUnknownTargetOnlyEverGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sg := newFake(), &Segmenter{Idle: time.Hour}
		run(t, sg)
		st := sg.Of(f.r)
		at := map[int]bool{0: true, 30: true, 90: true, 130: true, 255: true, 280: true}
		f.key = func(n int) bool { return at[n] }
		f.publish(1)
		st.Ask()
		got := f.follows(t, st, 300)
		if want := "[1s 2s 3s 4s 5s]"; fmt.Sprint(got) != want {
			t.Errorf("told %v, want %s", got, want)
		}
	})
}

// Encoders count pictures: where some are left out, the key picture is ordered.
func TestALateKeyPictureIsAskedFor(t *testing.T) {
	f, sg := newFake(), &Segmenter{}
	run(t, sg)
	f.r.SetKeyInterval(2 * time.Second)
	f.key = func(n int) bool { return n == 0 || n == 50 || n == 100 || n == 155 }
	f.publish(101)
	st := sg.Of(f.r)
	wait(t, st, Video, until(2))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(f.r.KeyWanted()) == 0 { // wishes soon after a key picture are passed over
		<-tick.C
		f.r.WantKey()
	}
	<-f.r.KeyWanted()
	f.publish(50)
	wait(t, st, Video, func(s *Sequence) bool { return len(s.Last().Parts) == 10 })
	if len(f.r.KeyWanted()) > 0 {
		t.Error("asked for before it is late")
	}
	f.publish(4)
	select {
	case <-f.r.KeyWanted():
	case <-time.After(30 * time.Second):
		t.Fatal("nobody asks")
	}
	f.publish(1)
	unbroken(t, wait(t, st, Video, until(3)))
	if got := st.Target(); got != 2*time.Second {
		t.Errorf("the target is %v", got)
	}
}
