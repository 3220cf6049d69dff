package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// nowhere is a client that reads nothing.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}

// BenchmarkSignedIn is the heartbeat: a signed-in request from the handler to
// an application on loopback and back. The application is in the figures.
func BenchmarkSignedIn(b *testing.B) {
	r := newRig(b)
	cookie := r.signIn("alice")
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	b.Cleanup(app.Close)
	r.settings.Upstream = app.URL
	r.configure()
	req := httptest.NewRequest("GET", r.server.URL+"/reports", nil)
	req.RemoteAddr = "127.0.0.1:1"
	req.Header.Set("Cookie", cookie)
	w := &nowhere{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		r.proxy.ServeHTTP(w, req)
	}
}
