package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"encoderd.example/stream/flv/amf0"
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
	return s.drop(conn, nil)
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
	s.took(len(head) + len(body))
	if head[0] == tagVideo {
		w.see(s, number24(head[4:])|uint32(head[7])<<24, body[:len(body)-4])
	}
	return nil
}

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
		s.took(n)
		if m != nil && m.kind == rtmpVideo {
			w.see(s, m.time, m.body)
		}
		if err := p.ack(total); err != nil {
			return err
		}
	}
	return s.drop(conn, func(n int) error { return p.ack(total + n) })
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

// readHLS reads playlists and whole segments over one connection, as players do
// that know nothing of parts.
func (c *crowd) readHLS(ctx context.Context, s *seat) error {
	transport := &http.Transport{MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	h := &hlsReader{client: http.Client{Transport: transport}, seat: s}
	lists, err := h.begin(ctx, c.job.URL)
	if err != nil {
		return err
	}
	for {
		news := false
		for _, l := range lists {
			more, err := h.follow(ctx, l)
			if err != nil {
				return err
			}
			news = news || more
		}
		pause := lists[0].target
		if !news {
			pause /= 2
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// An hlsReader is a plain HLS player (RFC 8216).
type hlsReader struct {
	client http.Client
	seat   *seat
}

// A mediaList is a media playlist that is followed.
type mediaList struct {
	url    *url.URL
	video  bool
	next   uint64 // segment, zero before the first
	target time.Duration
}

func (h *hlsReader) get(ctx context.Context, u *url.URL, w io.Writer) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	answer, err := h.client.Do(q)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }() // it was only read
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: the server says %s: %w", u, answer.Status, errServer)
	}
	n, err := io.Copy(w, answer.Body)
	h.seat.took(int(n))
	return err
}

// begin finds the media playlists. A server may take some time to have one.
func (h *hlsReader) begin(ctx context.Context, address string) ([]*mediaList, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	var doc bytes.Buffer
	for tries := 0; ; tries++ {
		doc.Reset()
		err = h.get(ctx, u, &doc)
		if err == nil && (tries >= 100 || bytes.Contains(doc.Bytes(), []byte("#EXTINF")) || bytes.Contains(doc.Bytes(), []byte("#EXT-X-STREAM-INF"))) {
			break
		}
		if tries >= 100 || wait(ctx, 100*time.Millisecond) != nil {
			return nil, err
		}
	}
	if !strings.Contains(doc.String(), "#EXT-X-STREAM-INF") {
		return []*mediaList{{url: u, video: true, target: time.Second}}, nil
	}
	return mediaLists(u, doc.String())
}

// mediaLists returns the first variant, and what else it plays.
func mediaLists(u *url.URL, doc string) (lists []*mediaList, err error) {
	variant := false
	for line := range strings.Lines(doc) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#EXT-X-STREAM-INF"):
			variant = true
		case strings.HasPrefix(line, "#EXT-X-MEDIA:TYPE=AUDIO"):
			_, rest, _ := strings.Cut(line, `URI="`)
			uri, _, ok := strings.Cut(rest, `"`)
			if !ok {
				continue
			}
			at, err := u.Parse(uri)
			if err != nil {
				return nil, err
			}
			lists = append(lists, &mediaList{url: at, target: time.Second})
		case variant && line != "" && line[0] != '#':
			at, err := u.Parse(line)
			if err != nil {
				return nil, err
			}
			lists = append([]*mediaList{{url: at, video: true, target: time.Second}}, lists...)
			variant = false
		}
	}
	if len(lists) == 0 {
		return nil, fmt.Errorf("no playlist in %q: %w", doc, errServer)
	}
	return lists, nil
}

// follow fetches what is new in a playlist. It begins three segments from the
// end (RFC 8216, 6.3.3).
func (h *hlsReader) follow(ctx context.Context, l *mediaList) (news bool, err error) {
	var doc bytes.Buffer
	if err := h.get(ctx, l.url, &doc); err != nil {
		return false, err
	}
	first, segments, target := parseMediaList(doc.String())
	if target > 0 {
		l.target = target
	}
	end := first + uint64(len(segments))
	if l.next == 0 {
		if len(segments) == 0 {
			return false, nil
		}
		l.next = max(first, end-min(end, 3))
	}
	missing := uint64(0)
	if l.next < first {
		missing, l.next = first-l.next, first
	}
	for ; l.next < end; l.next++ {
		at, err := l.url.Parse(segments[l.next-first])
		if err != nil {
			return news, err
		}
		if err := h.segment(ctx, l, at, missing); err != nil {
			return news, err
		}
		missing, news = 0, true
	}
	return news, nil
}

func (h *hlsReader) segment(ctx context.Context, l *mediaList, at *url.URL, missing uint64) error {
	h.seat.got(missing)
	if !l.video || !h.seat.looks {
		if err := h.get(ctx, at, io.Discard); err != nil {
			return err
		}
		if l.video {
			h.seat.picture(true, time.Time{})
		}
		return nil
	}
	var doc bytes.Buffer
	if err := h.get(ctx, at, &doc); err != nil {
		return err
	}
	h.seat.picture(true, stamped(doc.Bytes()))
	return nil
}

// parseMediaList returns the number of the first segment, the addresses of
// whole segments, and how long one is.
func parseMediaList(doc string) (first uint64, segments []string, target time.Duration) {
	whole := false
	for line := range strings.Lines(doc) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#EXT-X-MEDIA-SEQUENCE:"):
			_, _ = fmt.Sscanf(line, "#EXT-X-MEDIA-SEQUENCE:%d", &first)
		case strings.HasPrefix(line, "#EXTINF:"):
			seconds := 0.0
			_, _ = fmt.Sscanf(line, "#EXTINF:%f", &seconds)
			target, whole = time.Duration(seconds*float64(time.Second)), true
		case whole && line != "" && line[0] != '#':
			segments = append(segments, line)
			whole = false
		}
	}
	return first, segments, target
}
