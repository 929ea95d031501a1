// Package vmix asks vMix by its TCP API, port 8099, which inputs are on program
// and preview.
//
//	SUBSCRIBE TALLY ─► SUBSCRIBE OK TALLY, and TALLY OK 0121… at every change
//	TALLY           ─► TALLY OK 0121…         every third of the timeout
//	XML             ─► XML 1234, 1234 bytes   before it, if names are followed
//
// In the list of TALLY, 0 is off, 1 program, 2 preview, one digit an input.
// vMix is asked one thing at a time, as it demands.
package vmix

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/daemon/tally"
)

// DefaultPort is that of vMix's TCP API.
const DefaultPort = 8099

const (
	maxInputs = 1000
	maxLine   = 4096
	maxXML    = 8 << 20
)

// An Input is what a source of vMix follows: its number, or with Number 0 its
// title or key. Of inputs of one title any counts.
type Input struct {
	Number int // from 1
	Name   string
}

// ParseInput reads an input as config spells it: a number, or a title or key,
// which name: may stand before, should it be a number, too.
func ParseInput(text string) (Input, error) {
	name, _ := strings.CutPrefix(text, "name:")
	if name == "" {
		return Input{}, fmt.Errorf("%q names no input of vMix", text)
	}
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > maxInputs {
			return Input{}, fmt.Errorf("%d is not an input of vMix, 1 to %d", n, maxInputs)
		}
		return Input{Number: n}, nil
	}
	return Input{Name: name}, nil
}

// A Link is a connection to one vMix.
type Link struct {
	Open tally.Opener
	// Sources maps their names to what they follow.
	Sources map[string]Input
	// Timeout is how long vMix may take to answer; it is asked three times as
	// often.
	Timeout time.Duration
}

// Run implements [tally.Link].
func (l Link) Run(ctx context.Context, d tally.Desk) error {
	conn, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	parent := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	var asker sync.WaitGroup
	defer asker.Wait()
	defer cancel(nil)
	context.AfterFunc(ctx, func() { _ = conn.Close() }) // which ends reading and writing
	d.Up()
	s := newSession(l, d)
	asker.Go(func() { s.ask(ctx, conn, cancel) })
	err = s.hear(bufio.NewReaderSize(conn, maxLine))
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return tally.Ended(parent, err)
}

// A session is one connection.
type session struct {
	link    Link
	desk    tally.Desk
	answers chan struct{}
	look    chan struct{} // inputs may have changed their places

	mu      sync.Mutex
	waiting string // first word of the answer that is due

	// Of the reader alone:
	list   string           // digits of the last TALLY
	titles map[string][]int // input numbers by title and key; nil: not known
	titled int              // length of the list that the titles are of
}

func newSession(l Link, d tally.Desk) *session {
	return &session{link: l, desk: d, answers: make(chan struct{}, 1), look: make(chan struct{}, 1)}
}

// names reports whether any source is followed by name.
func (s *session) names() bool {
	for _, in := range s.link.Sources {
		if in.Number == 0 {
			return true
		}
	}
	return false
}

// ask asks until ctx ends; it ends it when no answer comes.
func (s *session) ask(ctx context.Context, w io.Writer, end context.CancelCauseFunc) {
	again := time.NewTicker(max(s.link.Timeout/3, time.Millisecond))
	defer again.Stop()
	round := []string{"TALLY"}
	if s.names() {
		round = []string{"XML", "TALLY"}
	}
	for next := append([]string{"SUBSCRIBE TALLY"}, round...); ; next = round {
		for _, command := range next {
			if err := s.request(ctx, w, command, end); err != nil {
				end(err)
				return
			}
		}
		select {
		case <-again.C:
		case <-s.look:
		case <-ctx.Done():
			return
		}
	}
}

// request asks one thing and waits for its answer. When that takes too long, it
// ends the session, which closes the connection.
func (s *session) request(ctx context.Context, w io.Writer, command string, end context.CancelCauseFunc) error {
	late := time.AfterFunc(s.link.Timeout, func() {
		end(fmt.Errorf("vMix has not answered %s for %v", command, s.link.Timeout))
	})
	defer late.Stop()
	s.mu.Lock()
	s.waiting, _, _ = strings.Cut(command, " ")
	s.mu.Unlock()
	if _, err := io.WriteString(w, command+"\r\n"); err != nil {
		return err
	}
	select {
	case <-s.answers:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// answered lets the asker go on if word is what it waits for.
func (s *session) answered(word string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == "" {
		return
	}
	if word == s.waiting || word == "TALLY" && s.waiting == "SUBSCRIBE" {
		s.waiting = ""
		s.answers <- struct{}{} // has room: nobody else is waited for
	}
}

// hear reads lines, and what follows some, until the connection ends.
func (s *session) hear(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("a line is longer than %d bytes: is it vMix?", maxLine)
		}
		if err != nil {
			return err
		}
		text := string(bytes.TrimRight(line, "\r\n"))
		if err := s.line(text, r); err != nil {
			return err
		}
	}
}

// line takes one line, and from r what it announces.
func (s *session) line(text string, r io.Reader) error {
	word, rest, _ := strings.Cut(text, " ")
	result, said, _ := strings.Cut(rest, " ")
	switch {
	case text == "":
		return nil
	case word == "XML" && result != "ER":
		if err := s.xml(result, r); err != nil {
			return err
		}
	case word == "TALLY" && result == "OK":
		s.tally(said)
	case result == "ER":
		err := fmt.Errorf("vMix refuses %s: %s", word, said)
		s.desk.Bad("", err)
		if word == "TALLY" {
			s.lost(err)
		}
	case result != "OK":
		s.desk.Bad("", errors.New("the line is no answer of vMix"))
		return nil
	}
	s.desk.Alive("")
	s.answered(word)
	return nil
}

// tally takes the list of digits.
func (s *session) tally(list string) {
	list = strings.TrimSpace(list)
	if len(list) > maxInputs || strings.Trim(list, "012") != "" {
		s.desk.Bad("", errBadList)
		s.lost(errBadList)
		return
	}
	changed := list != s.list
	s.list = list
	if s.titles != nil && s.titled < 0 {
		s.titled = len(list)
	}
	if s.titled != len(list) {
		s.titles = nil // inputs came or went: who is who has to be asked
	}
	s.report()
	if changed && s.names() {
		s.lookAgain()
	}
}

var errBadList = errors.New("the list of TALLY has something else than 0, 1 and 2, or too much")

// lost is for a vMix that answers but does not tell the tally: what it said
// before may have changed.
func (s *session) lost(why error) {
	for name := range s.link.Sources {
		s.desk.Missing(name, why)
	}
}

func (s *session) lookAgain() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// xml reads the state of vMix, of a size that must be right, for the titles.
func (s *session) xml(size string, r io.Reader) error {
	n, err := strconv.ParseUint(size, 10, 32)
	if err != nil || n > maxXML {
		return fmt.Errorf("XML of %q bytes is no answer of vMix", size)
	}
	body := &io.LimitedReader{R: r, N: int64(n)}
	titles, err := parseTitles(body)
	if _, e := io.Copy(io.Discard, body); e != nil {
		return e
	}
	if body.N > 0 {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		s.desk.Bad("", err)
		return nil
	}
	s.titles, s.titled = titles, -1 // the TALLY that is asked next tells
	return nil
}

// parseTitles finds the numbers of inputs by title and key:
// vmix, inputs, input with number, title and key.
func parseTitles(r io.Reader) (map[string][]int, error) {
	titles := map[string][]int{}
	dec := xml.NewDecoder(r)
	for depth, inside := 0, false; ; {
		token, err := dec.RawToken() // keeps no stack, however deep it is
		if errors.Is(err, io.EOF) {
			return titles, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the XML of vMix: %w", err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth++; depth == 2 {
				inside = t.Name.Local == "inputs"
			}
			if depth == 3 && inside && t.Name.Local == "input" && len(titles) < 2*maxInputs {
				addTitles(titles, t.Attr)
			}
		case xml.EndElement:
			depth--
		}
	}
}

func addTitles(titles map[string][]int, attrs []xml.Attr) {
	value := map[string]string{}
	for _, a := range attrs {
		value[a.Name.Local] = a.Value
	}
	n, err := strconv.Atoi(value["number"])
	if err != nil || n < 1 || n > maxInputs {
		return
	}
	for _, name := range []string{value["title"], value["key"]} {
		if name != "" && !slices.Contains(titles[name], n) {
			titles[name] = append(titles[name], n)
		}
	}
}

// report tells the desk what the list says of every source.
func (s *session) report() {
	for name, in := range s.link.Sources {
		numbers := []int{in.Number}
		if in.Number == 0 {
			if s.titles == nil {
				s.desk.Missing(name, errNoTitles)
				continue
			}
			numbers = s.titles[in.Name]
		}
		state, err := s.state(numbers)
		if in.Number == 0 && len(numbers) == 0 {
			err = fmt.Errorf("vMix has no input %s", in.Name)
		}
		if err != nil {
			s.desk.Missing(name, err)
			continue
		}
		s.desk.Says(name, "", state)
	}
}

var errNoTitles = errors.New("vMix has not told the names of its inputs yet")

// state is what the list says of inputs together: program wins over preview.
func (s *session) state(numbers []int) (string, error) {
	state := status.Off
	for _, n := range numbers {
		if n > len(s.list) {
			return "", fmt.Errorf("vMix has no input %d, only %d", n, len(s.list))
		}
		switch s.list[n-1] {
		case '1':
			return status.Program, nil
		case '2':
			state = status.Preview
		}
	}
	return state, nil
}
