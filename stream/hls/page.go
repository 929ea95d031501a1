package hls

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"encoderd.example/stream/cmaf"
)

// maxPages bounds the playlists that are kept, of which addresses name the sets.
const maxPages = 256

// pages are the newest playlists of all renditions. Each is made by the first
// player that asks for it, and is the same bytes for all.
type pages struct {
	mu     sync.Mutex
	newest map[pageName]*page
}

type pageName struct {
	rendition string
	set       string // of renditions, as they stand in addresses
	medium    cmaf.Medium
	skip      bool
}

// A page is a playlist as it is sent.
type page struct {
	version uint64 // of the sequence that it shows
	text    []byte

	once   sync.Once
	zipped []byte
}

// of returns the page of a name at a version, which text makes. It keeps no
// media.
func (ps *pages) of(name pageName, version uint64, text func() []byte) *page {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.newest[name]; p != nil && p.version == version {
		return p
	}
	if ps.newest == nil {
		ps.newest = make(map[pageName]*page)
	}
	if ps.newest[name] == nil && len(ps.newest) >= maxPages {
		clear(ps.newest)
	}
	p := &page{version: version, text: text()}
	ps.newest[name] = p
	return p
}

// zippers are used again and again: each is most of a megabyte.
var zippers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// gzipped returns the text compressed, once for all.
func (p *page) gzipped() []byte {
	p.once.Do(func() {
		var b bytes.Buffer
		z, _ := zippers.Get().(*gzip.Writer)
		z.Reset(&b)
		_, _ = z.Write(p.text) // into memory: never fails
		_ = z.Close()
		zippers.Put(z)
		p.zipped = b.Bytes()
	})
	return p.zipped
}

// write sends the page and returns how many bytes of it went out.
func (p *page) write(w http.ResponseWriter, r *http.Request, cache string) int {
	h := w.Header()
	h.Set("Content-Type", "application/vnd.apple.mpegurl")
	h.Set("Cache-Control", cache)
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Vary", "Accept-Encoding")
	body := p.text
	if acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = p.gzipped()
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		return 0
	}
	// The server lifts the deadline after the answer.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime)) // where there is one
	n, _ := w.Write(body)                                                         //nolint:gosec // a playlist, with no word of the request in it
	return n
}

func acceptsGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(coding), ";")
		if name == "gzip" && strings.ReplaceAll(weight, " ", "") != "q=0" {
			return true
		}
	}
	return false
}
