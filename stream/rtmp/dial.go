package rtmp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"encoderd.example/stream"
)

// Times that a server has.
const (
	dialTime    = 10 * time.Second // TCP, name lookup included
	setupTime   = 15 * time.Second // TLS, handshake and commands
	patience    = 10 * time.Second // without taking anything
	goodbyeTime = 2 * time.Second
	keepAlive   = 15 * time.Second
	loginRounds = 3
)

// open returns a session that may send. It connects again as often as a login
// asks for.
func (p *Push) open(ctx context.Context) (*session, error) {
	query := ""
	for range loginRounds {
		s, err := p.connect(ctx, p.addr.with(query))
		ask, ok := errors.AsType[*loginError](err)
		if !ok {
			return s, err
		}
		if query, err = p.addr.login(ask); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the server asks for user and password without end: %w", stream.ErrRefused)
}

// connect goes all the way on one connection.
func (p *Push) connect(ctx context.Context, a address) (*session, error) {
	w, err := p.dial(ctx, a)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { w.finish(time.Now()) })
	s, err := p.setup(ctx, a, w)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = w.Close() // the reason is known
		return nil, err
	}
	return s, nil
}

func (p *Push) dial(ctx context.Context, a address) (*wire, error) {
	d := net.Dialer{Timeout: dialTime, KeepAlive: keepAlive}
	conn, err := d.DialContext(ctx, "tcp", a.dial())
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", a.dial(), err)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connect to %s: not TCP", a.dial()), conn.Close())
	}
	return &wire{TCPConn: tcp}, nil
}

func (p *Push) setup(ctx context.Context, a address, w *wire) (*session, error) {
	if err := w.readBy(time.Now().Add(setupTime)); err != nil {
		return nil, err
	}
	conn := net.Conn(w)
	if a.secure {
		t := tls.Client(w, p.tlsConfig(a))
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("tls to %s: %w", a.dial(), explainTLS(err))
		}
		conn = t
	}
	s := newSession(a, w, conn, p.patience)
	if err := s.start(); err != nil {
		return nil, explainTimeout(err)
	}
	return s, w.readBy(time.Time{})
}

func (p *Push) tlsConfig(a address) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.cfg.TLS != nil {
		c = p.cfg.TLS.Clone()
	}
	if c.ServerName == "" {
		c.ServerName = a.host
	}
	return c
}

// explainTLS names the usual reason of a box without a battery clock.
func explainTLS(err error) error {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return fmt.Errorf("the certificate does not fit the box's clock, which says %s: %w", time.Now().UTC().Format(time.DateTime), err)
	}
	return explainTimeout(err)
}

func explainTimeout(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the server does not answer: %w", err)
	}
	return err
}
