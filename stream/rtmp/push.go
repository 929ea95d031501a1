// Package rtmp publishes a rendition to an RTMP or RTMPS server, see [Push],
// and serves renditions to players, see [Server] (Adobe RTMP 1.0, 2012; what
// servers and players do in practice beyond it is noted where it matters).
//
// A publisher goes this way:
//
//	       dial, TLS      handshake          connect
//	(Run) ──────────► open ────────► shaken ─────────► connected ──┐ wants a login:
//	   ▲                                │ ▲                │       │ dial again
//	   └────────────────────────────────│─└────────────────│───────┘
//	                        releaseStream, FCPublish, createStream
//	                                                       │
//	       Rejected, Denied ─► stream.ErrRefused           ▼
//	       BadName, EOF ─────► error, tried again ◄─── created
//	                                                       │ publish
//	                            metadata, headers, units   ▼
//	  error ◄─ nothing taken for 10 s ──────────────── publishing ◄─┐ pings, acks
//	                                                       │   └────┘
//	                                              ctx ends │
//	                  FCUnpublish, deleteStream, close  ◄──┘   at most 2 s
//
// Nothing is queued here: the ring is the queue, and a push that cannot keep up
// goes on at a key picture. A unit's bytes go from the ring to the kernel by
// one writev, uncopied; only TLS copies them, once to join and once to encrypt.
//
// Every run starts anew with metadata and both sequence headers, and they come
// again when the encoder's tracks change.
package rtmp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
)

const encoderName = "encoderd"

// Config says where to publish. It holds secrets: do not print it.
type Config struct {
	// URL is rtmp[s]://[user:password@]host[:port]/app[?query], or the same
	// with the key as the last part of the path if Key is empty.
	URL string
	// Key is the stream name, sent as it is, with its query if it has one.
	Key string
	// TLS is for rtmps; nil means TLS 1.2 or better and the system's roots.
	TLS *tls.Config
	// Log gets the edges: sending, confirmed. It never gets a key.
	Log *slog.Logger
}

// A Push is a [stream.Push] over RTMP. It keeps no state between runs; one Run
// at a time.
type Push struct {
	cfg      Config
	addr     address
	patience time.Duration
}

var _ stream.Push = (*Push)(nil)

// New checks the address. Errors do not repeat it.
func New(cfg Config) (*Push, error) {
	a, err := parseAddress(cfg.URL, cfg.Key)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Push{cfg: cfg, addr: a, patience: patience}, nil
}

// Run is [stream.Push]. The H.264 and AAC tracks of src are sent, others are
// left out; without H.264 the error wraps [stream.ErrRefused].
func (p *Push) Run(ctx context.Context, src *stream.Rendition, tell func(stream.PushReport)) error {
	progress := newProgress()
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	r := &reporter{progress: progress, log: p.cfg.Log, start: time.Now()}
	wg.Go(func() { r.run(done, tell) })

	err := p.publish(ctx, src, progress)
	if ctx.Err() != nil {
		return nil // asked to end: what the connection said last is of no interest
	}
	return err
}

func (p *Push) publish(ctx context.Context, src *stream.Rendition, progress *progress) error {
	tracks, err := src.Wait(ctx)
	if err != nil {
		return err
	}
	mux, err := flv.NewMuxer(tracks, encoderName)
	if err != nil {
		return fmt.Errorf("%w: %w", err, stream.ErrRefused)
	}
	s, err := p.open(ctx)
	if err != nil {
		return err
	}
	s.onAck = progress.nudge
	progress.begin(s)
	return p.converse(ctx, s, func(ctx context.Context) error {
		return feed(ctx, s, mux, src.Reader(), progress)
	})
}

// converse reads beside send until either ends, and closes the session.
func (p *Push) converse(ctx context.Context, s *session, send func(context.Context) error) error {
	// From here on the end of ctx leaves time for a goodbye.
	stop := context.AfterFunc(ctx, func() { s.wire.finish(time.Now().Add(goodbyeTime)) })
	defer stop()
	sending, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var reading sync.WaitGroup
	var heard error
	reading.Go(func() {
		heard = s.watch()
		cancel(heard)
		s.wire.finish(time.Now()) // ends a write that nobody reads
	})

	err := send(sending)
	ended := ctx.Err() != nil || errors.Is(err, stream.ErrClosed)
	if ended {
		s.wire.finish(time.Now().Add(goodbyeTime))
		_ = s.goodbye() // a courtesy: there is nobody left to tell
	} else {
		s.wire.finish(time.Now().Add(lastWords))
	}
	reading.Wait()
	_ = s.wire.Close() // everything that counts has been said
	// A server that hangs up may have said why: the reader heard it, while the
	// sender knows only that the pipe broke.
	if !ended && !errors.Is(heard, os.ErrDeadlineExceeded) {
		return heard
	}
	return err
}

// lastWords is the time in which the reason for a broken pipe may still arrive.
const lastWords = 500 * time.Millisecond

// feed sends units until the source, the connection or ctx ends.
func feed(ctx context.Context, s *session, mux *flv.Muxer, rd *stream.Reader[*stream.Unit], progress *progress) error {
	emit := func(t flv.Tag) error {
		if err := s.send(t); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if !t.Config {
			progress.sent.Add(uint64(len(t.Head) + len(t.Data)))
		}
		return nil
	}
	for {
		u, err := rd.Next(ctx)
		if err != nil {
			return err
		}
		progress.taken(u, rd.Lost())
		if err := mux.Next(u, emit); err != nil {
			return err
		}
		progress.done(u, rd.Behind())
	}
}
