package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A sink is nginx with its RTMP module; it records everything as FLV.
type sink struct {
	*process
	address, records string
}

const nginxConfig = `
%[1]s
daemon off;
master_process off;
pid %[2]s/nginx.pid;
error_log stderr warn;
worker_processes 1;
events { worker_connections 64; }
rtmp {
  access_log off;
  server {
    listen %[3]s;
    chunk_size 4096;
    application live {
      live on;
      record all;
      record_path %[2]s/records;
      record_suffix .flv;
    }
  }
}
`

// startSink returns once nginx listens.
func (b *bench) startSink(ctx context.Context) (*sink, error) {
	s := &sink{records: filepath.Join(b.dir, "records")}
	var err error
	if s.address, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.records, 0o755); err != nil { //nolint:gosec // G301: nginx may run as another user
		return nil, fmt.Errorf("make a folder for recordings: %w", err)
	}
	const module = "/usr/lib/nginx/modules/ngx_rtmp_module.so"
	load := "load_module " + module + ";"
	if _, err := os.Stat(module); err != nil {
		load = "" // built in
	}
	file := filepath.Join(b.dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxConfig, load, b.dir, s.address), 0o600); err != nil {
		return nil, fmt.Errorf("write nginx's config: %w", err)
	}
	if s.process, err = start(nil, "nginx", "-c", file, "-p", b.dir, "-e", "stderr"); err != nil {
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
