package rtsp

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/bluenviron/gortsplib/v5/pkg/mikey"
	"github.com/pion/srtp/v3"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// Players that came over TLS may have their media by SRTP (RFC 3711), so that
// UDP, too, is secret; over TCP they may have it plain within TLS as well. The
// key goes out in MIKEY messages (RFC 3830, RFC 4567), in the description and
// in the answer to SETUP. A feed is sealed once for all its players.
const (
	masterKeySize = 16 // AES_CM_128_HMAC_SHA1_80 (RFC 3711, 8.2)
	masterSalt    = 14
	sealGrowth    = 16 // at most: tag of 10, or index of 4 and tag of 10
)

// A seal makes the sealed copy of a feed. Its goroutine runs from the first
// watcher to the last, while the feed may go on for others: so at every start
// it learns how often the numbers have begun anew. No two packets may ever be
// sealed under one index.
type seal struct {
	key [masterKeySize + masterSalt]byte

	cipher sync.Mutex
	srtp   *srtp.Context

	mu       sync.Mutex
	watchers int
	ring     *stream.Ring[*rtp.Batch]
	stop     func()
}

func newSeal() (*seal, error) {
	s := &seal{}
	_, _ = rand.Read(s.key[:]) // never fails
	c, err := srtp.CreateContext(s.key[:masterKeySize], s.key[masterKeySize:], srtp.ProtectionProfileAes128CmHmacSha1_80)
	if err != nil {
		return nil, fmt.Errorf("rtsp: srtp: %w", err)
	}
	s.srtp = c
	return s, nil
}

// sealed returns the feed's seal, which it makes when it is needed first.
func (f *feed) sealed() (*seal, error) {
	f.sealing.Lock()
	defer f.sealing.Unlock()
	if f.seal == nil {
		s, err := newSeal()
		if err != nil {
			return nil, err
		}
		f.seal = s
	}
	return f.seal, nil
}

// watchSealed is Watch for sealed batches.
func (f *feed) watchSealed(ctx context.Context) (rd *stream.Reader[*rtp.Batch], leave func(), err error) {
	s, err := f.sealed()
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers == 0 {
		s.start(ctx, f)
	}
	s.watchers++
	return s.ring.Reader(), sync.OnceFunc(s.leave), nil
}

func (s *seal) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers--; s.watchers == 0 {
		s.stop()
		s.ring = nil
	}
}

// start seals into a new ring, from the latest key batch on. The caller holds
// s.mu.
func (s *seal) start(ctx context.Context, f *feed) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	plain, leave := f.Watch(ctx)
	ring := f.Ring()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer ring.Close()
		if err := s.run(ctx, f, plain, ring); err != nil {
			f.log.Warn("rtsp cannot seal", "rendition", f.Source.Name, "err", err)
		}
	})
	s.ring = ring
	s.stop = func() {
		cancel()
		wg.Wait()
		leave()
	}
}

func (s *seal) run(ctx context.Context, f *feed, plain *stream.Reader[*rtp.Batch], ring *stream.Ring[*rtp.Batch]) error {
	for first := true; ; first = false {
		b, err := plain.Next(ctx)
		if err != nil {
			return nil //nolint:nilerr // the feed's end or ours: readers see it in the ring
		}
		if first {
			s.catchUp(f, b)
		}
		if b, err = s.batch(b); err != nil {
			return err
		}
		ring.Publish(b, b.Key)
	}
}

// catchUp tells the cipher at which index the packets from b on are.
func (s *seal) catchUp(f *feed, b *rtp.Batch) {
	s.cipher.Lock()
	defer s.cipher.Unlock()
	for _, m := range []rtp.Medium{rtp.Video, rtp.Sound} {
		s.srtp.SetROC(f.packer.SSRC(m), b.Rolls[m])
	}
}

// batch returns a sealed copy of b.
func (s *seal) batch(b *rtp.Batch) (*rtp.Batch, error) {
	s.cipher.Lock()
	defer s.cipher.Unlock()
	return b.Rewrite(sealGrowth, func(to []byte, channel uint8, packet []byte) ([]byte, error) {
		if channel%2 == 1 {
			return s.srtp.EncryptRTCP(to, packet, nil)
		}
		return s.srtp.EncryptRTP(to, packet, nil)
	})
}

// message returns the MIKEY message that hands the key of one source out, whose
// numbers have begun anew roc times, in base64: RFC 3830, 6 with the attributes of RFC 4567, 3.
func (s *seal) message(ssrc, roc uint32, now time.Time) (string, error) {
	var id [4]byte
	nonce := make([]byte, 16)
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(nonce)
	value := func(t mikey.PayloadSPPolicyParamType, v byte) mikey.PayloadSPPolicyParam {
		return mikey.PayloadSPPolicyParam{Type: t, Value: []byte{v}}
	}
	m := mikey.Message{
		Header: mikey.Header{
			Version:     1,
			CSBID:       binary.BigEndian.Uint32(id[:]),
			CSIDMapInfo: []mikey.SRTPIDEntry{{SSRC: ssrc, ROC: roc}},
		},
		Payloads: []mikey.Payload{
			&mikey.PayloadT{TSValue: rtp.NTP(now)},
			&mikey.PayloadRAND{Data: nonce},
			&mikey.PayloadSP{PolicyParams: []mikey.PayloadSPPolicyParam{
				value(mikey.PayloadSPPolicyParamTypeEncrAlg, 1), // AES-CM
				value(mikey.PayloadSPPolicyParamTypeSessionEncrKeyLen, masterKeySize),
				value(mikey.PayloadSPPolicyParamTypeAuthAlg, 1), // HMAC-SHA-1
				value(mikey.PayloadSPPolicyParamTypeSessionAuthKeyLen, 20),
				value(mikey.PayloadSPPolicyParamTypeSRTPEncrOffOn, 1),
				value(mikey.PayloadSPPolicyParamTypeSRTCPEncrOffOn, 1),
				value(mikey.PayloadSPPolicyParamTypeSRTPAuthOffOn, 1),
				value(mikey.PayloadSPPolicyParamTypeAuthTagLen, 10),
			}},
			&mikey.PayloadKEMAC{SubPayloads: []*mikey.SubPayloadKeyData{{Type: mikey.SubPayloadKeyDataTypeTEK, KeyData: s.key[:]}}},
		},
	}
	b, err := m.Marshal()
	if err != nil {
		return "", fmt.Errorf("rtsp: mikey: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b), nil
}

// keys returns the MIKEY message of each medium of a feed, in base64.
func (f *feed) keys(now time.Time) (keys [2]string, err error) {
	s, err := f.sealed()
	if err != nil {
		return keys, err
	}
	for _, m := range []rtp.Medium{rtp.Video, rtp.Sound} {
		if f.tracks[m] == nil {
			continue
		}
		if keys[m], err = s.message(f.packer.SSRC(m), f.rolls[m].Load(), now); err != nil {
			return keys, err
		}
	}
	return keys, nil
}
