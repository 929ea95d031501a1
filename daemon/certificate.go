package daemon

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// certificateFile, in the state directory, holds the box's own certificate and
// its key in PEM. Whoever has a better one puts it there.
const certificateFile = "tls.pem"

const (
	certificateLife = 10 * 365 * 24 * time.Hour
	// certificateRenewal is how long before its end one of ours is made anew.
	certificateRenewal = 365 * 24 * time.Hour
	// certificateRetry is the time between two attempts at it.
	certificateRetry = time.Hour
)

// ownCertificates is what the box calls itself in those that it has made, so
// that it never replaces one of somebody else.
const ownCertificates = "encoderd"

// A certifier hands out the box's certificate. A box that has none makes one
// that nobody vouches for, and a new one of the same key before it ends. All
// methods may be called from any goroutine.
type certifier struct {
	path string
	log  *slog.Logger
	now  func() time.Time
	lock *sync.Mutex // of the file

	// For who holds the lock.
	cert  *tls.Certificate
	tried time.Time
}

// tlsConfig returns what listeners by TLS need.
func (d *Daemon) tlsConfig() (*tls.Config, error) {
	c := &certifier{path: filepath.Join(d.State, certificateFile), log: d.Log, now: time.Now, lock: &d.certifying}
	if _, err := c.certificate(nil); err != nil {
		return nil, fmt.Errorf("the box's certificate: %w; move %s away to have a new one made", err, c.path)
	}
	return &tls.Config{GetCertificate: c.certificate, MinVersion: tls.VersionTLS12}, nil
}

// certificate returns the one that is good now, as [tls.Config] asks.
func (c *certifier) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	now := c.now()
	if c.cert != nil && (!ending(c.cert, now) || now.Sub(c.tried).Abs() < certificateRetry) {
		return c.cert, nil
	}
	c.tried = now
	cert, err := c.load(now)
	switch {
	case err == nil:
		c.cert = &cert
	case c.cert == nil:
		return nil, err
	default:
		c.log.Warn("the certificate cannot be renewed", "file", c.path, "ends", c.cert.Leaf.NotAfter, "err", err)
	}
	return c.cert, nil
}

// load reads the file. It makes the certificate if there is none, and anew if
// it is the box's own and ends soon.
func (c *certifier) load(now time.Time) (tls.Certificate, error) {
	cert, err := readCertificate(c.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.log.Info("making a certificate", "file", c.path)
		var key *ecdsa.PrivateKey
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			err = makeCertificate(c.path, key, now)
		}
	case err != nil || !ending(&cert, now):
		return cert, err
	case !slices.Contains(cert.Leaf.Subject.Organization, ownCertificates):
		c.log.Warn("the certificate ends, and is not the box's own", "file", c.path, "ends", cert.Leaf.NotAfter)
		return cert, nil
	default:
		c.log.Info("renewing the certificate", "file", c.path, "ends", cert.Leaf.NotAfter)
		key, ok := cert.PrivateKey.(crypto.Signer)
		if !ok {
			return cert, errors.New("its key cannot sign")
		}
		err = makeCertificate(c.path, key, now)
	}
	if err != nil {
		return cert, err
	}
	return readCertificate(c.path)
}

func readCertificate(path string) (tls.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(b, b)
}

// ending reports whether a certificate has to be replaced. A clock that is
// behind makes none look good.
func ending(cert *tls.Certificate, now time.Time) bool {
	return cert.Leaf.NotAfter.Sub(atLeast(now)) < certificateRenewal
}

// atLeast returns now or, on a box that does not know the time yet, a time that
// has passed for sure.
func atLeast(now time.Time) time.Time {
	if written := programWritten(); now.Before(written) {
		return written
	}
	return now
}

// programWritten returns when the source of this program was committed, or,
// of a program that does not know, when there was none.
var programWritten = sync.OnceValue(func() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return at
			}
		}
	}
	return time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
})

// makeCertificate writes a new certificate and its key for the machine's host
// name and addresses. It is good from long ago on, since the clocks of boxes
// and of players may be behind.
func makeCertificate(path string, key crypto.Signer, now time.Time) error {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "encoder"
	}
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{CommonName: name, Organization: []string{ownCertificates}},
		NotBefore: time.Unix(0, 0), NotAfter: atLeast(now).Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{name, name + ".local", "localhost"}, IPAddresses: addresses(),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	b := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	return renameio.WriteFile(path, b, 0o600)
}

// addresses are those of this machine.
func addresses() (list []net.IP) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil // names are enough
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			list = append(list, n.IP)
		}
	}
	return list
}
