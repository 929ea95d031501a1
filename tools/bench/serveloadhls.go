package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

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
	_ = h.seat.took(int(n))
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
