package sqlstore_test

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// wire is what lies between a store and its server. It counts how often the
// store waits for an answer, and can break.
type wire struct {
	to    string
	trips atomic.Int64 // times that the store spoke after the server had
	// dropAfter: what is sent with these bytes in it still arrives, and its
	// answer does not: the connection ends. It happens once.
	dropAfter atomic.Pointer[string]
	dark      atomic.Bool // nothing arrives, in either direction

	mu    sync.Mutex
	conns []net.Conn
}

// through answers the address of a database behind a wire.
func through(t *testing.T, dsn string) (string, *wire) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{to: u.Host}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", w.to)
			if err != nil {
				c.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, c, s)
			w.mu.Unlock()
			var spoke atomic.Bool // the server did last
			spoke.Store(true)
			all.Go(func() { w.carry(c, s, func() { w.count(&spoke) }, true) })
			all.Go(func() { w.carry(s, c, func() { spoke.Store(true) }, false) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		w.cut()
		all.Wait()
	})
	u.Host = ln.Addr().String()
	return u.String(), w
}

func (w *wire) count(spoke *atomic.Bool) {
	if spoke.Swap(false) {
		w.trips.Add(1)
	}
}

func (w *wire) carry(from, to net.Conn, said func(), outward bool) {
	defer from.Close()
	dropped := false
	defer func() {
		if !dropped {
			to.Close()
		}
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if w.dark.Load() {
			_, _ = io.Copy(io.Discard, from)
			return
		}
		if n > 0 {
			said()
			if _, err := to.Write(b[:n]); err != nil {
				// A close with something unread would take back what was sent.
				_, _ = io.Copy(io.Discard, from)
				return
			}
			if what := w.dropAfter.Load(); outward && what != nil && bytes.Contains(b[:n], []byte(*what)) && w.dropAfter.CompareAndSwap(what, nil) {
				if c, ok := to.(*net.TCPConn); ok {
					_ = c.CloseWrite() // the server reads all of it
				}
				dropped = true // the other direction closes it, when the server has ended
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut ends every connection.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}
