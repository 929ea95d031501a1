package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"encoderd.example/hw"
)

// A clock that a test sets, and a certifier that goes by it.
func newCertifier(t *testing.T, now *time.Time) *certifier {
	t.Helper()
	return &certifier{
		path: filepath.Join(t.TempDir(), certificateFile), log: slog.New(slog.DiscardHandler),
		now: func() time.Time { return *now }, lock: new(sync.Mutex),
	}
}

func (c *certifier) leaf(t *testing.T) *x509.Certificate {
	t.Helper()
	cert, err := c.certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf
}

func TestTheBoxMakesItsCertificateOnce(t *testing.T) {
	d := New(Options{State: t.TempDir(), Log: slog.New(slog.DiscardHandler), Board: hw.Board{Name: "sim"}})
	var certs [2]*tls.Certificate
	for i := range certs {
		conf, err := d.tlsConfig()
		if err != nil {
			t.Fatal(err)
		}
		if certs[i], err = conf.GetCertificate(&tls.ClientHelloInfo{}); err != nil {
			t.Fatal(err)
		}
	}
	if !certs[0].Leaf.Equal(certs[1].Leaf) {
		t.Error("another certificate the second time")
	}
	for _, name := range []string{"localhost", "127.0.0.1"} {
		if err := certs[0].Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	path := filepath.Join(d.State, certificateFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.tlsConfig(); err == nil || !strings.Contains(err.Error(), "move") {
		t.Errorf("a bad certificate: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "rubbish" {
		t.Error("it was overwritten")
	}
}

func TestACertificateMadeWithoutAClockIsGoodToday(t *testing.T) {
	now := time.Unix(60, 0) // a minute after a start without a battery
	c := newCertifier(t, &now)
	leaf := c.leaf(t)
	written := programWritten()
	for _, at := range []time.Time{now, written, written.Add(certificateLife - certificateRenewal)} {
		if at.Before(leaf.NotBefore) || at.After(leaf.NotAfter) {
			t.Errorf("at %v it is not good: from %v to %v", at, leaf.NotBefore, leaf.NotAfter)
		}
	}
	now = written.Add(time.Hour) // the network tells
	if !c.leaf(t).Equal(leaf) {
		t.Error("it was replaced without need")
	}
}

func TestTheBoxRenewsItsCertificateAndKeepsTheKey(t *testing.T) {
	now := programWritten()
	c := newCertifier(t, &now)
	first := c.leaf(t)
	now = first.NotAfter.Add(-certificateRenewal / 2)
	second := c.leaf(t)
	if got := second.NotAfter; !got.Equal(now.Add(certificateLife).Truncate(time.Second)) {
		t.Errorf("the new one ends %v", got)
	}
	key, ok := second.PublicKey.(*ecdsa.PublicKey)
	if !ok || !key.Equal(first.PublicKey) {
		t.Error("it has another key, which players may have noted")
	}
	again := newCertifier(t, &now)
	again.path = c.path
	if !again.leaf(t).Equal(second) {
		t.Error("it is not what lies on the disk")
	}
}

func TestARenewalThatFailsIsTriedAgainLater(t *testing.T) {
	now := programWritten()
	c := newCertifier(t, &now)
	first := c.leaf(t)
	now = first.NotAfter.Add(time.Hour)
	right := c.path
	c.path = filepath.Join(c.path, "no folder")
	if !c.leaf(t).Equal(first) {
		t.Error("the old one is not handed out")
	}
	c.path = right
	if !c.leaf(t).Equal(first) {
		t.Error("it is tried again at once")
	}
	now = now.Add(certificateRetry)
	if c.leaf(t).Equal(first) {
		t.Error("it is not tried again")
	}
}

func TestACertificateOfSomebodyElseIsLeftAlone(t *testing.T) {
	now := programWritten().Add(certificateLife)
	c := newCertifier(t, &now)
	if err := os.WriteFile(c.path, foreign(t, now.Add(time.Hour)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := c.leaf(t).Subject.CommonName; got != "venue" {
		t.Errorf("%q is handed out", got)
	}
	now = now.Add(2 * time.Hour) // it is over
	if got := c.leaf(t).Subject.CommonName; got != "venue" {
		t.Errorf("later %q is handed out", got)
	}
}

// foreign returns a certificate that the box has not made.
func foreign(t *testing.T, ends time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "venue"}, NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
}
