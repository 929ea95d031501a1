package daemon

import (
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
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// certificateFile, in the state directory, holds the box's own certificate and
// its key in PEM. Whoever has a better one puts it there.
const certificateFile = "tls.pem"

const (
	certificateLife = 10 * 365 * 24 * time.Hour
	// certificateDrift is how far the clock may have been wrong when the
	// certificate was made: boxes often start before they know the time.
	certificateDrift = 10 * 365 * 24 * time.Hour
)

// tlsConfig returns what listeners by TLS need. A box that has no certificate
// makes one that nobody vouches for.
func (d *Daemon) tlsConfig() (*tls.Config, error) {
	d.certifying.Lock()
	defer d.certifying.Unlock()
	path := filepath.Join(d.State, certificateFile)
	cert, err := readCertificate(path)
	if errors.Is(err, fs.ErrNotExist) {
		d.Log.Info("making a certificate", "file", path)
		if err = makeCertificate(path, time.Now()); err == nil {
			cert, err = readCertificate(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the box's certificate: %w; move %s away to have a new one made", err, path)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

func readCertificate(path string) (tls.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(b, b)
}

// makeCertificate writes a new certificate and its key for the machine's host
// name and addresses.
func makeCertificate(path string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "encoder"
	}
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-certificateDrift), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{name, name + ".local", "localhost"}, IPAddresses: addresses(),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
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
