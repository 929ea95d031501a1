package webui

import (
	"net"
	"net/http"
	"sync"

	"encoderd.example/stream"
)

// A door bounds how many connections there are, in all and from one household,
// without standing between the server and the connection: players get their
// media by writev, which needs the real one.
type door struct {
	gate stream.Gate

	mu     sync.Mutex
	inside map[net.Conn]func()
}

func newDoor() *door {
	return &door{gate: stream.Gate{Limits: stream.Limits{Total: maxConns, Each: maxConnsEach}}, inside: map[net.Conn]func(){}}
}

// note is an http.Server's ConnState. A connection that is taken over counts
// no more: who took it has limits of its own.
func (d *door) note(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		leave, ok := d.gate.Enter(c.RemoteAddr().String())
		if !ok {
			_ = c.Close()
			return
		}
		d.mu.Lock()
		d.inside[c] = leave
		d.mu.Unlock()
	case http.StateClosed, http.StateHijacked:
		d.mu.Lock()
		leave := d.inside[c]
		delete(d.inside, c)
		d.mu.Unlock()
		if leave != nil {
			leave()
		}
	case http.StateActive, http.StateIdle:
	}
}
