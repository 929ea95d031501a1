package external

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"encoderd.example/hw"
	"encoderd.example/hw/external/wire"
)

func compile(t *testing.T, output, source string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Ic", "-o", output, source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
}

func TestACameraInCIsACamera(t *testing.T) {
	noLeaks(t)
	f := install(t)
	compile(t, filepath.Join(f.Dir, "grey"), "c/camera.c")
	c := findCamera(t, f)
	if c.Name() != "Grey in C" {
		t.Errorf("name %q", c.Name())
	}
	s, err := c.Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(20) {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if f.Seq != i || f.Planes[0].Data[100] != byte(i) || f.Planes[1].Data[0] != 128 {
			t.Errorf("picture %d: number %d, luma %d, chroma %d", i, f.Seq, f.Planes[0].Data[100], f.Planes[1].Data[0])
		}
		f.Release()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// snake turns RateNum to rate_num and GOP to gop.
func snake(name string) string {
	var out strings.Builder
	letters := []rune(name)
	for i, r := range letters {
		begins := i > 0 && unicode.IsUpper(r) && (unicode.IsLower(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1]))
		if begins {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}

// The compiler says whether C and Go see the same fields at the same places.
func TestTheCHeaderSaysWhatGoSays(t *testing.T) {
	var text strings.Builder
	text.WriteString("#include <stddef.h>\n#include \"encoderd_device.h\"\n")
	number := func(name string, want int) {
		fmt.Fprintf(&text, "_Static_assert(%s == %d, \"%s\");\n", name, want, name)
	}
	structure := func(v any, begin int) {
		s := reflect.TypeOf(v)
		name, offset := "struct encoderd_"+snake(s.Name()), begin
		for field := range s.Fields() {
			if field.Name != "_" {
				number(fmt.Sprintf("offsetof(%s, %s)", name, snake(field.Name)), offset)
			}
			offset += int(field.Type.Size())
		}
		number("sizeof("+name+")", offset)
	}
	for _, part := range []any{wire.Mode{}, wire.Layout{}, wire.Plane{}, wire.Format{}} {
		structure(part, 0)
	}
	for kind, m := range wire.Messages() {
		structure(m, 8)
		number("ENCODERD_"+strings.ToUpper(snake(reflect.TypeOf(m).Name())), int(kind))
	}
	for name, want := range map[string]int{
		"VERSION": wire.Version, "FD": wire.FD, "MAX_MESSAGE": wire.MaxMessage, "MAX_BUFFERS": wire.MaxBuffers,
		"MAX_MODES": wire.MaxModes, "MAX_FORMATS": wire.MaxFormats,
		"FAILED": int(wire.Failed), "GONE": int(wire.Gone), "BUSY": int(wire.Busy), "NO_SIGNAL": int(wire.NoSignal),
		"UNSUPPORTED": int(wire.Unsupported), "MISSING": int(wire.Missing),
		"MODE_FULL_RANGE": wire.FullRange, "HELLO_SIGNAL_INPUT": wire.SignalInput, "HELLO_SIGNAL_THERE": wire.SignalThere,
		"HELLO_READS_SHARED": wire.ReadsShared, "HELLO_READS_DMABUF": wire.ReadsDMABuf, "HELLO_ALLOCATES": wire.Allocates,
		"CODEC_H264": wire.CodecH264, "FORMAT_ANY_STRIDE": wire.AnyStride, "FORMAT_ANY_PLACE": wire.AnyPlace,
		"OPENED_EXPORTS": wire.Exports, "OPENED_IMPORTS": wire.Imports, "BUFFERS_DMABUF": wire.DMABuf, "ATTACH_DMABUF": wire.DMABuf,
		"START_USE_SENT": wire.UseSent, "FRAME_DAMAGED": wire.Damaged, "SUBMIT_KEY_FRAME": wire.KeyFrame,
	} {
		number("ENCODERD_"+name, want)
	}
	text.WriteString("int main(void) { return 0; }\n")
	source := filepath.Join(t.TempDir(), "check.c")
	if err := os.WriteFile(source, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	compile(t, source+".out", source)
}
