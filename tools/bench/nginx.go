package main

import (
	"context"
	"errors"
	"path/filepath"

	"encoderd.example/stream/streamtest/peer"
)

// A sink is nginx with its RTMP module; it records everything as FLV.
type sink struct {
	*process
	address, records string
}

// startSink returns once nginx listens.
func (b *bench) startSink(ctx context.Context) (*sink, error) {
	address, err := peer.FindAddress(ctx)
	if err != nil {
		return nil, err
	}
	config := peer.NginxConfig{Dir: b.dir, Address: address, Quiet: true}
	args, err := config.Prepare()
	if err != nil {
		return nil, err
	}
	s := &sink{address: address, records: config.Records()}
	if s.process, err = start(nil, "nginx", args...); err != nil {
		return nil, err
	}
	err = await(ctx, "nginx to listen", func() bool { return s.alive() != nil || listening(ctx, s.address) })
	if err = errors.Join(err, s.alive()); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *sink) url(key string) string       { return "rtmp://" + s.address + "/live/" + key }
func (s *sink) recording(key string) string { return filepath.Join(s.records, key+".flv") }
