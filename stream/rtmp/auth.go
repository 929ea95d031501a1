package rtmp

import (
	"crypto/md5" //nolint:gosec // the scheme prescribes it
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"encoderd.example/stream"
)

// loginError says that the server wants a user and a password. It is answered
// by connecting again with a longer application name.
//
//	connect app                                  ◄── rejected: authmod=adobe
//	connect app?authmod=adobe&user=U             ◄── rejected: salt, challenge
//	connect app?authmod=adobe&user=U&response=R… ◄── _result
type loginError struct{ ask string }

func (e *loginError) Error() string { return "the server wants a user and a password" }

// askedLogin recognises the request in the words of a rejection.
func askedLogin(s status) *loginError {
	if strings.Contains(s.text, "authmod=adobe") || strings.Contains(s.text, "authmod=llnw") {
		return &loginError{s.text}
	}
	return nil
}

// login returns the query that answers e.
func (a address) login(e *loginError) (string, error) {
	if strings.Contains(e.ask, "authmod=llnw") {
		return "", fmt.Errorf("the server wants a login of kind llnw, which is not supported: use a stream key: %w", stream.ErrRefused)
	}
	if a.user == "" {
		return "", fmt.Errorf("the server wants a user and a password: write them into the address, as in rtmp://user:password@host/app: %w", stream.ErrRefused)
	}
	_, query, _ := strings.Cut(e.ask, "?")
	asked := fields(query)
	switch asked["reason"] {
	case "":
		return "authmod=adobe&user=" + a.user, nil
	case "needauth":
		return a.adobe(asked, nonce()), nil
	default:
		return "", fmt.Errorf("the server does not take this user and password: check them: %w", stream.ErrRefused)
	}
}

// adobe computes the answer as FMLE and ffmpeg do.
func (a address) adobe(asked map[string]string, challenge string) string {
	secret := md5Base64(a.user + asked["salt"] + a.pass)
	given := asked["opaque"]
	if given == "" {
		given = asked["challenge"]
	}
	query := "authmod=adobe&user=" + a.user + "&challenge=" + challenge + "&response=" + md5Base64(secret+given+challenge)
	if opaque := asked["opaque"]; opaque != "" {
		query += "&opaque=" + opaque
	}
	return query
}

// fields reads a query without decoding it: values are base64 with bare "+".
func fields(query string) map[string]string {
	values := map[string]string{}
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(strings.TrimRight(strings.TrimSpace(part), " ]"), "=")
		values[name] = value
	}
	return values
}

func nonce() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func md5Base64(s string) string {
	sum := md5.Sum([]byte(s)) //nolint:gosec // the scheme prescribes it
	return base64.StdEncoding.EncodeToString(sum[:])
}

// with returns a with a query added to the application.
func (a address) with(query string) address {
	if query == "" {
		return a
	}
	mark := "?"
	if strings.Contains(a.app, "?") {
		mark = "&"
	}
	a.app, a.tcURL = a.app+mark+query, a.tcURL+mark+query
	return a
}
