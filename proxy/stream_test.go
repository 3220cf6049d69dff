package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// SC-22: an event is on its way as soon as the application wrote it.
func TestEventsAreFlushedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	next := make(chan string)
	r.up.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for text := range next {
			io.WriteString(w, text+"\n")
			w.(http.Flusher).Flush()
		}
	})
	go func() { next <- "first" }()
	res := r.do("GET", "/events", signedIn(cookie))
	stream := bufio.NewReader(res.Body)
	for i := range 5 {
		want := "first"
		if i > 0 {
			// Only after the one before has arrived is the next written.
			want = fmt.Sprint("event ", i)
			next <- want
		}
		if got, err := stream.ReadString('\n'); err != nil || got != want+"\n" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(stream); err != nil || len(rest) != 0 {
		t.Errorf("the end: %q, %v", rest, err)
	}
	if n := r.proxy.Live(); n != 0 {
		t.Errorf("%d streams are still counted", n)
	}
}

// Trailers pass in both directions, but not in our name.
func TestTrailersPass(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Trailer", "X-Answer-Checksum")
		io.Copy(w, req.Body)
		w.Header().Set("X-Answer-Checksum", "7")
		w.Header().Set(http.TrailerPrefix+"X-Late", "8")
	})
	req, err := http.NewRequest("POST", r.server.URL+"/x", io.MultiReader(strings.NewReader("body")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", cookie)
	req.Trailer = http.Header{"X-Checksum": {"42"}, "X-Forwarded-User": {evil}}
	res, err := r.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body := bodyOf(t, res)
	got := r.up.last(t)
	if got.Trailer.Get("X-Checksum") != "42" || len(got.Trailer) != 1 {
		t.Errorf("the upstream got trailers %v", got.Trailer)
	}
	if res.Trailer.Get("X-Answer-Checksum") != "7" || res.Trailer.Get("X-Late") != "8" {
		t.Errorf("the client got trailers %v", res.Trailer)
	}
	_ = body
}

// endless is a body that is made while it is read.
type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.left)
	for i := range p[:n] {
		p[i] = byte(i)
	}
	e.left -= n
	return int(n), nil
}

// SC-14: 100 MiB up and down, and the memory stays flat.
func TestLargeBodiesAreStreamed(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 200 MiB")
	}
	r := newRig(t)
	cookie := r.signIn("alice")
	const size = 100 << 20
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		n, err := io.Copy(io.Discard, req.Body)
		if err != nil || req.Method == "POST" && n != size {
			w.WriteHeader(400)
			return
		}
		io.Copy(w, &endless{size})
	})
	var peak atomic.Uint64
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				peak.Store(max(peak.Load(), now.HeapInuse))
			}
		}
	}()
	client := r.client()
	client.Timeout = 0
	for _, length := range []int64{size, -1} {
		req, err := http.NewRequest("POST", r.server.URL+"/x", &endless{size})
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		req.Header.Set("Cookie", cookie)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || n != size {
			t.Errorf("%d, %d bytes down, %v", res.StatusCode, n, err)
		}
	}
	close(stop)
	<-done
	if grew := int64(peak.Load()) - int64(before.HeapInuse); grew > 16<<20 {
		t.Errorf("the heap grew by %d KiB", grew>>10)
	}
}

// Expect: 100-continue asks the application, not us: a refusal comes before
// the body is sent.
func TestContinue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/refuse" {
			w.WriteHeader(413)
			return
		}
		n, _ := io.Copy(io.Discard, req.Body)
		fmt.Fprint(w, n)
	})
	for path, want := range map[string]int{"/take": 100, "/refuse": 413} {
		conn, err := tls.Dial("tcp", r.server.Listener.Addr().String(), &tls.Config{RootCAs: r.roots(), NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nCookie: %s\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", path, r.port(), cookie)
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != want {
			t.Fatalf("%s: %v, %v", path, res, err)
		}
		if want != 100 {
			continue
		}
		io.WriteString(conn, "12345")
		if res, err = http.ReadResponse(in, nil); err != nil || res.StatusCode != 200 || bodyOf(t, res) != "5" {
			t.Errorf("%s: %v, %v", path, res, err)
		}
	}
}

// gRPC is HTTP/2 with trailers, towards the client and the upstream.
func TestLikeGRPC(t *testing.T) {
	t.Parallel()
	up := newH2CUpstream(t)
	r := newRig(t, func(r *rig) { r.up = up }, upstreamAt("h2c://"+strings.TrimPrefix(up.URL, "http://")))
	cookie := r.signIn("alice")
	up.answer(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		buf := make([]byte, 5)
		for {
			n, err := req.Body.Read(buf)
			w.Write(bytes.ToUpper(buf[:n]))
			w.(http.Flusher).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("Grpc-Message", "done")
	})
	// Both directions at once: each message is answered before the next.
	in, out := io.Pipe()
	req, err := http.NewRequest("POST", r.server.URL+"/pkg.Service/Method", in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", cookie)
	req.Header.Set("Te", "trailers")
	req.Header.Set("Content-Type", "application/grpc")
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots()}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.ProtoMajor != 2 || res.StatusCode != 200 {
		t.Fatalf("%s %d", res.Proto, res.StatusCode)
	}
	for _, text := range []string{"hello", "world"} {
		io.WriteString(out, text)
		got := make([]byte, 5)
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != strings.ToUpper(text) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	out.Close()
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "done" {
		t.Errorf("trailers %v", res.Trailer)
	}
	got := up.last(t)
	if got.Header.Get("Te") != "trailers" || got.Header.Get("X-Forwarded-User") != "alice" {
		t.Errorf("the upstream got %v", got.Header)
	}
}

func TestUnixSocketUpstream(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gg") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "app.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	up := &upstream{Server: &httptest.Server{Listener: ln}}
	up.Config = &http.Server{Handler: http.HandlerFunc(up.serve)}
	up.Start()
	t.Cleanup(up.Close)
	r := newRig(t, func(r *rig) { r.up = up }, upstreamAt("unix:"+path))
	cookie := r.signIn("alice")
	if res := r.do("GET", "/x?y", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	if got := up.last(t); got.Header.Get("X-Forwarded-User") != "alice" || got.Host != "127.0.0.1:"+r.port() || got.URI != "/x?y" {
		t.Errorf("the upstream got %+v", got)
	}
}
