package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Level is a gain or a level in dB, to a tenth. In the file it is a number, or
// text such as "6dB" or "-3.5 dB".
type Level float64 //nolint:recvcheck // reads itself through a pointer, prints as a value

func (l *Level) set(v any) (text, do string) {
	const example = `write decibels, for example "6dB", "-3.5dB" or -12`
	var db float64
	switch v := v.(type) {
	case int64:
		db = float64(clampInt(v))
	case float64:
		db = v
	case string:
		number := strings.TrimSpace(strings.TrimSuffix(v, "dB"))
		if strings.Trim(number, "0123456789.+-") != "" {
			return "is not a level", example // no exponents or "inf"
		}
		var err error
		if db, err = strconv.ParseFloat(number, 64); err != nil {
			return "is not a level", example
		}
	default:
		return "is " + kind(v) + ", not a level", example
	}
	if math.IsNaN(db) {
		return "is not a level", example
	}
	*l = Level(math.Round(min(max(db, -1000), 1000)*10)/10) + 0 // no minus zero
	return "", ""
}

// String returns the form that the file takes: "6dB", "-3.5dB".
func (l Level) String() string { return strconv.FormatFloat(float64(l), 'f', -1, 64) + "dB" }

// MarshalText returns String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Channels says which of a card's channels are heard. In the file it is a word,
// or one or two channels counted from 1, such as "3" and "3+4".
type Channels struct { //nolint:recvcheck // reads itself through a pointer, prints as a value
	Left, Right int  // channels from 1
	Mono        bool // both sides hear the mean of the two
}

// Stereo is the first two channels.
var Stereo = Channels{Left: 1, Right: 2}

// channelWords are the choices that have a name.
var channelWords = []struct {
	word     string
	channels Channels
}{
	{"stereo", Stereo},
	{"left", Channels{Left: 1, Right: 1}},
	{"right", Channels{Left: 2, Right: 2}},
	{"mono", Channels{Left: 1, Right: 2, Mono: true}},
	{"swap", Channels{Left: 2, Right: 1}},
}

func (c *Channels) set(v any) (text, do string) {
	const example = `write "stereo", "left", "right", "mono", "swap", or channels of a larger card, for example "3+4"`
	s, ok := v.(string)
	if !ok {
		return "is " + kind(v) + ", not a choice of channels", example
	}
	for _, w := range channelWords {
		if s == w.word {
			*c = w.channels
			return "", ""
		}
	}
	first, second, pair := strings.Cut(s, "+")
	if !pair {
		second = first
	}
	left, err1 := strconv.ParseUint(first, 10, 31)
	right, err2 := strconv.ParseUint(second, 10, 31)
	if err1 != nil || err2 != nil {
		return "is no choice of channels", example
	}
	*c = Channels{Left: int(left), Right: int(right)}
	return "", ""
}

// String returns the form that the file takes.
func (c Channels) String() string {
	for _, w := range channelWords {
		if c == w.channels {
			return w.word
		}
	}
	if c.Left == c.Right {
		return strconv.Itoa(c.Left)
	}
	return fmt.Sprintf("%d+%d", c.Left, c.Right)
}

// MarshalText returns String.
func (c Channels) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
