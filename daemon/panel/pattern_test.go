package panel

import (
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
)

// allPatterns are all that there are.
func allPatterns() (list []Pattern) {
	for c := hw.Dark; c <= hw.White; c++ {
		for r := range rhythms {
			list = append(list, Pattern{c, Rhythm(r)})
		}
	}
	return list
}

// strip draws two seconds of a pattern, a sign for each flash time.
func strip(p Pattern, from time.Time) string {
	var b strings.Builder
	for i := range 16 {
		lit, _ := p.At(from.Add(time.Duration(i)*flash + flash/2))
		b.WriteByte(map[bool]byte{true: '#', false: '.'}[lit])
	}
	return b.String()
}

func TestRhythms(t *testing.T) {
	epoch := time.Unix(0, 0)
	tests := []struct{ pattern, want string }{
		{"off", "................"},
		{"red", "################"},
		{"amber pulse", "####....####...."},
		{"amber fast", "#.#.#.#.#.#.#.#."},
		{"blue double", "#.#.....#.#....."},
		{"amber occulting", "##############.."},
		{"amber long-short", "######..##......"},
		{"amber long-short-short", "######..##..##.."},
		{"white call", "#.#.#.######...."},
		{"amber blink 1", "#..............."},
		{"amber blink 2", "#.#............."},
		{"amber blink 3", "#.#.#..........."},
		{"amber blink 4", "#.#.#.#........."},
		{"amber blink 5", "#.#.#.#.#......."},
		{"amber blink 6", "#.#.#.#.#.#....."},
	}
	if len(tests) != len(rhythms)+1 {
		t.Errorf("%d rhythms, %d tests", len(rhythms), len(tests)-1)
	}
	for _, tt := range tests {
		p, err := ParsePattern(tt.pattern)
		if got := strip(p, epoch); err != nil || got != tt.want {
			t.Errorf("%s: %s, %v, want %s", tt.pattern, got, err, tt.want)
		}
		for _, at := range []time.Time{time.Date(1900, 1, 1, 0, 0, 1, 0, time.UTC), time.Date(2400, 2, 3, 4, 5, 6, 0, time.UTC)} {
			if got := strip(p, at.Truncate(time.Second).Add(time.Duration(at.Unix()&1)*time.Second)); got != tt.want {
				t.Errorf("%s in %d: %s, want %s", tt.pattern, at.Year(), got, tt.want)
			}
		}
	}
}

func TestPatternsHaveNames(t *testing.T) {
	for _, p := range allPatterns() {
		want := p
		if p.Color == hw.Dark {
			want.Rhythm = Steady // darkness has no rhythm
		}
		if got, err := ParsePattern(p.String()); got != want || err != nil {
			t.Errorf("%+v is %q, and that is %+v, %v", p, p, got, err)
		}
	}
	for _, bad := range []string{"", "on", "red ", "red  pulse", "off pulse", "red blink", "red blink 7", "purple", "Red", "red pulse fast"} {
		if p, err := ParsePattern(bad); err == nil {
			t.Errorf("%q is %+v", bad, p)
		}
	}
}

// What a lamp that waits for the next change shows is what one that looks all
// the time shows.
func TestTheNextChangeIsTheNextChange(t *testing.T) {
	for _, p := range allPatterns() {
		at := time.Unix(1_000_000_000, 123_456_789)
		for end := at.Add(4 * time.Second); at.Before(end); {
			lit, next := p.At(at)
			if next.IsZero() {
				if p.Color != hw.Dark && p.Rhythm != Steady {
					t.Errorf("%v never changes", p)
				}
				break
			}
			before, _ := p.At(next.Add(-1))
			after, _ := p.At(next)
			if !next.After(at) || before != lit || after == lit {
				t.Fatalf("%v: at %v %t until %v, but then %t and %t", p, at, lit, next, before, after)
			}
			at = next
		}
	}
}

func TestLampsThatBlinkByThemselvesShowTheSame(t *testing.T) {
	var can []string
	for _, p := range allPatterns() {
		on, off, ok := p.Blink()
		if !ok {
			continue
		}
		if p.Color == hw.Amber {
			can = append(can, p.String())
		}
		start := time.Unix(0, 0)
		lit, dark := p.At(start)
		back, again := p.At(dark)
		if !lit || back || dark.Sub(start) != on || again.Sub(dark) != off {
			t.Errorf("%v is %v and %v, by itself %v and %v", p, dark.Sub(start), again.Sub(dark), on, off)
		}
	}
	if want := []string{"amber pulse", "amber fast", "amber occulting", "amber blink 1"}; !slices.Equal(can, want) {
		t.Errorf("%q blink by themselves, want %q", can, want)
	}
}

func FuzzPattern(f *testing.F) {
	for _, p := range allPatterns() {
		f.Add(p.String(), int64(1))
	}
	f.Fuzz(func(t *testing.T, s string, sec int64) {
		p, err := ParsePattern(s)
		if err != nil {
			return
		}
		if p.String() != s {
			t.Errorf("%q is %q", s, p)
		}
		at := time.Unix(sec, 0)
		if _, next := p.At(at); !next.IsZero() && !next.After(at) {
			t.Errorf("%q at %v: next is %v", s, at, next)
		}
	})
}
