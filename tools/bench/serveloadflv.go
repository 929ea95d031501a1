package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// A flow of FLV: pictures and their times.
type flowFLV struct {
	begun bool
	last  uint32 // ms
}

// see takes a whole video tag.
func (w *flowFLV) see(s *seat, ms uint32, body []byte) {
	if len(body) < 6 || body[1] != 1 { // a header
		return
	}
	missing := uint64(0)
	const period = 1000 / showFPS
	if gap := ms - w.last; w.begun && gap > period*3/2 && gap < 1<<31 {
		missing = uint64((gap+period/2)/period) - 1
	}
	w.begun, w.last = true, ms
	s.got(missing)
	s.picture(body[0]>>4 == 1, stamped(body[:min(len(body), 1024)]))
}

// readFLV reads FLV as one endless answer.
func (c *crowd) readFLV(ctx context.Context, s *seat) error {
	u, err := url.Parse(c.job.URL)
	if err != nil {
		return err
	}
	conn, err := c.dial(ctx, u.Host)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 1<<16), nil)
	if err != nil {
		return fmt.Errorf("hear: %w", err)
	}
	defer func() { _ = answer.Body.Close() }() // it was only read
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the server says %s: %w", answer.Status, errServer)
	}
	r := bufio.NewReaderSize(answer.Body, 1<<12)
	if _, err := r.Discard(13); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	var w flowFLV
	for s.looks || !s.began() {
		if err := w.next(s, r); err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
	return drop(conn, s.took)
}

var errServer = errors.New("the server refuses")

// next reads one tag.
func (w *flowFLV) next(s *seat, r io.Reader) error {
	var head [11]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	body := make([]byte, number24(head[1:])+4)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	_ = s.took(len(head) + len(body))
	if head[0] == tagVideo {
		w.see(s, number24(head[4:])|uint32(head[7])<<24, body[:len(body)-4])
	}
	return nil
}
