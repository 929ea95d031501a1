package rtsp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// What a request may take at most. Players stay far below.
const (
	maxLine    = 4096
	maxHeaders = 64 // lines
	maxHead    = 16 << 10
	maxBody    = 16 << 10
	maxUnread  = 256 << 10 // of what goes on after a bad request
)

// A request is one RTSP request (RFC 2326, 6). Its body is read and dropped:
// no method that is served here needs one.
type request struct {
	method string
	url    *url.URL
	header map[string]string // by canonical name; repeated ones joined by ", "
	body   int               // size in bytes
}

// A statusError is a request that cannot be read, with the answer to give.
type statusError struct {
	status int
	reason string
}

func (e *statusError) Error() string { return e.reason }

func refuse(status int, format string, args ...any) error {
	return &statusError{status, fmt.Sprintf(format, args...)}
}

// readRequest reads a request, or an error: a [*statusError] if the far side
// broke the rules, so that nothing that follows can be made sense of. r's
// buffer must hold [maxLine] bytes.
func readRequest(r *bufio.Reader) (*request, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	req, err := parseRequestLine(line)
	if err != nil {
		return nil, err
	}
	if err := req.readHeader(r); err != nil {
		return nil, err
	}
	if text := req.header["Content-Length"]; text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return nil, refuse(400, "bad Content-Length")
		}
		if n > maxBody {
			return nil, refuse(413, "body of %d bytes", n)
		}
		req.body = int(n)
	}
	if _, err := r.Discard(req.body); err != nil {
		return nil, err
	}
	return req, nil
}

func parseRequestLine(line string) (*request, error) {
	method, rest, _ := strings.Cut(line, " ")
	target, version, ok := strings.Cut(rest, " ")
	if !ok || method == "" || !token(method) {
		return nil, refuse(400, "bad request line")
	}
	if version != "RTSP/1.0" {
		return nil, refuse(505, "version %q", version)
	}
	req := &request{method: method, header: make(map[string]string)}
	if target == "*" {
		req.url = &url.URL{Path: "*"}
		return req, nil
	}
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Scheme != "rtsp" && u.Scheme != "rtsps" {
		return nil, refuse(400, "bad url")
	}
	u.User = nil // never echoed, never logged
	req.url = u
	return req, nil
}

func (req *request) readHeader(r *bufio.Reader) error {
	size := 0
	for range maxHeaders {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		if size += len(line); size > maxHead {
			return refuse(400, "header of more than %d bytes", maxHead)
		}
		if line == "" {
			return nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !token(name) {
			return refuse(400, "bad header line")
		}
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.TrimSpace(value)
		if old := req.header[name]; old != "" {
			value = old + ", " + value
		}
		req.header[name] = value
	}
	return refuse(400, "more than %d header lines", maxHeaders)
}

// readLine reads up to a line feed and cuts the line end off.
func readLine(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", refuse(414, "line of more than %d bytes", maxLine)
	case errors.Is(err, io.EOF) && len(b) > 0:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	line := strings.TrimSuffix(string(b[:len(b)-1]), "\r")
	if strings.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return "", refuse(400, "control character")
	}
	return line, nil
}

// token reports whether s is a token of RFC 2326, 15.1.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, c)
	})
}

// cseq returns the request's number, "" if it has none that can be echoed.
func (req *request) cseq() string {
	text := req.header["Cseq"]
	if _, err := strconv.ParseUint(text, 10, 32); err != nil {
		return ""
	}
	return text
}

// sessionID returns the session that the request names, "" if none.
func (req *request) sessionID() string {
	id, _, _ := strings.Cut(req.header["Session"], ";")
	return strings.TrimSpace(id)
}

const controlPrefix = "trackID="

// target splits the request's URL into the rendition's name and the medium's
// control attribute, "" for the whole session. Players append the control to
// the URL as text, so that it may stand behind a query.
func (req *request) target() (name, control string) {
	name = req.url.Path
	if i := strings.LastIndex(name, "/"+controlPrefix); i >= 0 {
		name, control = name[:i], name[i+1:]
	} else if i := strings.LastIndex(req.url.RawQuery, "/"+controlPrefix); i >= 0 {
		control = req.url.RawQuery[i+1:]
	}
	return strings.Trim(name, "/"), strings.TrimSuffix(control, "/")
}

// base returns the URL that controls are relative to (RFC 2326, C.1.1).
func (req *request) base() string {
	name, _ := req.target()
	u := url.URL{Scheme: req.url.Scheme, Host: req.url.Host, Path: "/" + name + "/"}
	return u.String()
}

// A response is one RTSP response (RFC 2326, 7).
type response struct {
	status int
	header []string // "Name: value"
	body   string
	after  func() // if set, run once the response is written
}

func answer(status int, header ...string) *response {
	return &response{status: status, header: header}
}

// reasons are the status codes that this server gives (RFC 2326, 7.1.1).
var reasons = map[int]string{
	200: "OK",
	400: "Bad Request",
	401: "Unauthorized",
	403: "Forbidden",
	404: "Not Found",
	405: "Method Not Allowed",
	413: "Request Entity Too Large",
	414: "Request-URI Too Large",
	451: "Parameter Not Understood",
	453: "Not Enough Bandwidth",
	454: "Session Not Found",
	455: "Method Not Valid In This State",
	459: "Aggregate Operation Not Allowed",
	461: "Unsupported Transport",
	501: "Not Implemented",
	503: "Service Unavailable",
	505: "RTSP Version Not Supported",
	551: "Option Not Supported",
}

// marshal returns the response's bytes. cseq may be empty.
func (res *response) marshal(cseq string) []byte {
	b := fmt.Appendf(nil, "RTSP/1.0 %d %s\r\n", res.status, reasons[res.status])
	if cseq != "" {
		b = fmt.Appendf(b, "CSeq: %s\r\n", cseq)
	}
	b = append(b, "Server: encoderd\r\n"...)
	for _, line := range res.header {
		b = fmt.Appendf(b, "%s\r\n", line)
	}
	if res.body != "" {
		b = fmt.Appendf(b, "Content-Length: %d\r\n", len(res.body))
	}
	b = append(b, "\r\n"...)
	return append(b, res.body...)
}
