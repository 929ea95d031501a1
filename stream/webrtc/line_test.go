package webrtc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/webrtc/v4"

	"encoderd.example/stream"
)

// one is a listener that has one connection.
type one struct {
	net.Listener

	nc net.Conn
}

func (l one) Accept() (net.Conn, error) { return l.nc, nil }

func TestALineThatTakesNothingIsClosed(t *testing.T) {
	for name, tt := range map[string]struct {
		end  time.Duration // of the server; zero: it goes on
		want time.Duration
	}{
		"while the server runs": {0, silenceTimeout},
		"when the server ends":  {3 * time.Second, 3*time.Second + farewell},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				box, player := net.Pipe()
				c, err := lines{one{nc: box}, ctx, silenceTimeout}.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if tt.end > 0 {
					time.AfterFunc(tt.end, cancel)
				}
				begin := time.Now()
				var wg sync.WaitGroup
				for range 3 { // picture, sound and ICE: none may win time for another
					wg.Go(func() {
						if _, err := c.Write(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.ErrClosedPipe) {
							t.Errorf("write: %v", err)
						}
					})
				}
				wg.Wait()
				if took := time.Since(begin); took != tt.want {
					t.Errorf("took %v, want %v", took, tt.want)
				}
				if _, err := player.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("the player reads %v", err)
				}
			})
		})
	}
}

// A sleeper is a listener whose connections' players stop reading when told.
type sleeper struct {
	net.Listener

	asleep *atomic.Bool
}

func (l sleeper) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	full, never := net.Pipe()
	return &drowsy{nc, full, never, l.asleep}, nil
}

// drowsy writes to nobody while its player sleeps.
type drowsy struct {
	net.Conn

	full, never net.Conn
	asleep      *atomic.Bool
}

func (c *drowsy) Write(b []byte) (int, error) {
	if c.asleep.Load() {
		return c.full.Write(b)
	}
	return c.Conn.Write(b)
}

func (c *drowsy) SetWriteDeadline(at time.Time) error {
	return errors.Join(c.full.SetWriteDeadline(at), c.Conn.SetWriteDeadline(at))
}

func (c *drowsy) Close() error {
	return errors.Join(c.full.Close(), c.never.Close(), c.Conn.Close())
}

func TestAPlayerOverTCPThatStopsReadingIsLeft(t *testing.T) {
	for name, silence := range map[string]time.Duration{
		"while the server runs": time.Second,
		"when the server ends":  time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			s := newShow(t, 50)
			for range 30 {
				s.publish()
			}
			audience, asleep := &stream.Audience{}, &atomic.Bool{}
			srv := &Server{Audience: audience, silence: silence, Listener: sleeper{listenTCP(t, "127.0.0.1:0"), asleep}}
			url, stop := begin(t, s, srv)
			p := connect(t, url, webrtc.NetworkTypeTCP4)
			until(t, "the cached group of pictures", func() bool { return p.video.Load() == 30 })
			s.live(t)
			asleep.Store(true)
			if silence < time.Hour {
				until(t, "nobody", func() bool { return len(audience.Viewers()) == 0 })
			} else if status, _, _ := request(t, http.MethodDelete, p.url, ""); status != http.StatusOK {
				t.Errorf("DELETE: %d", status)
			}
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				stop()
			}()
			select {
			case <-stopped:
			case <-time.After(patience):
				t.Fatal("the server does not end")
			}
		})
	}
}
