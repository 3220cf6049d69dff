package testenv

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Front is a server that people put in front of groupgate, or beside it.
type Front struct{ process *process }

// Log is what the server wrote.
func (f *Front) Log() string { return f.process.said.String() }

// Certificate writes ca.pem, server.pem, server.key, and server.both with the
// last two to a folder, for loopback and these names.
func Certificate(tb testing.TB, dir string, names ...string) {
	tb.Helper()
	if err := certificate(dir, net.IPv4(127, 0, 0, 1), names...); err != nil {
		tb.Fatal(err)
	}
	var both []byte
	for _, name := range []string{"server.pem", "server.key"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			tb.Fatal(err)
		}
		both = append(both, raw...)
	}
	if err := os.WriteFile(filepath.Join(dir, "server.both"), both, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// newFront starts a server until the test ends, and waits until it listens.
func newFront(tb testing.TB, address, name string, args ...string) *Front {
	tb.Helper()
	p, err := start(name, args...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.stop)
	if err := p.until(func() error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	}); err != nil {
		tb.Fatalf("%s: %v", filepath.Base(name), err)
	}
	return &Front{process: p}
}

// newFolder is one that other users may look into, and what it holds is gone
// with the test.
func newFolder(tb testing.TB, name string) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "groupgate-"+name+"-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
