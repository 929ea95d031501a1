package webrtc

import (
	"net"

	"encoderd.example/stream"
)

// lines is a listener whose connections keep their places from the first word
// that they are sent: only a visitor's is answered.
type lines struct{ net.Listener }

func (l lines) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &line{nc, stream.PlaceOf(nc)}, nil
}

type line struct {
	net.Conn
	place *stream.Place
}

func (l *line) Write(b []byte) (int, error) {
	l.place.Keep()
	return l.Conn.Write(b)
}
