package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy"
)

// seen is one request as the upstream received it.
type seen struct {
	Method, URI, Host string
	Header, Trailer   http.Header
	Body              string
}

// upstream is an application that notes what it gets and can be told how to
// answer.
type upstream struct {
	*httptest.Server
	mu      sync.Mutex
	got     []seen
	handler http.HandlerFunc
}

func newUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(u.serve))
	t.Cleanup(u.Close)
	return u
}

// serve notes a request and answers it. A small body of known end is read
// first, so that its trailers are noted too; the rest is the handler's.
func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	h := u.handler
	u.mu.Unlock()
	body := ""
	if h == nil || len(r.Trailer) > 0 {
		b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		body = string(b)
	}
	u.note(r, body)
	if h != nil {
		h(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintln(w, "hello from the application")
}

func (u *upstream) note(r *http.Request, body string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.got = append(u.got, seen{r.Method, r.RequestURI, r.Host, r.Header.Clone(), r.Trailer.Clone(), body})
}

func (u *upstream) answer(h http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handler = h
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.got)
}

// last is the newest request; the test fails when there was none.
func (u *upstream) last(t testing.TB) seen {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.got) == 0 {
		t.Fatal("the upstream received nothing")
	}
	return u.got[len(u.got)-1]
}

// rig is a whole groupgate on loopback: provider, store, proxy over TLS,
// application.
type rig struct {
	t        testing.TB
	op       *claimstest.OP
	up       *upstream
	store    *sqlstore.Store
	path     string       // of its file
	faults   *faultyStore // what the directory sees of the store
	clock    *clock
	dir      *groups.Directory
	proxy    *proxy.Proxy
	server   *httptest.Server
	settings proxy.Settings
	groups   groups.Settings
	logs     *logSink
}

type logSink struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logSink) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logSink) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// option changes a rig before it starts.
type option func(*rig)

func person(subject string, groups ...string) claimstest.Person {
	list := make([]any, len(groups))
	for i, g := range groups {
		list[i] = g
	}
	return claimstest.Person{Subject: subject, Claims: map[string]any{
		"preferred_username": subject, "email": subject + "@example.com", "email_verified": true,
		"name": strings.ToUpper(subject[:1]) + subject[1:] + " Example", "groups": list,
	}}
}

func newRig(t testing.TB, opts ...option) *rig {
	t.Helper()
	r := &rig{t: t, logs: &logSink{}, clock: &clock{}}
	r.op = claimstest.Start(t, claimstest.Options{
		ClientID: "portal", ClientSecret: "secret-of-the-client", RotateRefresh: true,
		People: []claimstest.Person{person("alice", "engineering", "admins"), person("bob", "engineering"), person("carol")},
	})
	r.up = newUpstream(t)
	var err error
	r.path = filepath.Join(t.TempDir(), "groupgate.db")
	r.store, err = sqlstore.OpenSQLite(t.Context(), r.path, sqlstore.Options{PollInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(r.logs), zapcore.DebugLevel)
	log := zap.New(core)
	r.faults = &faultyStore{Store: r.store}
	r.dir = groups.NewDirectory(groups.Options{Store: r.faults, Log: log, Audit: log, Now: r.clock.Now})
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	dir := r.dir
	work.Go(func() { dir.Run(ctx) })
	t.Cleanup(func() { stop(); work.Wait() })
	r.proxy = proxy.New(proxy.Options{Directory: r.dir, Log: log, Access: log, Now: r.clock.Now})
	r.server = httptest.NewUnstartedServer(r.proxy)
	r.server.EnableHTTP2 = true
	cert, _, err := claimstest.LoopbackCertificate("127.0.0.1", "localhost", "eng.localhost", "board.localhost")
	if err != nil {
		t.Fatal(err)
	}
	r.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	r.groups = groups.Settings{
		Sync: groups.DefaultSync, Names: claims.Names{User: "preferred_username", Email: "email", Name: "name"},
		Sources: []groups.SourceSettings{{Name: "test", Groups: claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Keep}}},
		Rules:   []groups.Rule{{ID: "all", Source: "test", Claim: "groups", Any: true}},
	}
	r.settings = proxy.Settings{
		PublicURL: r.server.URL, Prefix: "/_auth", Upstream: r.up.URL,
		Session: proxy.SessionConfig{Lifetime: 12 * time.Hour, Idle: time.Hour, Refresh: 5 * time.Minute},
		Keys:    [][]byte{[]byte("0123456789abcdef0123456789abcdef")},
		Headers: proxy.HeadersConfig{GroupsFormat: proxy.Comma, MaxBytes: 8192, OnOverflow: proxy.OverflowError},
		Routes: []proxy.RouteConfig{
			{Path: "/public/", Access: proxy.Public}, {Path: "/admin/", Access: proxy.SignedIn, Groups: []string{"admins"}},
		},
	}
	for _, o := range opts {
		o(r)
	}
	if r.settings.Sources == nil {
		src := claims.NewOIDC(claims.OIDCOptions{
			Name:   "test",
			Config: claims.OIDCConfig{Issuer: r.op.URL, ClientID: "portal", ClientSecret: "secret-of-the-client"},
			Needed: func() []string { return []string{"groups", "preferred_username", "email", "name"} },
		})
		r.settings.Sources = []proxy.SourceEntry{{Source: src, Label: "Test account"}}
	}
	r.configure()
	return r
}

func (r *rig) configure() {
	r.t.Helper()
	if err := r.dir.Configure(r.t.Context(), r.groups); err != nil {
		r.t.Fatal(err)
	}
	if err := r.proxy.Configure(r.settings); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(r.server.TLS.Certificates[0].Certificate[0])
	if err != nil {
		r.t.Fatal(err)
	}
	pool.AddCert(leaf)
	return pool
}

func (r *rig) browser() *claimstest.Browser {
	b := claimstest.NewBrowser(r.roots())
	b.Hosts["eng.localhost"] = r.server.Listener.Addr().String()
	b.Hosts["board.localhost"] = r.server.Listener.Addr().String()
	r.t.Cleanup(b.Close)
	return b
}

// login signs a person in and ends on the page asked for.
func (r *rig) login(b *claimstest.Browser, subject, path string) *claimstest.Page {
	r.t.Helper()
	page, err := b.Login(r.server.URL+path, subject)
	if err != nil {
		r.t.Fatalf("login of %s: %v", subject, err)
	}
	return page
}

// cookie answers the Cookie header of a browser for the public host.
func (r *rig) cookie(b *claimstest.Browser) string {
	var out []string
	for _, c := range b.Cookies(r.server.URL + "/") {
		out = append(out, c.Name+"="+c.Value)
	}
	return strings.Join(out, "; ")
}

// do sends one request as a script would, without following redirects.
func (r *rig) do(method, path string, edit func(*http.Request)) *http.Response {
	r.t.Helper()
	req, err := http.NewRequest(method, r.server.URL+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	res, err := r.client().Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	return res
}

func (r *rig) client() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots()}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}
}

// raw writes bytes to the listener and reads the answer.
func (r *rig) raw(request string) (*http.Response, error) {
	conn, err := tls.Dial("tcp", r.server.Listener.Addr().String(), &tls.Config{RootCAs: r.roots(), ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}})
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	return readResponse(conn)
}

func signedIn(cookie string) func(*http.Request) {
	return func(req *http.Request) { req.Header.Set("Cookie", cookie) }
}

func groupsOf(t testing.TB, r *rig, name string) []string {
	t.Helper()
	u, err := r.store.UserByName(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	names, err := r.store.GroupNames(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func bodyOf(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
