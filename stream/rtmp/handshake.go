package rtmp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

const (
	version       = 3
	handshakeSize = 1536
)

// handshake does the plain handshake of RTMP 1.0, 5.2. The signed one that
// Flash players used is asked for by no server that takes a publisher. S2 is
// not compared with C1: servers exist that answer with their own bytes.
//
//	C0 C1 ──►
//	      ◄── S0 S1 S2
//	C2    ──►
func handshake(rw io.ReadWriter) error {
	c := make([]byte, 1+handshakeSize)
	c[0] = version
	// Bytes 1–4 are our time, 5–8 are zero: no version of a player.
	if _, err := rand.Read(c[9:]); err != nil {
		return fmt.Errorf("rtmp handshake: %w", err)
	}
	if _, err := rw.Write(c); err != nil {
		return fmt.Errorf("rtmp handshake: %w", err)
	}
	s := make([]byte, 1+2*handshakeSize)
	if _, err := io.ReadFull(rw, s[:1]); err != nil {
		return fmt.Errorf("rtmp handshake: %w", noAnswer(err))
	}
	if s[0] != version {
		return fmt.Errorf("rtmp handshake: the far side does not speak RTMP (its first byte is %#02x)", s[0])
	}
	if _, err := io.ReadFull(rw, s[1:]); err != nil {
		return fmt.Errorf("rtmp handshake: %w", noAnswer(err))
	}
	if _, err := rw.Write(s[1 : 1+handshakeSize]); err != nil {
		return fmt.Errorf("rtmp handshake: %w", err)
	}
	return nil
}

// errHungUp is what io.EOF means to a person.
var errHungUp = errors.New("the server closed the connection")

func noAnswer(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errHungUp
	}
	return err
}
