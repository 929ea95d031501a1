//nolint:thelper // what runs in a bubble is a test: failures belong to their own lines
package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"encoderd.example/daemon/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func box() status.Box {
	return status.Box{
		State:   status.Degraded,
		Input:   status.Input{Signal: true},
		Sound:   status.Sound{Muted: true},
		Tally:   status.Tally{State: status.Program},
		Outputs: []status.Output{{State: status.Live}, {State: status.Backoff}, {State: status.Off}},
		Faults:  []status.Fault{{Code: status.OutputRetrying}, {Code: status.TooHot}},
	}
}

const boxLine = "STATUS state=degraded live=1/2 signal=yes muted=yes tally=program faults=output-retrying,too-hot"

func TestEveryLineGetsOneLine(t *testing.T) {
	const unknown = "ERR unknown command; send START, STOP, STATUS or HELP"
	for _, tt := range []struct {
		name, send string
		want       []string
		done       string // actions
	}{
		{"start", "START\r\n", []string{"OK START"}, "stream.start"},
		{"stop, in small letters and with spaces", " stop \n", []string{"OK STOP"}, "stream.stop"},
		{"status", "STATUS\r", []string{boxLine}, ""},
		{"help", "help\n", []string{"OK send START, STOP, STATUS or HELP"}, ""},
		{"several at once", "START\nSTATUS\nSTOP\n", []string{"OK START", boxLine, "OK STOP"}, "stream.start stream.stop"},
		{"empty lines are none", "\r\n\r\n\n  \nSTART\r\n", []string{"OK START"}, "stream.start"},
		{"an unknown word", "REBOOT\n", []string{unknown}, ""},
		{"two words", "START NOW\n", []string{unknown}, ""},
		{"noise", "\x00\xff\xfe\x80\n", []string{unknown}, ""},
		{"too long", strings.Repeat("START", 1000) + "\nSTART\n", []string{"ERR the line is too long; send START, STOP, STATUS or HELP", "OK START"}, "stream.start"},
		{"an echo of what it answers", "OK START\r\n" + unknown + "\r\n" + boxLine + strings.Repeat("x", 100) + "\r\nSTOP\n", []string{"OK STOP"}, "stream.stop"},
		{"a question that ends with a blank", "STATUS \n", []string{boxLine}, ""},
		{"words that only begin so", "OKAY START\nERR\n", []string{unknown, unknown}, ""},
		{"half a line is no line", "START", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var done []string
				s := &Server{
					Do:     func(_ context.Context, a string) error { done = append(done, a); return nil },
					Status: box,
				}
				got, err := talk(t, s, tt.send)
				if err != nil {
					t.Error(err)
				}
				if got != strings.Join(append(tt.want, ""), "\r\n") {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if acts := strings.Join(done, " "); acts != tt.done {
					t.Errorf("did %q, want %q", acts, tt.done)
				}
			})
		})
	}
}

// talk sends text to a server and returns all that it answers.
func talk(t *testing.T, s *Server, text string) (string, error) {
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ours) }()
	answers := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(theirs)
		answers <- string(b)
	}()
	if _, err := io.WriteString(theirs, text); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	cancel()
	err := <-ended
	return <-answers, err
}

func TestAnActionThatFailsIsToldInOneLineOfASCII(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Do: func(context.Context, string) error { return errors.New("no output is configured;\nadd “one”") }, Status: box}
		got, err := talk(t, s, "START\n")
		if want := "ERR no output is configured;?add ?one?\r\n"; err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	})
}

func TestNoAnswerIsAnswered(t *testing.T) {
	for _, word := range []string{"START", "STOP", "STATUS", "HELP", "REBOOT", strings.Repeat("x", 100)} {
		for _, err := range []error{nil, errors.New("no output")} {
			s := &Server{Do: func(context.Context, string) error { return err }, Status: box}
			if a := s.answer(t.Context(), word); !isAnswer(a) {
				t.Errorf("%q would be answered", a)
			}
		}
	}
}

func TestAPortThatVanishesEndsTheRun(t *testing.T) {
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- (&Server{Status: box}).Run(t.Context(), ours) }()
	_ = theirs.Close()
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("ended with %v", err)
	}
}

func TestStatusWithoutAnything(t *testing.T) {
	const want = "STATUS state=off live=0/0 signal=no muted=no tally=off faults=none"
	if got := Line(status.Box{State: status.Off, Tally: status.Tally{State: status.Off}}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("START\r\nSTOP\r\n"))
	f.Add([]byte("\x00\xff\n\n\r"))
	f.Add([]byte(strings.Repeat("x", 200) + "\nSTATUS\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := &Server{Do: func(context.Context, string) error { return nil }, Status: box}
		var l lines
		for _, b := range in {
			line, ok := l.next(b)
			if len(l.have) > maxLine+1 {
				t.Fatalf("%d bytes are kept", len(l.have))
			}
			if !ok {
				continue
			}
			a := s.answer(t.Context(), line)
			if a == "" || strings.Trim(a, " ") != a || strings.ContainsFunc(a, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%q is answered by %q", line, a)
			}
		}
	})
}
