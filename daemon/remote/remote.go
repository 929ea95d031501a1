// Package remote lets another machine start and stop the box over a serial
// line, in text that a person can type, too.
//
//	START    start all outputs
//	STOP     stop all outputs
//	STATUS   one line about the box
//	HELP     these words
//
// A line ends with CR, LF or both; case does not matter. Each gets one line,
// ended by CR and LF: "OK START", "ERR" and why, or "STATUS" and words as
// NAME=VALUE. What another box answers, or our own echo, gets no line: two that
// answer each other would never end. The page docs/serial-control.md is the reference.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"encoderd.example/daemon/status"
)

// maxLine is longer than any command.
const maxLine = 80

// A Server answers lines. Set all fields before Run.
type Server struct {
	// Do carries out an action of the daemon.
	Do func(ctx context.Context, action string) error
	// Status is asked for each STATUS.
	Status func() status.Box
}

// Run answers what comes from port until ctx ends, which is no error, or the
// port fails. It closes the port.
func (s *Server) Run(ctx context.Context, port io.ReadWriteCloser) (err error) {
	var closer sync.WaitGroup
	ended := make(chan struct{})
	var closed error
	closer.Go(func() {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		closed = port.Close()
	})
	defer func() {
		close(ended)
		closer.Wait()
		if ctx.Err() != nil {
			err = nil
		}
		err = errors.Join(err, closed)
	}()
	return s.serve(ctx, port)
}

func (s *Server) serve(ctx context.Context, port io.ReadWriter) error {
	var in lines
	buf := make([]byte, 64)
	for {
		n, err := port.Read(buf)
		for _, b := range buf[:n] {
			line, ok := in.next(b)
			if !ok || isAnswer(line) {
				continue
			}
			if _, err := io.WriteString(port, s.answer(ctx, line)+"\r\n"); err != nil {
				return fmt.Errorf("write to the remote: %w", err)
			}
		}
		if err != nil {
			return fmt.Errorf("read from the remote: %w", err)
		}
	}
}

// orders are the words that are actions.
var orders = map[string]string{"START": "stream.start", "STOP": "stream.stop"}

const help = "START, STOP, STATUS or HELP"

// isAnswer reports whether a line is what a box answers, ours or another one.
func isAnswer(line string) bool {
	word, rest, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
	return slices.Contains([]string{"OK", "ERR", "STATUS"}, word) && strings.TrimSpace(rest) != ""
}

// answer returns the one line for a line.
func (s *Server) answer(ctx context.Context, line string) string {
	word := strings.ToUpper(strings.TrimSpace(line))
	if action, ok := orders[word]; ok {
		if err := s.Do(ctx, action); err != nil {
			return "ERR " + printable(err.Error())
		}
		return "OK " + word
	}
	switch {
	case word == "STATUS":
		return Line(s.Status())
	case word == "HELP":
		return "OK send " + help
	case len(line) > maxLine:
		return "ERR the line is too long; send " + help
	default:
		return "ERR unknown command; send " + help
	}
}

// Line is the answer to STATUS: the state of the box, how many outputs are
// confirmed of how many that are on, signal, sound, tally, and the codes of the
// faults.
func Line(b status.Box) string {
	on, live := 0, 0
	for _, o := range b.Outputs {
		if o.State != status.Off {
			on++
		}
		if o.State == status.Live {
			live++
		}
	}
	faults := make([]string, len(b.Faults))
	for i, f := range b.Faults {
		faults[i] = string(f.Code)
	}
	return fmt.Sprintf("STATUS state=%s live=%d/%d signal=%s muted=%s tally=%s faults=%s",
		b.State, live, on, yes(b.Input.Signal), yes(b.Sound.Muted), b.Tally.State, orNone(faults))
}

func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func orNone(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ",")
}

// printable makes one line of ASCII of an error.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// lines finds lines in what comes. Empty ones are none; one that goes on and on
// is cut.
type lines struct{ have []byte }

func (l *lines) next(b byte) (line string, ok bool) {
	if b != '\r' && b != '\n' {
		if len(l.have) <= maxLine {
			l.have = append(l.have, b)
		}
		return "", false
	}
	line = string(l.have)
	l.have = l.have[:0]
	return line, strings.TrimSpace(line) != ""
}
