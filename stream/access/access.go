// Package access says who may watch a rendition: everybody, who knows a
// password, or who has a link that is good for some time.
//
//	open       everybody
//	password   user and password, or a link instead
//	link       nothing but it
//
// A link carries a token: the second in which it ends and, under the box's own
// key, a proof that the box made it for this rendition. Nothing is kept about
// links; a new key ends all of them.
package access

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"encoderd.example/stream"
)

// A Mode is how a rendition is guarded.
type Mode string

// The modes, as config writes them.
const (
	Open     Mode = "open"
	Password Mode = "password"
	Link     Mode = "link"
)

// All stands for every rendition in a link.
const All = "*"

// A Rule guards a rendition.
type Rule struct {
	Mode           Mode
	User, Password string // of Password; an empty Password opens to nobody
}

// Rules are the rules of a box: a [stream.Guard]. They are immutable once in
// use; all methods may be called from any goroutine.
type Rules struct {
	Default Rule
	By      map[string]Rule // by rendition, instead of Default
	Key     []byte          // signs links; without one no link is good
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Allow returns nil, or an error that wraps [stream.ErrLocked] if c is empty
// and [stream.ErrDenied] if it is wrong; it is [stream.ErrLinkOnly] if c has no
// link and nothing else opens the rendition. It compares in constant time.
func (r *Rules) Allow(rendition string, c stream.Credentials) error {
	rule, ok := r.By[rendition]
	if !ok {
		rule = r.Default
	}
	switch {
	case rule.Mode == Open:
		return nil
	case c.Token != "":
		return r.check(rendition, c.Token)
	case rule.Mode == Link:
		return stream.ErrLinkOnly
	case c.Empty():
		return stream.ErrLocked
	case rule.Mode == Password && knows(rule, c):
		return nil
	default:
		return stream.ErrDenied
	}
}

// knows reports whether c holds the rule's user and password.
func knows(rule Rule, c stream.Credentials) bool {
	switch {
	case rule.Password == "":
		return false
	case c.Proves != nil:
		return c.Proves(rule.User, rule.Password)
	default:
		return same(rule.User, c.User)&same(rule.Password, c.Password) == 1
	}
}

// same is 1 if a equals b. Hashes hide the lengths, too.
func same(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:])
}

// A token is base64url of five bytes, the second since 1970 in which it ends,
// and sixteen of HMAC-SHA-256 over purpose, rendition and these five.
const (
	stampSize = 5
	proofSize = 16
	purpose   = "encoderd watch link 1"
)

// notBefore is a time at which no box has a right clock: it was made later. A
// box whose clock is older cannot tell whether a link's time is over.
var notBefore = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// Sign returns a token that opens rendition, or every rendition if it is
// [All], until the wall clock shows until, to the second.
func (r *Rules) Sign(rendition string, until time.Time) (string, error) {
	if len(r.Key) == 0 {
		return "", fmt.Errorf("this box has no key for links yet: set access = %q or %q first", Password, Link)
	}
	if !until.After(r.now()) {
		return "", fmt.Errorf("the link would have ended at %s already: choose a later time", until.Format(time.RFC3339))
	}
	var stamp [8]byte
	binary.BigEndian.PutUint64(stamp[:], uint64(until.Unix()))
	b := stamp[8-stampSize:]
	return base64.RawURLEncoding.EncodeToString(append(b, r.proof(rendition, b)...)), nil
}

// check says whether token opens rendition now.
func (r *Rules) check(rendition, token string) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != stampSize+proofSize || len(r.Key) == 0 {
		return stream.ErrDenied
	}
	stamp, proof := b[:stampSize], b[stampSize:]
	if !hmac.Equal(proof, r.proof(rendition, stamp)) && !hmac.Equal(proof, r.proof(All, stamp)) {
		return stream.ErrDenied
	}
	now := r.now()
	if now.Before(notBefore) {
		return fmt.Errorf("%w: this box does not know the time yet", stream.ErrDenied)
	}
	var seconds [8]byte
	copy(seconds[8-stampSize:], stamp)
	if !now.Before(time.Unix(int64(binary.BigEndian.Uint64(seconds[:])), 0)) {
		return fmt.Errorf("%w: the link's time is over", stream.ErrDenied)
	}
	return nil
}

// proof never mixes two renditions up: a NUL cannot stand in a name.
func (r *Rules) proof(rendition string, stamp []byte) []byte {
	h := hmac.New(sha256.New, r.Key)
	fmt.Fprintf(h, "%s\x00%s\x00", purpose, rendition)
	h.Write(stamp)
	return h.Sum(nil)[:proofSize]
}

func (r *Rules) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
