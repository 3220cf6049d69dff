package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	servers "github.com/groupgate/groupgate/deploy/testenv"
)

// fleet is three groupgates on one PostgreSQL, behind nginx, which gives them
// the requests in turn.
type fleet struct {
	t      *testing.T
	op     *claimstest.OP
	up     *upstream
	pg     *servers.PostgresServer
	front  string // host:port of nginx
	places []place
	gates  []*gate
	host   http.Client // follows nothing
}

// wires says how a replica gets to its database; nil leaves the address alone.
type wires func(replica int, dsn string) string

func newFleet(t *testing.T, pg *servers.PostgresServer, session string, wire wires) *fleet {
	t.Helper()
	f := &fleet{t: t, pg: pg, up: newUpstream(t), front: freeAddress(t)}
	f.op = claimstest.Start(t, claimstest.Options{
		Alg: "ES256", ClientID: "groupgate", ClientSecret: opSecret, RotateRefresh: true,
		People: []claimstest.Person{person("alice", "eng"), person("bob", "eng")},
	})
	f.host.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	f.host.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(f.host.CloseIdleConnections)
	database := pg.NewDatabase(t, "")
	var servers strings.Builder
	for i := range 3 {
		p := newPlace(t)
		dsn := pg.DSN(database)
		if wire != nil {
			dsn = wire(i, dsn)
		}
		text := fmt.Sprintf("listen: %q\npublic_url: http://%s\nupstream: %s\nstore: {postgres: %q}\nadmin: {listen: %q, token: %s}\n"+
			"trusted_proxies: [127.0.0.1/32]\nsession: {%s}\nsources:%s\n  - {name: local, local: {}}\nrules: [{source: op, claim: groups, any: true}]\n",
			p.public, f.front, f.up.URL, dsn, p.admin, adminToken, session, oidc("op", f.op.URL, opSecret))
		putFile(t, p.config(), []byte(text))
		f.places = append(f.places, p)
		fmt.Fprintf(&servers, "\tserver %s max_fails=1 fail_timeout=1s;\n", p.public)
	}
	for _, p := range f.places {
		f.gates = append(f.gates, p.launch(t)) // at once: one of them makes the schema and the keys
	}
	for _, g := range f.gates {
		g.waitReady()
	}
	f.nginx(servers.String())
	return f
}

func (f *fleet) nginx(upstreams string) {
	f.t.Helper()
	file := f.t.TempDir() + "/fleet.conf"
	text := fmt.Sprintf(`upstream gates {
%s	keepalive 16;
}
server {
	listen %s;
	location / {
		proxy_pass http://gates;
		proxy_http_version 1.1;
		proxy_set_header Connection "";
		proxy_set_header Host $http_host;
		proxy_set_header X-Forwarded-For $remote_addr;
		proxy_next_upstream error timeout;
		proxy_buffer_size 32k;
		proxy_buffers 8 32k;
	}
}
`, upstreams, f.front)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	servers.Nginx(f.t, file, f.front)
}

func (f *fleet) url() string { return "http://" + f.front }

// signIn signs somebody in through nginx and answers the session's cookie.
func (f *fleet) signIn(person string) string {
	f.t.Helper()
	b := newBrowser(f.t)
	page, err := b.Login(f.url()+"/_auth/start?source=op&rd=/", person)
	if err != nil || page.Status != http.StatusOK {
		f.t.Fatalf("login of %s: %v, %+v", person, err, page)
	}
	for _, c := range b.Cookies(f.url()) {
		if c.Name == "groupgate" {
			return "groupgate=" + c.Value
		}
	}
	f.t.Fatalf("%s has no session: %v", person, b.Cookies(f.url()))
	return ""
}

// answer is what a request with a cookie gets: from nginx, or from one replica
// under nginx' name.
func (f *fleet) answer(address, cookie string) (status int, groups string, err error) {
	req, err := http.NewRequest("GET", "http://"+address+"/", nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = f.front
	req.Header.Set("Cookie", cookie)
	res, err := f.host.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, "", err
	}
	_, rest, _ := strings.Cut(string(raw), `"X-Forwarded-Groups":["`)
	groups, _, _ = strings.Cut(rest, `"`)
	return res.StatusCode, groups, nil
}

// all reports whether every replica answers so.
func (f *fleet) all(cookie string, status int, groups string) bool {
	for _, p := range f.places {
		if s, g, err := f.answer(p.public, cookie); err != nil || s != status || g != groups {
			return false
		}
	}
	return true
}

// within waits until something is so, and answers how long that took.
func (f *fleet) within(limit time.Duration, what string, ok func() bool) time.Duration {
	f.t.Helper()
	for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		if ok() {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			for i, g := range f.gates {
				f.t.Logf("replica %d:\n%s", i, end(g.log.all()))
			}
			f.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

const maxLoad = 12000

// load asks through nginx until it is stopped, at most 12,000 times, and counts
// what was not answered as it should be.
type load struct {
	stop  chan struct{}
	done  sync.WaitGroup
	asked atomic.Int64
	mu    sync.Mutex
	wrong []string
}

func (f *fleet) load(clients int, cookie, groups string) *load {
	l := &load{stop: make(chan struct{})}
	for range clients {
		l.done.Go(func() {
			for range maxLoad / clients {
				select {
				case <-l.stop:
					return
				case <-time.After(8 * time.Millisecond):
				}
				status, got, err := f.answer(f.front, cookie)
				l.asked.Add(1)
				if err != nil || status != http.StatusOK || got != groups {
					l.mu.Lock()
					l.wrong = append(l.wrong, fmt.Sprint(status, " ", got, " ", err))
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

// end stops the load and answers what went wrong.
func (l *load) end() []string {
	close(l.stop)
	l.done.Wait()
	return l.wrong
}

// wire is a TCP connection to a server that can be cut: then nothing arrives
// any more, and nobody is told.
type wire struct {
	net.Listener
	to  string
	cut atomic.Bool
	mu  sync.Mutex
	all []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: ln, to: to}
	go w.serve()
	t.Cleanup(func() {
		ln.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.all {
			c.Close()
		}
	})
	return w
}

func (w *wire) serve() {
	for {
		near, err := w.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil {
			near.Close()
			continue
		}
		w.mu.Lock()
		w.all = append(w.all, near, far)
		w.mu.Unlock()
		go w.carry(near, far)
		go w.carry(far, near)
	}
}

func (w *wire) carry(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		for w.cut.Load() {
			time.Sleep(5 * time.Millisecond) // what was sent waits in the network
		}
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			from.Close()
			to.Close()
			return
		}
	}
}
