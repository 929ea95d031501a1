package rtmp

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// The signed handshake, which Flash players began to ask for in version 9 and
// some of today's still do. Adobe never published it; this is what everybody
// does. A digest is hidden in C1 and S1, and S2 proves with a longer key that
// C1's was read.
//
//	C1, S1:  [time 4][version 4]  two halves of 764 bytes, in one of which
//	         [offset 4][…][digest 32][…]: the other is a Diffie-Hellman key,
//	         random here, since nothing is encrypted
//	S2:      [random 1504][HMAC of them under (HMAC of C1's digest)]
const (
	digestSize = sha256.Size
	halfSize   = 764
	halfRoom   = halfSize - 4 - digestSize
	headSize   = 8
)

var (
	signingSecret = []byte{
		0xf0, 0xee, 0xc2, 0x4a, 0x80, 0x68, 0xbe, 0xe8, 0x2e, 0x00, 0xd0, 0xd1, 0x02, 0x9e, 0x7e, 0x57,
		0x6e, 0xec, 0x5d, 0x2d, 0x29, 0x80, 0x6f, 0xab, 0x93, 0xb8, 0xe6, 0x36, 0xcf, 0xeb, 0x31, 0xae,
	}
	playerName = []byte("Genuine Adobe Flash Player 001")
	serverName = []byte("Genuine Adobe Flash Media Server 001")
	serverKey  = append(bytes.Clone(serverName), signingSecret...)
)

// serverVersion is what players take for a server that signs.
var serverVersion = []byte{4, 5, 0, 1}

// errNotRTMP says that a caller speaks something else.
var errNotRTMP = errors.New("rtmp handshake: the caller does not speak RTMP")

// greet is the server's half of [handshake]: signed if the caller has signed,
// else plain. C2 is not compared: callers exist that send their own bytes.
func greet(rw io.ReadWriter) error {
	c := make([]byte, 1+handshakeSize)
	if _, err := io.ReadFull(rw, c[:1]); err != nil {
		return fmt.Errorf("rtmp handshake: %w", err)
	}
	if c[0] != version {
		return errNotRTMP
	}
	if _, err := io.ReadFull(rw, c[1:]); err != nil {
		return fmt.Errorf("rtmp handshake: %w", err)
	}
	s := make([]byte, 1+2*handshakeSize)
	s[0] = version
	if _, err := rand.Read(s[1+headSize:]); err != nil {
		return fmt.Errorf("rtmp handshake: %w", err)
	}
	answer(s[1:1+handshakeSize], s[1+handshakeSize:], c[1:])
	if _, err := rw.Write(s); err != nil {
		return fmt.Errorf("rtmp handshake: %w", err)
	}
	if _, err := io.ReadFull(rw, c[1:]); err != nil {
		return fmt.Errorf("rtmp handshake: %w", err)
	}
	return nil
}

// answer completes s1 and s2, which hold random bytes, for c1.
func answer(s1, s2, c1 []byte) {
	at, signed := findDigest(c1, playerName)
	if !signed {
		copy(s2, c1)
		return
	}
	copy(s1[4:], serverVersion)
	second := at >= headSize+halfSize // players look in the half that they used
	put := digestAt(s1, second)
	copy(s1[put:], digest(s1, put, serverName))
	body := len(s2) - digestSize
	key := sign(serverKey, c1[at:at+digestSize])
	copy(s2[body:], sign(key, s2[:body]))
}

// findDigest looks for a digest under key in both halves. A version of zero
// says that there is none.
func findDigest(c1, key []byte) (at int, ok bool) {
	if bytes.Equal(c1[4:headSize], make([]byte, 4)) {
		return 0, false
	}
	for _, second := range []bool{false, true} {
		at = digestAt(c1, second)
		if hmac.Equal(c1[at:at+digestSize], digest(c1, at, key)) {
			return at, true
		}
	}
	return 0, false
}

// digestAt returns where the digest lies in one half: four bytes, added up,
// tell.
func digestAt(packet []byte, second bool) int {
	half := headSize
	if second {
		half += halfSize
	}
	offset := 0
	for _, b := range packet[half : half+4] {
		offset += int(b)
	}
	return half + 4 + offset%halfRoom
}

// digest is over all but itself.
func digest(packet []byte, at int, key []byte) []byte {
	return sign(key, packet[:at], packet[at+digestSize:])
}

func sign(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		_, _ = h.Write(p) // never fails
	}
	return h.Sum(nil)
}
