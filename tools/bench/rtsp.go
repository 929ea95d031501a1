package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A player is a small RTSP client: it plays every track over the connection
// itself (RFC 2326, 10.12). It is for one goroutine.
type player struct {
	conn    net.Conn
	r       *bufio.Reader
	base    string
	session string
	cseq    int
	media   []string // "video", "audio", in the order of tracks
}

// play returns once the server has agreed to play.
func play(ctx context.Context, address string) (*player, error) {
	return playBy(ctx, address, func(track int) string {
		return fmt.Sprintf("RTP/AVP/TCP;unicast;interleaved=%d-%d", 2*track, 2*track+1)
	})
}

// playBy plays by what transport returns for each track.
func playBy(ctx context.Context, address string, transport func(track int) string) (*player, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("play: %w", err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("play: %w", err)
	}
	p := &player{conn: conn, r: bufio.NewReaderSize(conn, 1<<16), base: address}
	if err := p.begin(transport); err != nil {
		return nil, errors.Join(fmt.Errorf("play: %w", err), conn.Close())
	}
	return p, nil
}

// video returns the channel of the picture's packets.
func (p *player) video() byte { return byte(2 * max(slices.Index(p.media, "video"), 0)) }

func (p *player) begin(transport func(track int) string) error {
	sdp, err := p.ask("DESCRIBE", p.base, "Accept: application/sdp")
	if err != nil {
		return err
	}
	for line := range strings.Lines(sdp) {
		if m, ok := strings.CutPrefix(line, "m="); ok {
			kind, _, _ := strings.Cut(m, " ")
			p.media = append(p.media, kind)
			continue
		}
		control, ok := strings.CutPrefix(strings.TrimSpace(line), "a=control:")
		if !ok || len(p.media) == 0 || control == "*" || control == p.base {
			continue
		}
		if !strings.Contains(control, "://") {
			control = strings.TrimSuffix(p.base, "/") + "/" + control
		}
		if _, err := p.ask("SETUP", control, "Transport: "+transport(len(p.media)-1)); err != nil {
			return err
		}
	}
	_, err = p.ask("PLAY", p.base, "Range: npt=0-")
	return err
}

// ask sends a request and returns the body of the response.
func (p *player) ask(method, address, header string) (body string, err error) {
	p.cseq++
	request := fmt.Sprintf("%s %s RTSP/1.0\r\nCSeq: %d\r\n%s\r\n", method, address, p.cseq, header)
	if p.session != "" {
		request += "Session: " + p.session + "\r\n"
	}
	if _, err := io.WriteString(p.conn, request+"\r\n"); err != nil {
		return "", fmt.Errorf("%s: %w", method, err)
	}
	text := textproto.NewReader(p.r)
	line, err := text.ReadLine()
	if err != nil {
		return "", fmt.Errorf("%s: %w", method, err)
	}
	if !strings.HasPrefix(line, "RTSP/1.0 200") {
		return "", fmt.Errorf("%s: the server says %q", method, line)
	}
	h, err := text.ReadMIMEHeader()
	if err != nil {
		return "", fmt.Errorf("%s: %w", method, err)
	}
	if s := h.Get("Session"); s != "" {
		p.session, _, _ = strings.Cut(s, ";")
	}
	if base := h.Get("Content-Base"); base != "" {
		p.base = base
	}
	n, err := strconv.Atoi(h.Get("Content-Length"))
	if err != nil {
		return "", nil //nolint:nilerr // no length: no body
	}
	doc := make([]byte, n)
	if _, err := io.ReadFull(p.r, doc); err != nil {
		return "", fmt.Errorf("%s: %w", method, err)
	}
	return string(doc), nil
}

// A packet is one interleaved packet; its bytes are valid until the next.
type packet struct {
	channel byte
	data    []byte
}

// next returns the next packet. It reads into buf, which holds 64 KiB.
func (p *player) next(buf []byte) (packet, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return packet{}, fmt.Errorf("read a packet: %w", err)
	}
	if head[0] != '$' {
		return packet{}, fmt.Errorf("read a packet: it begins with %q", head[0])
	}
	data := buf[:binary.BigEndian.Uint16(head[2:])]
	if _, err := io.ReadFull(p.r, data); err != nil {
		return packet{}, fmt.Errorf("read a packet: %w", err)
	}
	return packet{head[1], data}, nil
}

// A watch follows the packets of one player.
//
//	sender report: RTP time ↔ wall clock ─► capture of a picture ─┐
//	last packet of a picture (marker bit) ─► now ─────────────────┴─► latency
type watch struct {
	began   time.Time
	settle  time.Duration // the first units come from the server's cache
	result  watched
	report  bool
	rtp     uint32 // of the last sender report on video
	wall    time.Time
	channel byte
	stamp   uint32
	bytes   int
}

// watched is what a watch found.
type watched struct {
	Latency []float64 `json:"latency"` // ms, of each picture
	Units   []unit    `json:"units"`
}

// A unit is how many bytes came together at what time.
type unit struct {
	At    time.Duration `json:"at"`
	Bytes int           `json:"bytes"`
}

const (
	rtpHeader  = 12
	typeSR     = 200
	ntpEpoch   = 2208988800 // seconds from 1900 to 1970
	videoClock = 90000
)

// see takes a packet that has just come.
func (w *watch) see(p packet, now time.Time) {
	settled := now.Sub(w.began) > w.settle
	if p.channel%2 == 1 {
		w.sender(p)
		w.bytes += len(p.data) + 4
		return
	}
	if len(p.data) < rtpHeader {
		return
	}
	stamp := binary.BigEndian.Uint32(p.data[4:])
	if w.bytes > 0 && (p.channel != w.channel || stamp != w.stamp) {
		if settled {
			w.result.Units = append(w.result.Units, unit{now.Sub(w.began), w.bytes})
		}
		w.bytes = 0
	}
	w.channel, w.stamp = p.channel, stamp
	w.bytes += len(p.data) + 4
	if marker := p.data[1]>>7 == 1; marker && p.channel == 0 && w.report && settled {
		taken := w.wall.Add(time.Duration(int32(stamp-w.rtp)) * time.Second / videoClock)
		w.result.Latency = append(w.result.Latency, float64(now.Sub(taken))/float64(time.Millisecond))
	}
}

// sender notes a sender report on video (RFC 3550, 6.4.1).
func (w *watch) sender(p packet) {
	if p.channel != 1 || len(p.data) < 20 || p.data[1] != typeSR {
		return
	}
	sec, frac := binary.BigEndian.Uint32(p.data[8:]), binary.BigEndian.Uint32(p.data[12:])
	w.wall = time.Unix(int64(sec)-ntpEpoch, int64(uint64(frac)*uint64(time.Second)>>32))
	w.rtp, w.report = binary.BigEndian.Uint32(p.data[16:]), true
}
