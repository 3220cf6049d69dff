// Package testenv starts the real servers that the tests need, on loopback and
// in folders of their own: OpenLDAP, Samba as an Active Directory, PostgreSQL
// and PgBouncer.
package testenv

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a server may take to start, or to end.
const patience = 60 * time.Second

// wanted ends the test where it must not start servers, or cannot.
func wanted(tb testing.TB, packages ...string) {
	tb.Helper()
	if os.Getenv("GROUPGATE_E2E") != "1" {
		tb.Skip("real servers are started with GROUPGATE_E2E=1 alone: make test")
	}
	for _, p := range packages {
		out, err := exec.Command("dpkg-query", "--show", "--showformat", "${db:Status-Status}", p).Output()
		if err != nil || string(out) != "installed" {
			tb.Fatalf("the package %s is missing: run make test, or deploy/testenv/install.sh by itself", p)
		}
	}
}

// atEnd is what [Main] does when the tests are over, the last first.
var atEnd struct {
	mu   sync.Mutex
	run  bool // Main is there
	todo []func()
}

// Main runs the tests and stops what they share. A package that asks for
// [SambaAD] has it in its TestMain.
func Main(m *testing.M) int {
	atEnd.mu.Lock()
	atEnd.run = true
	atEnd.mu.Unlock()
	code := m.Run()
	atEnd.mu.Lock()
	defer atEnd.mu.Unlock()
	for _, f := range slices.Backward(atEnd.todo) {
		f()
	}
	return code
}

// atMainsEnd has f run by Main. It answers whether there is one.
func atMainsEnd(f func()) bool {
	atEnd.mu.Lock()
	defer atEnd.mu.Unlock()
	atEnd.todo = append(atEnd.todo, f)
	return atEnd.run
}

// process is a server that runs.
type process struct {
	cmd   *exec.Cmd
	said  words
	ended chan struct{}
}

// words is what a process wrote. It may be read while it runs.
type words struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.buf.Len() < 1<<20 {
		w.buf.Write(b)
	}
	return len(b), nil
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func start(name string, args ...string) (*process, error) {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return startCommand(cmd)
}

func startCommand(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // how it ended is in what it said
	}()
	return p, nil
}

// stop asks the process to end, and makes it when it does not.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// kill ends the process without asking.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// until waits for the server to answer.
func (p *process) until(ready func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended: %s", p.said.String())
		case <-time.After(30 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not answer after %s: %w\n%s", patience, err, p.said.String())
		}
	}
}

// run runs a command with that input, and answers what it wrote.
func run(input string, environment []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(name), err, out)
	}
	return string(out), nil
}

// certificate writes ca.pem, server.pem and server.key for one address, and
// for names, to a folder. Samba's own certificates may have a negative serial
// number, which Go refuses.
func certificate(dir string, address net.IP, names ...string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "groupgate test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "directory"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: append(names, "localhost"), IPAddresses: []net.IP{address},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: caDER}, "server.pem": {Type: "CERTIFICATE", Bytes: der},
		"server.key": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// freePorts are ports of loopback that nobody listens on. They are below those
// that the system gives to connections: a server that is stopped for a while
// finds its port free when it starts again.
func freePorts(n int) (ports []int, err error) {
	const first, last = 30_000, 32_700
	for range 200 {
		port := first + int(nextPort.Add(1)%(last-first))
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		ln.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no port is free")
}

// nextPort begins somewhere, because other test binaries run at the same time.
var nextPort = func() *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(mathrand.Int64N(1 << 20))
	return n
}()
