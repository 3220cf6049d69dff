package admin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "token-canary-5f1d"

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// api is an admin listener over a real store, with two sources and a rule of
// the file.
type api struct {
	t     *testing.T
	url   string
	h     *admin.Server
	dir   *groups.Directory
	store *sqlstore.Store
	clock *clock
	logs  *observer.ObservedLogs
	spec  *spec
}

func settings() groups.Settings {
	return groups.Settings{
		Sync:  groups.DefaultSync,
		Names: claims.Names{User: "preferred_username", Email: "email", Name: "name"},
		Link:  []string{"entra", "corp"},
		Sources: []groups.SourceSettings{
			{Name: "entra", Groups: claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Clear}},
			{Name: "corp", Groups: claims.GroupClaims{Claims: []string{"memberOf"}, WhenAbsent: claims.Keep}},
		},
		Rules: []groups.Rule{{
			ID: "f-0123456789", Location: "groupgate.yaml:7", Source: "entra", Claim: "groups", Value: "eng", Group: "engineering",
		}},
	}
}

func newAPI(t *testing.T, change ...func(*groups.Settings, *admin.Options)) *api {
	t.Helper()
	c := &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("east", 3600))}
	store, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "groupgate.db"), sqlstore.Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	dir := groups.NewDirectory(groups.Options{Store: store, Log: log, Audit: log, Now: c.now})
	set := settings()
	o := admin.Options{
		Directory: dir, Log: log, Now: c.now, Hosts: []string{"Admin.Example.com"},
		TokenHash:  func() [32]byte { return sha256.Sum256([]byte(token)) },
		Metrics:    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") }),
		Sources:    testSources,
		TestSource: testSource,
		Headers: func(v *groups.View) ([][2]string, string) {
			return [][2]string{{"X-Forwarded-User", v.User.Name}, {"X-Forwarded-Email", v.User.Email}, {"X-Forwarded-Groups", strings.Join(v.Groups, ",")}}, ""
		},
	}
	for _, fn := range change {
		fn(&set, &o)
	}
	if err := dir.Configure(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	h := admin.New(o)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &api{t: t, url: srv.URL, h: h, dir: dir, store: store, clock: c, logs: logs, spec: readSpec(t)}
}

func testSources() []admin.SourceStatus {
	return []admin.SourceStatus{
		{Name: "entra", Label: "Company", Kind: "oidc", Ready: true},
		{Name: "corp", Label: "corp", Kind: "oidc", Problem: "corp: discovery: connection refused"},
	}
}

func testSource(_ context.Context, name string) (string, error) {
	if name == "corp" {
		return "", errors.New("corp: discovery: connection refused")
	}
	return "reached", nil
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

type problem struct {
	Type, Title, Detail, Instance string
	Status                        int
	Errors                        []struct{ Key, Message string }
	Faults                        []admin.LineFault
}

// call sends a request with the token and checks the answer against the
// description the API gives of itself. Headers are "Name: value".
func (a *api) call(method, path, body string, headers ...string) answer {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	raw, query, _ := strings.Cut(path, "?")
	req.URL.Opaque, req.URL.RawQuery = "//"+req.URL.Host+"/api/v1"+raw, query // sent as it is written
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	out := answer{status: res.StatusCode, header: res.Header}
	if out.body, err = io.ReadAll(res.Body); err != nil {
		a.t.Fatal(err)
	}
	a.spec.check(a.t, method, raw, out)
	return out
}

// ok is call for an answer of the given status, read into T.
func ok[T any](a *api, status int, method, path, body string, headers ...string) T {
	a.t.Helper()
	got := a.call(method, path, body, headers...)
	var v T
	if got.status != status {
		a.t.Fatalf("%s %s: %d, want %d: %s", method, path, got.status, status, got.body)
	}
	if len(got.body) > 0 {
		if err := json.Unmarshal(got.body, &v); err != nil {
			a.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return v
}

// done is call for an answer without a body.
func (a *api) done(method, path string, headers ...string) {
	a.t.Helper()
	if got := a.call(method, path, "", headers...); got.status != 204 || len(got.body) != 0 {
		a.t.Fatalf("%s %s: %d, want 204: %s", method, path, got.status, got.body)
	}
}

// refused is call for a problem of the given status.
func (a *api) refused(status int, method, path, body string, headers ...string) problem {
	a.t.Helper()
	got := a.call(method, path, body, headers...)
	var p problem
	if err := json.Unmarshal(got.body, &p); err != nil {
		a.t.Fatalf("%s %s: %d %q: %v", method, path, got.status, got.body, err)
	}
	if got.status != status || p.Status != status || p.Title == "" || p.Type == "" || p.Instance == "" ||
		got.header.Get("Content-Type") != "application/problem+json" || got.header.Get("X-Request-Id") != p.Instance {
		a.t.Fatalf("%s %s: %d, want %d: %s", method, path, got.status, status, got.body)
	}
	return p
}

// signIn states claims about a person and answers the user's id.
func (a *api) signIn(source, subject, statement string) groups.UserID {
	a.t.Helper()
	return a.session(source, subject, statement, nil, nil)
}

func (a *api) session(source, subject, statement string, l *groups.Login, s *groups.Session) groups.UserID {
	a.t.Helper()
	c, err := claims.Parse([]byte(statement))
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := a.dir.SignIn(a.t.Context(), groups.SignIn{
		Identity: &claims.Identity{Source: source, Subject: subject, Claims: c, IssuedAt: a.clock.now()},
		Login:    l, Session: s, Request: "req-" + subject,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return out.User.ID
}

type listOf[T any] struct {
	Items []T
	Next  *string
}

// all pages through a list to its end.
func all[T any](a *api, path string, limit string) []T {
	a.t.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	var out []T
	next := ""
	for range 1000 {
		p := ok[listOf[T]](a, 200, "GET", path+sep+"limit="+limit+next, "")
		out = append(out, p.Items...)
		if p.Next == nil {
			return out
		}
		if len(p.Items) == 0 {
			a.t.Fatalf("%s: an empty page with a next one", path)
		}
		next = "&after=" + url.QueryEscape(*p.Next)
	}
	a.t.Fatalf("%s: the list does not end", path)
	return nil
}

func nothingIn(t *testing.T, text []byte, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if bytes.Contains(text, []byte(s)) {
			t.Errorf("%q was given away in %s", s, text)
		}
	}
}

// cursorOf is a cursor that holds a text.
func cursorOf(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
