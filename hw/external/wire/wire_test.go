package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// all is one message of each type, filled with a pattern.
func all(tb testing.TB) map[Type]Message {
	tb.Helper()
	list := map[Type]Message{}
	for kind, m := range Messages() {
		body := make([]byte, binary.Size(m))
		for i := range body {
			body[i] = byte(i*7 + int(kind))
		}
		var err error
		if list[kind], err = shapes[kind].decode(body); err != nil {
			tb.Fatal(err)
		}
	}
	return list
}

func TestEveryMessageSurvivesTheWay(t *testing.T) {
	for kind, m := range all(t) {
		datagram := Append([]byte("before"), m)[len("before"):]
		if got := Type(binary.LittleEndian.Uint32(datagram)); got != kind || m.kind() != kind {
			t.Errorf("%s has type %d in the datagram, %d in Go, %d in the table", Name(m), got, m.kind(), kind)
		}
		got, err := Decode(datagram)
		if err != nil || got != m {
			t.Errorf("%s: %v", Name(m), err)
		}
		for _, n := range []int{0, 3, 8, len(datagram) - 1} {
			if _, err := Decode(datagram[:n]); err == nil && n < len(datagram) {
				t.Errorf("%s is accepted with %d of %d bytes", Name(m), n, len(datagram))
			}
		}
		if _, err := Decode(append(datagram, 0)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s with a byte too many: %v", Name(m), err)
		}
	}
}

// Programs of before the field know nothing of a parent.
func TestAParentMayBeLeftOut(t *testing.T) {
	for _, m := range []Message{HelloCamera{Version: 1, Modes: 7}, HelloEncoder{Version: 1, Formats: 7}} {
		b := Append(nil, m)
		b = b[:len(b)-256]
		binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
		if got, err := Decode(b); err != nil || got != m {
			t.Errorf("%s without a parent: %+v, %v", Name(m), got, err)
		}
		binary.LittleEndian.PutUint32(b[4:], uint32(len(b)+1))
		if _, err := Decode(append(b, 'x')); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s with a part of a parent: %v", Name(m), err)
		}
	}
}

// FuzzDecode checks that whatever is accepted is sent again as it came, but
// for the fields that are kept free.
func FuzzDecode(f *testing.F) {
	for _, m := range all(f) {
		f.Add(Append(nil, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatalf("%v is no protocol error", err)
			}
			return
		}
		again := Append(nil, m)
		parent := 0 // bytes that were left out
		if kind := m.kind(); kind == TypeHelloCamera || kind == TypeHelloEncoder {
			parent = len(Parent{})
		}
		if missing := len(again) - len(b); missing != 0 && missing != parent || len(b) > MaxMessage {
			t.Fatalf("%d bytes become %d", len(b), len(again))
		}
		if other, err := Decode(again); err != nil || other != m {
			t.Fatalf("%+v becomes %+v: %v", m, other, err)
		}
	})
}

// goTypes are the names that the document uses.
var goTypes = map[reflect.Kind]string{reflect.Uint32: "u32", reflect.Uint64: "u64", reflect.Int64: "i64", reflect.Uint8: "u8"}

// rows describes a structure as the document does: offset, type, field.
func rows(s reflect.Type, offset int) (list []string, end int) {
	for f := range s.Fields() {
		name, count := f.Type, ""
		if f.Type.Kind() == reflect.Array {
			name, count = f.Type.Elem(), fmt.Sprintf("[%d]", f.Type.Len())
		}
		typ := goTypes[name.Kind()]
		if name.Kind() == reflect.Struct {
			typ = name.Name()
		}
		field := f.Name
		if field == "_" {
			field = "reserved"
		}
		list = append(list, fmt.Sprintf("| %d | %s%s | %s |", offset, typ, count, field))
		offset += binary.Size(reflect.Zero(f.Type).Interface())
	}
	return list, offset
}

func TestDocumentShowsEveryOffset(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/external-devices.md")
	if err != nil {
		t.Fatal(err)
	}
	check := func(heading string, s reflect.Type, offset int) {
		t.Helper()
		want, end := rows(s, offset)
		heading = fmt.Sprintf("\n### %s, %d bytes\n", heading, end)
		_, section, found := strings.Cut(string(doc), heading)
		if !found {
			t.Errorf("no heading %q", strings.TrimSpace(heading))
			return
		}
		section, _, _ = strings.Cut(section, "\n### ")
		var got []string
		for line := range strings.Lines(section) {
			if cells := strings.SplitN(line, "|", 5); len(cells) == 5 && strings.Trim(cells[1], " 0123456789") == "" {
				got = append(got, strings.Join(cells[:4], "|")+"|")
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s has the rows\n%s\nwant\n%s", strings.TrimSpace(heading), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for kind, m := range all(t) {
		check(fmt.Sprintf("%d %s", kind, reflect.TypeOf(m).Name()), reflect.TypeOf(m), headerSize)
	}
	for _, part := range []any{Mode{}, Layout{}, Plane{}, Format{}} {
		check(reflect.TypeOf(part).Name(), reflect.TypeOf(part), 0)
	}
}

// C compilers must not have to pack anything.
func TestFieldsAreAligned(t *testing.T) {
	for _, m := range all(t) {
		s := reflect.TypeOf(m)
		offset := headerSize
		for field := range s.Fields() {
			f := field.Type
			if (f.Kind() == reflect.Uint64 || f.Kind() == reflect.Int64) && offset%8 != 0 {
				t.Errorf("%s.%s stands at %d", s.Name(), field.Name, offset)
			}
			offset += binary.Size(reflect.Zero(f).Interface())
		}
		if offset%8 != 0 {
			t.Errorf("%s has %d bytes, which C rounds up", s.Name(), offset)
		}
	}
}

// pair returns a Conn and the other end as a bare descriptor.
func pair(t *testing.T) (*Conn, int) {
	t.Helper()
	c, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = f.Close()
	})
	return c, int(f.Fd())
}

func sendRaw(t *testing.T, fd int, b []byte, rights ...int) {
	t.Helper()
	var oob []byte
	if len(rights) > 0 {
		oob = unix.UnixRights(rights...)
	}
	if err := unix.Sendmsg(fd, b, oob, nil, 0); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestDescriptorsThatNobodyAskedForAreClosed(t *testing.T) {
	c, other := pair(t)
	before := open(t)
	frame, attach := Append(nil, Frame{}), Append(nil, Attach{})
	for name, send := range map[string]func(){
		"with a frame":     func() { sendRaw(t, other, frame, other) },
		"four at once":     func() { sendRaw(t, other, attach, other, other, other, other) },
		"with garbage":     func() { sendRaw(t, other, []byte("garbage!"), other, other) },
		"more than fit":    func() { sendRaw(t, other, attach, make120(other)...) },
		"with a long text": func() { sendRaw(t, other, make([]byte, 2*MaxMessage), other) },
	} {
		send()
		if m, fds, err := c.Receive(); !errors.Is(err, ErrProtocol) || fds != nil {
			t.Errorf("%s: %v, %v, %v", name, m, fds, err)
		}
		if now := open(t); now != before {
			t.Errorf("%s: %d descriptors before, %d after", name, before, now)
		}
	}
	sendRaw(t, other, attach, other, other, other)
	m, fds, err := c.Receive()
	if _, ok := m.(Attach); !ok || len(fds) != 3 || err != nil {
		t.Errorf("%v, %v, %v", m, fds, err)
	}
	for _, fd := range fds {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d would be inherited: %v", fd, err)
		}
	}
	CloseAll(fds)
	if now := open(t); now != before {
		t.Errorf("%d descriptors before, %d after", before, now)
	}
}

func make120(fd int) []int {
	fds := make([]int, 120)
	for i := range fds {
		fds[i] = fd
	}
	return fds
}

func TestSendNeverWaits(t *testing.T) {
	c, _ := pair(t)
	var err error
	n := 0
	for ; err == nil && n < 1_000_000; n++ {
		err = c.Send(Release{Index: uint32(n)})
	}
	if !errors.Is(err, ErrFull) || n < 4*MaxBuffers {
		t.Errorf("after %d messages: %v", n, err)
	}
}

func TestReceiveEnds(t *testing.T) {
	c, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("at the deadline: %v", err)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("when the other side has closed: %v", err)
	}
	if err := c.Send(Stop{}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("send when the other side has closed: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestOnlyASocketWillDo(t *testing.T) {
	before := open(t)
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewConn(fd); err == nil || !strings.Contains(err.Error(), "started by encoderd") {
		t.Errorf("got %v", err)
	}
	if now := open(t); now != before {
		t.Errorf("%d descriptors before, %d after", before, now)
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                  "plain",
		" in the middle":         "in the middle",
		"two\nlines\x1b[2J":      "two lines [2J",
		"not \xff UTF-8":         "not   UTF-8",
		"Überlänge, abgeschnitt": "Überlänge, a",
		"1234567890123ü":         "1234567890123",
		"":                       "",
	} {
		var field [15]byte
		PutText(field[:], "something before")
		PutText(field[:], text)
		if got := Text(field[:]); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	full := []byte("no zero at end!")
	if got := Text(full); got != string(full) {
		t.Errorf("a full field becomes %q", got)
	}
}

func TestModesAndLayoutsSurviveTheWay(t *testing.T) {
	m := hw.Mode{Pixel: hw.NV12, Width: 1920, Height: 1080, FPS: hw.Rate{Num: 30000, Den: 1001}, FullRange: true}
	if got := ModeOf(m).Mode(); got != m {
		t.Errorf("%+v becomes %+v", m, got)
	}
	l := hw.Layout{
		Pixel: hw.I420, Width: 3, Height: 5,
		Planes: [3]hw.PlaneLayout{{Buffer: 0, Offset: 1, Stride: 2}, {Buffer: 1, Offset: 3, Stride: 4}, {Buffer: 2, Offset: 5, Stride: 6}},
		Sizes:  [3]int{7, 8, 9},
	}
	if got := LayoutOf(l).Layout(); got != l {
		t.Errorf("%+v becomes %+v", l, got)
	}
}
