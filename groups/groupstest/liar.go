package groupstest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Liar stands in front of a target's server and answers in its place when it is
// told to.
type Liar struct {
	URL string

	mu   sync.Mutex
	lie  http.HandlerFunc
	from int // requests that are let through before the lie
	seen int
}

// NewLiar serves in front of a handler, on loopback, until the test ends.
func NewLiar(t testing.TB, honest http.Handler) *Liar {
	l := &Liar{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.seen++
		lie := l.lie
		if l.from > 0 {
			l.from--
			lie = nil
		}
		l.mu.Unlock()
		if lie != nil {
			_, _ = io.Copy(io.Discard, r.Body) // only then is it noticed that the client leaves
			lie(w, r)
			return
		}
		honest.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	l.URL = s.URL
	return l
}

// Lie has requests answered by lie once so many have passed; nil ends it.
func (l *Liar) Lie(lie http.HandlerFunc, after int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lie, l.from = lie, after
}

// Count answers how many requests came since the last call.
func (l *Liar) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.seen
	l.seen = 0
	return n
}

// status answers with a status, and with everything of the request that nobody
// may repeat.
func status(code int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(`{"detail":"` + secretCanary + `","scimType":"` + secretCanary + `","authorization":"` + strings.ReplaceAll(r.Header.Get("Authorization"), `"`, "") + `"}`))
	}
}

const secretCanary = "canary-in-the-answer"
