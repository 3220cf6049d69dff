package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy"
)

// clock is the time of the proxy and the directory; the provider has its own.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// faultyStore is the real store with a switch to take it away, and a count of
// what is read for sessions.
type faultyStore struct {
	*sqlstore.Store
	down   atomic.Bool
	shared bool // others work on it too
	reads  atomic.Int64
	// held, when set, gets a channel once a person's groups have been read; the
	// reader waits until that is closed.
	held atomic.Pointer[chan chan struct{}]
}

func (f *faultyStore) GroupNames(ctx context.Context, user groups.UserID) ([]string, error) {
	names, err := f.Store.GroupNames(ctx, user)
	if held := f.held.Swap(nil); held != nil {
		release := make(chan struct{})
		*held <- release
		<-release
	}
	return names, err
}

func (f *faultyStore) fault() error {
	if f.down.Load() {
		return fmt.Errorf("test: %w", groups.ErrUnavailable)
	}
	return f.Store.Healthy()
}

func (f *faultyStore) Healthy() error { return f.fault() }
func (f *faultyStore) Shared() bool   { return f.shared }

func (f *faultyStore) Session(ctx context.Context, hash [32]byte) (*groups.Session, error) {
	f.reads.Add(1)
	if err := f.fault(); err != nil {
		return nil, err
	}
	return f.Store.Session(ctx, hash)
}

func (f *faultyStore) Update(ctx context.Context, fn func(groups.Tx) error) error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.Store.Update(ctx, fn)
}

// signIn signs a person in with a fresh browser and answers the Cookie header.
func (r *rig) signIn(subject string) string {
	r.t.Helper()
	b := r.browser()
	page := r.login(b, subject, "/_auth/start?source=test&rd=/")
	if page.Status != 200 {
		r.t.Fatalf("login of %s ended with %d: %s", subject, page.Status, page.Body)
	}
	return r.cookie(b)
}

// port is the listener's, for addresses of portals.
func (r *rig) port() string {
	u, err := url.Parse(r.server.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	return u.Port()
}

func (r *rig) portal(name string) string { return "https://" + name + ":" + r.port() }

// hop is one step without following redirects, as this browser.
func hop(t testing.TB, b *claimstest.Browser, address string) *http.Response {
	t.Helper()
	req, err := http.NewRequest("GET", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range b.Header {
		req.Header[name] = v
	}
	res, err := b.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res
}

// begin starts a login and answers the state that was sent to the provider.
func (r *rig) begin(b *claimstest.Browser, query string) (state, authorize string) {
	r.t.Helper()
	res := hop(r.t, b, r.server.URL+"/_auth/start?"+query)
	if res.StatusCode != http.StatusFound {
		r.t.Fatalf("start answered %d", res.StatusCode)
	}
	at := res.Header.Get("Location")
	u, err := url.Parse(at)
	if err != nil || !strings.HasPrefix(at, r.op.URL) {
		r.t.Fatalf("start led to %q", at)
	}
	return u.Query().Get("state"), at
}

// answer lets the provider sign the subject in, and gives the callback's
// address without going there.
func (r *rig) answer(b *claimstest.Browser, authorize, subject string) string {
	r.t.Helper()
	res := hop(r.t, b, authorize+"&login_hint="+url.QueryEscape(subject))
	at := res.Header.Get("Location")
	if !strings.Contains(at, "/_auth/callback/") {
		r.t.Fatalf("the provider sent the browser to %q", at)
	}
	return at
}

// page is a navigation's headers.
func page(req *http.Request) {
	req.Header.Set("Accept", "text/html,*/*;q=0.8")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
}

func edits(list ...func(*http.Request)) func(*http.Request) {
	return func(req *http.Request) {
		for _, e := range list {
			if e != nil {
				e(req)
			}
		}
	}
}

func header(name string, values ...string) func(*http.Request) {
	return func(req *http.Request) { req.Header[name] = values }
}

// trustLoopback makes the tests' own client a trusted proxy.
func trustLoopback(r *rig) {
	r.settings.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// portals adds two portals with upstreams of their own answering.
func portals(r *rig) {
	r.settings.Routes = append(r.settings.Routes,
		proxy.RouteConfig{Host: "eng.localhost", Groups: []string{"engineering"}, Upstream: r.up.URL},
		proxy.RouteConfig{Host: "board.localhost", Upstream: r.up.URL})
}

func withSigner(r *rig) {
	der, err := proxy.GenerateSigningKey()
	if err != nil {
		r.t.Fatal(err)
	}
	if r.settings.Signer, err = proxy.NewSigner(der); err != nil {
		r.t.Fatal(err)
	}
	r.settings.Headers.Assertion = "X-Groupgate-Assertion"
}

func headers(h proxy.HeadersConfig) option {
	return func(r *rig) {
		if h.GroupsFormat == "" {
			h.GroupsFormat = proxy.Comma
		}
		if h.MaxBytes == 0 {
			h.MaxBytes = 8192
		}
		if h.OnOverflow == "" {
			h.OnOverflow = proxy.OverflowError
		}
		r.settings.Headers = h
	}
}

// upstreamAt points everything at another application.
func upstreamAt(address string) option { return func(r *rig) { r.settings.Upstream = address } }

// source makes the rig's provider a source of another name.
func (r *rig) source(name string) proxy.SourceEntry {
	src := claims.NewOIDC(claims.OIDCOptions{
		Name:   name,
		Config: claims.OIDCConfig{Issuer: r.op.URL, ClientID: "portal", ClientSecret: "secret-of-the-client"},
		Needed: func() []string { return []string{"groups", "preferred_username", "email", "name"} },
	})
	return proxy.SourceEntry{Source: src, Label: "Account at " + name}
}

// twoSources adds a second source at the same provider.
func twoSources(r *rig) {
	r.settings.Sources = []proxy.SourceEntry{r.source("test"), r.source("other")}
	second := r.groups.Sources[0]
	second.Name = "other"
	r.groups.Sources = append(r.groups.Sources, second)
}

func events(t testing.TB, r *rig, kind string) []groups.Event {
	t.Helper()
	list, err := r.store.Events(t.Context(), groups.EventQuery{Kind: kind, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// eventually waits for something another goroutine does.
func eventually(t testing.TB, what string, within time.Duration, done func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// contextFor is a request's context, of one that goes away soon or stays.
func contextFor(t testing.TB, soon bool) (context.Context, context.CancelFunc) {
	if soon {
		return context.WithTimeout(t.Context(), 2*time.Millisecond)
	}
	return context.WithTimeout(t.Context(), 10*time.Second)
}

// bodyMaybe is what of a body arrived before the request went away; all of it
// or nothing.
func bodyMaybe(res *http.Response) string {
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return ""
	}
	return string(b)
}

// atOnce asks n times side by side and counts the answers by status.
func atOnce(t *testing.T, n int, ask func() (*http.Response, error)) map[int]int {
	t.Helper()
	var all sync.WaitGroup
	codes := make(chan int, n)
	for range n {
		all.Go(func() {
			res, err := ask()
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			codes <- res.StatusCode
		})
	}
	all.Wait()
	close(codes)
	count := map[int]int{}
	for code := range codes {
		count[code]++
	}
	return count
}
