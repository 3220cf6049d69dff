package scim

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/groupstest"
)

// withServers ends the server that the tests share.
type withServers struct{ m *testing.M }

func (w withServers) Run() int { return testenv.Main(w.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServers{m}) }

// server is a real service provider, with one that may lie before it, and one
// that answers PATCH in its place unless patch is 0.
func server(t *testing.T, listed bool, patch int) groupstest.Remote {
	t.Helper()
	base, token := testenv.SCIM(t, listed)
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: u.Scheme, Host: u.Host}) }}
	l := groupstest.NewLiar(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch && patch != 0 {
			w.WriteHeader(patch)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	target := New(Config{URL: l.URL + u.Path + "/", Token: token})
	t.Cleanup(func() { _ = target.Close() })
	s := &space{t: t, base: base, token: token, client: &http.Client{Transport: transport}}
	return groupstest.Remote{Target: target, Liar: l, Secret: token, Plain: true, Holds: s.holds, Put: s.put}
}

// space is what the server keeps, looked at past the liar and by other means
// than the target's.
type space struct {
	t           *testing.T
	base, token string
	client      *http.Client
}

func (s *space) ask(method, path, body string, into any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/scim+json")
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil || res.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %d, %v", method, path, res.StatusCode, err)
	}
}

func (s *space) all(kind string) []resource {
	s.t.Helper()
	var list struct{ Resources []resource }
	s.ask("GET", "/"+kind+"?count=1000", "", &list)
	return list.Resources
}

func (s *space) user(name string) (id string) {
	for _, u := range s.all("Users") {
		if u.UserName == name {
			id = u.ID
		}
	}
	return id
}

func (s *space) holds(user string) (in []string) {
	id := s.user(user)
	for _, g := range s.all("Groups") {
		if slices.ContainsFunc(g.Members, func(m member) bool { return m.Value == id }) {
			in = append(in, g.DisplayName)
		}
	}
	slices.Sort(in)
	return in
}

func (s *space) put(user, group string) {
	id := s.user(user)
	var made resource
	if id == "" {
		s.ask("POST", "/Users", `{"schemas":["`+userSchema+`"],"userName":`+quote(user)+`}`, &made)
		id = made.ID
	}
	s.ask("POST", "/Groups", `{"schemas":["`+groupSchema+`"],"displayName":`+quote(group)+`,"members":[{"value":`+quote(id)+`}]}`, &made)
}

func TestTarget(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]struct {
		listed bool
		patch  int
	}{
		"users list their groups": {true, 0}, "they do not": {false, 0}, "without PATCH (501)": {false, 501}, "without PATCH (404)": {true, 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			groupstest.TestTarget(t, func(t *testing.T) groupstest.Remote { return server(t, kind.listed, kind.patch) })
		})
	}
}

// A name that the server's filters cannot take is refused, and tried no more;
// the escape is RFC 7644's all the same.
func TestNamesInFilters(t *testing.T) {
	t.Parallel()
	if got, want := quote("a\"b\\c<d>"), `"a\"b\\c<d>"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	r := server(t, true, 0)
	err := r.Target.Push(t.Context(), groups.Person{User: groups.User{ID: 1, Name: `a"b`}, Groups: []string{"x"}, Added: []string{"x"}})
	if !errors.Is(err, groups.ErrTargetRefused) || !strings.Contains(err.Error(), "(invalidFilter)") {
		t.Errorf("a quotation mark: %v", err)
	}
}

// GS-18: a server that says 200 and does nothing is found out.
func TestWhatIsNotDoneIsNoSuccess(t *testing.T) {
	t.Parallel()
	for _, listed := range []bool{true, false} {
		r := server(t, listed, http.StatusOK)
		r.Put("alice", "theirs")
		r.Put("bob", "a")
		p := groups.Person{User: groups.User{ID: 1, Name: "alice"}, Groups: []string{"a"}, Added: []string{"a"}}
		if err := r.Target.Push(t.Context(), p); err == nil || errors.Is(err, groups.ErrTargetRefused) || !strings.Contains(err.Error(), "did not do what it said") {
			t.Errorf("listed %v: %v", listed, err)
		}
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	r := server(t, false, 0)
	r.Put("alice", "a")
	if said, err := r.Target.(*Target).Probe(t.Context()); err != nil || said != "SCIM 2.0, 1 groups" {
		t.Errorf("%q, %v", said, err)
	}
	base, _ := testenv.SCIM(t, false)
	stranger := New(Config{URL: base, Token: "another"})
	defer stranger.Close()
	if _, err := stranger.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with another token: %v", err)
	}
}
