// Package amf0 writes and reads AMF0, the coding of values in FLV script tags
// and RTMP commands (Action Message Format, AMF 0, Adobe 2007).
//
// Writing appends to a slice of the caller. Reading copies, so that nothing
// points into the caller's buffer, and is bounded: [Decode] never takes more
// memory than a small multiple of its input, nor more than [MaxDepth] levels of
// stack.
package amf0

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// A Value is one of [Number], [Bool], [String], [Null], [Object], [Array] and
// [List].
type Value interface {
	append(b []byte) []byte
}

// Number is a double.
type Number float64

// Bool is a boolean.
type Bool bool

// String is UTF-8 text; above 65535 bytes it is written as a long string.
type String string

// Null stands for null, and on reading for undefined, unsupported and
// references, which carry no value that anybody here needs.
type Null struct{}

// Object is an anonymous object, in the order of writing. Names are at most
// 65535 bytes; longer ones are cut.
type Object []Property

// Array is an ECMA array: an object by another marker.
type Array []Property

// List is a strict array.
type List []Value

// Property is one named value of an [Object] or [Array].
type Property struct {
	Name  string
	Value Value
}

// Markers (AMF0, section 2.1).
const (
	markNumber      = 0x00
	markBool        = 0x01
	markString      = 0x02
	markObject      = 0x03
	markNull        = 0x05
	markUndefined   = 0x06
	markReference   = 0x07
	markArray       = 0x08
	markEnd         = 0x09
	markList        = 0x0a
	markDate        = 0x0b
	markLongString  = 0x0c
	markUnsupported = 0x0d
	markXML         = 0x0f
	markTyped       = 0x10
)

// Append appends the coding of values to b.
func Append(b []byte, values ...Value) []byte {
	for _, v := range values {
		b = v.append(b)
	}
	return b
}

func (v Number) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(b, markNumber), math.Float64bits(float64(v)))
}

func (v Bool) append(b []byte) []byte {
	if v {
		return append(b, markBool, 1)
	}
	return append(b, markBool, 0)
}

func (v String) append(b []byte) []byte {
	if len(v) > math.MaxUint16 {
		b = binary.BigEndian.AppendUint32(append(b, markLongString), uint32(len(v)))
		return append(b, v...)
	}
	return appendName(append(b, markString), string(v))
}

func (Null) append(b []byte) []byte { return append(b, markNull) }

func (v Object) append(b []byte) []byte {
	return appendProperties(append(b, markObject), v)
}

func (v Array) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, markArray), uint32(len(v)))
	return appendProperties(b, v)
}

func (v List) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, markList), uint32(len(v)))
	return Append(b, v...)
}

func appendProperties(b []byte, properties []Property) []byte {
	for _, p := range properties {
		b = p.Value.append(appendName(b, p.Name))
	}
	return append(b, 0, 0, markEnd)
}

func appendName(b []byte, name string) []byte {
	name = name[:min(len(name), math.MaxUint16)]
	return append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
}

// Text returns the string value called name, or "".
func (v Object) Text(name string) string {
	for _, p := range v {
		if text, ok := p.Value.(String); ok && p.Name == name {
			return string(text)
		}
	}
	return ""
}

// Get returns the first value called name, or nil.
func (v Object) Get(name string) Value {
	for _, p := range v {
		if p.Name == name {
			return p.Value
		}
	}
	return nil
}

// MaxDepth is how deep values may be nested on reading.
const MaxDepth = 8

// ErrFormat says that bytes are not AMF0 as this package reads it.
var ErrFormat = errors.New("bad AMF0")

// Decode reads all values of data. Arrays come back as [Object] too: servers
// use the two markers for the same thing. Dates become a [Number] of
// milliseconds, typed objects lose their class name. What was read before an
// error is returned with it.
func Decode(data []byte) ([]Value, error) {
	r := &reader{rest: data}
	var values []Value
	for len(r.rest) > 0 {
		v := r.value(MaxDepth)
		if r.err != nil {
			return values, r.err
		}
		values = append(values, v)
	}
	return values, nil
}

// reader keeps the first error; after it, every read yields zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrFormat, what)
	}
	r.rest = nil
}

func (r *reader) take(n uint64) []byte {
	if r.err != nil || n > uint64(len(r.rest)) {
		r.fail("cut short")
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) uint(size uint64) (v uint64) {
	for _, c := range r.take(size) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *reader) value(depth int) Value {
	if depth == 0 {
		r.fail("nested too deeply")
		return nil
	}
	switch mark := r.uint(1); mark {
	case markNumber:
		return Number(math.Float64frombits(r.uint(8)))
	case markBool:
		return Bool(r.uint(1) != 0)
	case markString:
		return String(r.take(r.uint(2)))
	case markLongString, markXML:
		return String(r.take(r.uint(4)))
	case markNull, markUndefined, markUnsupported:
		return Null{}
	case markReference:
		r.take(2)
		return Null{}
	case markDate:
		ms := math.Float64frombits(r.uint(8))
		r.take(2) // time zone, reserved
		return Number(ms)
	case markTyped:
		r.take(r.uint(2))
		return r.object(depth)
	case markObject:
		return r.object(depth)
	case markArray:
		r.take(4) // a hint; the end marker counts
		return r.object(depth)
	case markList:
		return r.list(depth)
	default:
		r.fail(fmt.Sprintf("unknown marker 0x%02x", mark))
		return nil
	}
}

func (r *reader) object(depth int) Object {
	var o Object
	for r.err == nil {
		name := string(r.take(r.uint(2)))
		if name == "" && len(r.rest) > 0 && r.rest[0] == markEnd {
			r.take(1)
			return o
		}
		v := r.value(depth - 1)
		if r.err == nil {
			o = append(o, Property{name, v})
		}
	}
	return nil
}

func (r *reader) list(depth int) List {
	n := r.uint(4)
	if n > uint64(len(r.rest)) { // each value has a marker at least
		r.fail("cut short")
		return nil
	}
	list := make(List, 0, min(n, 64))
	for range n {
		v := r.value(depth - 1)
		if r.err != nil {
			return nil
		}
		list = append(list, v)
	}
	return list
}
