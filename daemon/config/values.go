package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A setter is a value that reads itself from a decoded TOML value. It returns
// what is wrong and what to write instead, or two empty strings. It never
// repeats the value: that could be a secret in the wrong place.
type setter interface {
	set(v any) (text, do string)
}

// BitRate is in bit/s. In the file it is a number, or text with a decimal
// k, M or G: "800k", "6M", "2.5M".
type BitRate int //nolint:recvcheck // reads itself through a pointer, prints as a value

func (b *BitRate) set(v any) (text, do string) {
	const example = `write bit/s, for example "6M", "800k" or 2500000`
	switch v := v.(type) {
	case int64:
		*b = BitRate(clampInt(v))
	case string:
		n, ok := parseBitRate(v)
		if !ok {
			return "is not a bit rate", example
		}
		*b = n
	default:
		return "is " + kind(v) + ", not a bit rate", example
	}
	if *b <= 0 { // zero would mean "not given"
		return "must be above zero", example
	}
	return "", ""
}

func parseBitRate(s string) (BitRate, bool) {
	unit := 1.0
	digits := strings.TrimRight(s, "kMG")
	switch s[len(digits):] {
	case "":
	case "k":
		unit = 1e3
	case "M":
		unit = 1e6
	case "G":
		unit = 1e9
	default:
		return 0, false
	}
	if strings.Trim(digits, "0123456789.") != "" {
		return 0, false // no signs, exponents or "inf"
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n*unit > math.MaxInt32 {
		return 0, false
	}
	return BitRate(math.Round(n * unit)), true
}

// String returns the short form that the file takes: "6M", "800k", "2500001".
func (b BitRate) String() string {
	switch {
	case b != 0 && b%1_000_000 == 0:
		return strconv.Itoa(int(b)/1_000_000) + "M"
	case b != 0 && b%1_000 == 0:
		return strconv.Itoa(int(b)/1_000) + "k"
	default:
		return strconv.Itoa(int(b))
	}
}

// MarshalText returns String.
func (b BitRate) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// Span is a duration; in the file it is text such as "2s" or "-40ms".
type Span time.Duration //nolint:recvcheck // reads itself through a pointer, prints as a value

func (s *Span) set(v any) (text, do string) {
	const example = `write a number and a unit, for example "2s" or "500ms"`
	str, ok := v.(string)
	if !ok {
		return "is " + kind(v) + ", not a duration", example
	}
	d, err := time.ParseDuration(str)
	if err != nil {
		return "is not a duration", example
	}
	*s = Span(d)
	return "", ""
}

// Duration returns s as the standard library has it.
func (s Span) Duration() time.Duration { return time.Duration(s) }

// String returns the form that the file takes.
func (s Span) String() string { return time.Duration(s).String() }

// MarshalText returns String.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Rate is pictures per second as a fraction; in the file it is a number, or
// text such as "30000/1001". The customary decimals 23.976, 29.97, 59.94 and
// 119.88 mean the exact NTSC fractions.
type Rate struct{ Num, Den int } //nolint:recvcheck // reads itself through a pointer, prints as a value

func (r *Rate) set(v any) (text, do string) {
	const example = `write pictures per second, for example 30, 29.97 or "30000/1001"`
	switch v := v.(type) {
	case int64:
		*r = Rate{clampInt(v), 1}
		return "", ""
	case float64:
		*r = decimalRate(v)
		return "", ""
	case string:
		rate, ok := parseRate(v)
		if !ok {
			return "is not a frame rate", example
		}
		*r = rate
		return "", ""
	default:
		return "is " + kind(v) + ", not a frame rate", example
	}
}

func parseRate(s string) (Rate, bool) {
	num, den, fraction := strings.Cut(s, "/")
	if !fraction {
		f, err := strconv.ParseFloat(s, 64)
		return decimalRate(f), err == nil
	}
	n, err1 := strconv.ParseUint(num, 10, 31)
	d, err2 := strconv.ParseUint(den, 10, 31)
	return Rate{int(n), int(d)}, err1 == nil && err2 == nil && d > 0
}

// decimalRate keeps three decimals. What no picture rate can be comes out as
// zero or huge, for the validator to refuse.
func decimalRate(f float64) Rate {
	if math.IsNaN(f) || math.Abs(f) > 1e6 {
		return Rate{}
	}
	for _, whole := range []int{24, 30, 60, 120} {
		if ntsc := float64(whole) * 1000 / 1001; math.Abs(f-ntsc) < 0.005 {
			return Rate{whole * 1000, 1001}
		}
	}
	if f == math.Trunc(f) {
		return Rate{int(f), 1}
	}
	return Rate{int(math.Round(f * 1000)), 1000}
}

// Float returns r in Hz, or zero for a zero Rate.
func (r Rate) Float() float64 {
	if r.Den == 0 {
		return 0
	}
	return float64(r.Num) / float64(r.Den)
}

// String returns "30" or "30000/1001".
func (r Rate) String() string {
	if r.Den == 1 {
		return strconv.Itoa(r.Num)
	}
	return fmt.Sprintf("%d/%d", r.Num, r.Den)
}

// MarshalText returns String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// MarshalTOML writes a whole number where it can.
func (r Rate) MarshalTOML() ([]byte, error) {
	if r.Den == 1 {
		return []byte(r.String()), nil
	}
	return strconv.AppendQuote(nil, r.String()), nil
}

// clampInt keeps n's sign and its being out of every range on 32-bit boxes.
func clampInt(n int64) int { return int(min(max(n, math.MinInt32), math.MaxInt32)) }

// kind names the TOML type of a decoded value.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case int64:
		return "a whole number"
	case float64:
		return "a decimal number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}
