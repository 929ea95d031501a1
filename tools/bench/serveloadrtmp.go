package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"encoderd.example/stream/flv/amf0"
)

// An rtmpPlayer is a small RTMP client (Adobe RTMP 1.0).
type rtmpPlayer struct {
	conn  net.Conn
	r     *bufio.Reader
	chunk int // the server's chunk size
	flows map[byte]*message
	acked int
}

// A message is what a chunk stream carries at the moment.
type message struct {
	time   uint32
	delta  uint32
	length int
	kind   byte
	body   []byte
}

// Message types of RTMP (5.4, 7.1).
const (
	rtmpChunkSize = 1
	rtmpAck       = 3
	rtmpVideo     = 9
	rtmpCommand   = 20
)

// readRTMP plays by RTMP. Acknowledgements go out as servers expect them.
func (c *crowd) readRTMP(ctx context.Context, s *seat) error {
	u, err := url.Parse(c.job.URL)
	if err != nil {
		return err
	}
	conn, err := c.dial(ctx, u.Host)
	if err != nil {
		return err
	}
	p := &rtmpPlayer{conn: conn, r: bufio.NewReaderSize(conn, 1<<16), chunk: 128, flows: map[byte]*message{}}
	app, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if err := p.begin(app, "rtmp://"+u.Host+"/"+app, name); err != nil {
		return fmt.Errorf("play: %w", err)
	}
	var w flowFLV
	total := 0
	for s.looks || !s.began() {
		m, n, err := p.next()
		if err != nil {
			return err
		}
		total += n
		_ = s.took(n)
		if m != nil && m.kind == rtmpVideo {
			w.see(s, m.time, m.body)
		}
		if err := p.ack(total); err != nil {
			return err
		}
	}
	return drop(conn, func(n int) error {
		total += n
		_ = s.took(n)
		return p.ack(total)
	})
}

// ack acknowledges now and then.
func (p *rtmpPlayer) ack(total int) error {
	const every = 1 << 20
	if total-p.acked < every {
		return nil
	}
	p.acked = total
	return p.write(2, rtmpAck, 0, binary.BigEndian.AppendUint32(nil, uint32(total)))
}

func (p *rtmpPlayer) write(chunkStream, kind byte, stream uint32, body []byte) error {
	b := []byte{chunkStream, 0, 0, 0, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body)), kind}
	b = binary.LittleEndian.AppendUint32(b, stream)
	for first := true; first || len(body) > 0; first = false {
		if !first {
			b = append(b, 3<<6|chunkStream)
		}
		n := min(len(body), 128)
		b, body = append(b, body[:n]...), body[n:]
	}
	_, err := p.conn.Write(b)
	return err
}

// begin goes as far as play.
func (p *rtmpPlayer) begin(app, address, name string) error {
	const size = 1536
	hello := append([]byte{3}, make([]byte, size)...)
	if _, err := p.conn.Write(hello); err != nil {
		return err
	}
	if _, err := io.ReadFull(p.r, hello); err != nil {
		return err
	}
	if _, err := p.conn.Write(hello[1:]); err != nil {
		return err
	}
	if _, err := p.r.Discard(size); err != nil {
		return err
	}
	connect := amf0.Append(nil, amf0.String("connect"), amf0.Number(1), amf0.Object{
		{Name: "app", Value: amf0.String(app)},
		{Name: "flashVer", Value: amf0.String("LNX 9,0,124,2")},
		{Name: "tcUrl", Value: amf0.String(address)},
		{Name: "fpad", Value: amf0.Bool(false)},
		{Name: "capabilities", Value: amf0.Number(15)},
		{Name: "audioCodecs", Value: amf0.Number(4071)},
		{Name: "videoCodecs", Value: amf0.Number(252)},
		{Name: "videoFunction", Value: amf0.Number(1)},
	})
	if err := p.write(3, rtmpCommand, 0, connect); err != nil {
		return err
	}
	if err := p.await("_result", 1); err != nil {
		return err
	}
	if err := p.write(3, rtmpCommand, 0, amf0.Append(nil, amf0.String("createStream"), amf0.Number(2), amf0.Null{})); err != nil {
		return err
	}
	if err := p.await("_result", 2); err != nil {
		return err
	}
	play := amf0.Append(nil, amf0.String("play"), amf0.Number(3), amf0.Null{}, amf0.String(name), amf0.Number(-2000))
	return p.write(8, rtmpCommand, 1, play)
}

// await reads until the answer to a command.
func (p *rtmpPlayer) await(what string, transaction float64) error {
	for {
		m, _, err := p.next()
		if err != nil {
			return err
		}
		if m == nil || m.kind != rtmpCommand {
			continue
		}
		v, err := amf0.Decode(m.body)
		if err != nil || len(v) < 2 {
			return fmt.Errorf("read a command: %w", errors.Join(err, errServer))
		}
		if v[1] != amf0.Number(transaction) {
			continue
		}
		if v[0] != amf0.String(what) {
			return fmt.Errorf("%v: %w", v, errServer)
		}
		return nil
	}
}

// next reads a chunk and returns the message that it completes, if any, which is
// good until the next call, and how many bytes came.
func (p *rtmpPlayer) next() (*message, int, error) {
	var head [16]byte
	if _, err := io.ReadFull(p.r, head[:1]); err != nil {
		return nil, 0, err
	}
	format, id := head[0]>>6, head[0]&63
	if id < 2 {
		return nil, 0, fmt.Errorf("chunk stream %d: %w", id, errServer)
	}
	m := p.flows[id]
	if m == nil {
		m = &message{}
		p.flows[id] = m
	}
	if m.length > 0 && len(m.body) == m.length {
		m.body = m.body[:0] // the last one is done
	}
	n, err := p.header(m, format, head[:])
	if err != nil {
		return nil, 0, err
	}
	at := len(m.body)
	size := min(m.length-at, p.chunk)
	m.body = append(m.body, make([]byte, size)...)
	if _, err := io.ReadFull(p.r, m.body[at:]); err != nil {
		return nil, 0, err
	}
	n += 1 + size
	if len(m.body) < m.length {
		return nil, n, nil
	}
	if m.kind == rtmpChunkSize && m.length == 4 {
		p.chunk = int(binary.BigEndian.Uint32(m.body))
	}
	return m, n, nil
}

// header reads what a chunk's format says of its header (5.3.1.2).
func (p *rtmpPlayer) header(m *message, format byte, head []byte) (n int, err error) {
	n = [4]int{11, 7, 3, 0}[format]
	if _, err := io.ReadFull(p.r, head[:n]); err != nil {
		return 0, err
	}
	begins := len(m.body) == 0
	if format <= 2 {
		m.delta = number24(head)
	}
	if format <= 1 {
		m.length, m.kind = int(number24(head[3:])), head[6]
	}
	if m.delta == 0xffffff {
		var long [4]byte
		if _, err := io.ReadFull(p.r, long[:]); err != nil {
			return 0, err
		}
		n += len(long)
		if format == 0 {
			m.time = binary.BigEndian.Uint32(long[:])
			return n, nil
		}
	}
	switch {
	case format == 0:
		m.time = m.delta
	case begins:
		m.time += m.delta
	}
	return n, nil
}
