package proxy_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// A program that begins with many requests at once tries its password once.
func TestBasicAtOnceIsOneCheck(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	d.Lie(func(k *claimstest.DirectoryKnobs) { k.Delay = 20 * time.Millisecond })
	ask := func(password string) func() (*http.Response, error) {
		return func() (*http.Response, error) {
			req, err := http.NewRequest("GET", r.server.URL+"/api/x", nil)
			if err != nil {
				return nil, err
			}
			req.SetBasicAuth("alice", password)
			return r.client().Do(req)
		}
	}
	if codes := atOnce(t, 50, ask(alicePassword)); codes[200] != 50 || tried(d) != 1 {
		t.Errorf("%v, %d passwords tried", codes, tried(d))
	}
	if ins := events(t, r, groups.EventSignIn); len(ins) != 1 {
		t.Errorf("%d sign-ins", len(ins))
	}
	d.Forget()
	r.clock.advance(6 * time.Minute)
	if codes := atOnce(t, 50, ask(alicePassword)); codes[200] != 50 || tried(d) != 1 {
		t.Errorf("after the refresh: %v, %d passwords tried", codes, tried(d))
	}
	d.Forget()
	if codes := atOnce(t, 30, ask("wrong")); codes[401] != 30 || tried(d) == 0 || tried(d) > 10 {
		t.Errorf("wrong: %v, %d passwords tried", codes, tried(d))
	}
}

// LD-12: guesses by HTTP Basic are counted like those on the form, whatever
// spelling; who has the right password already is not locked out by them, nor
// is anybody else.
func TestBasicIsThrottled(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	r.wants("bob", "/api/x", 200, basic("bob", bobPassword))
	r.clock.advance(6 * time.Minute) // so that he is asked about again
	d.Forget()
	spellings := []string{"alice", "ALICE", `CORP\alice`, "alice@example.com", " alice", "\uff41lice"}
	codes := map[int]int{}
	for i := range 60 {
		res := r.do("GET", "/api/x", basic(spellings[i%len(spellings)], fmt.Sprintf("guess %d", i)))
		codes[res.StatusCode]++
		if res.StatusCode == 429 && (res.Header.Get("Retry-After") == "" || !strings.Contains(bodyOf(t, res), `"error":"too_many_attempts"`)) {
			t.Errorf("throttled with %v", res.Header)
		}
	}
	if n := tried(d); codes[401]+codes[429] != 60 || codes[429] == 0 || n == 0 || n > 10 {
		t.Errorf("%v, %d guesses reached the directory", codes, n)
	}
	r.wants("the right one, from nowhere known", "/api/x", 429, basic("alice", alicePassword))
	// The form shares the bucket.
	b := r.browser()
	if at := formLogin(t, r, b, "corp", "alice", alicePassword); at.Status != 429 {
		t.Errorf("the form answered %d", at.Status)
	}
	// Bob's program goes on, though somebody guesses at his account, too.
	for i := range 20 {
		if res := r.do("GET", "/api/x", basic("bob", fmt.Sprintf("guess %d", i))); res.StatusCode != 401 && res.StatusCode != 429 {
			t.Errorf("a guess was answered %d", res.StatusCode)
		}
	}
	r.wants("bob, under attack", "/api/x", 200, basic("bob", bobPassword))
	if h := r.up.last(t).Header.Get("X-Forwarded-User"); h != "bob" {
		t.Errorf("bob is %q", h)
	}
	r.clock.advance(20 * time.Minute)
	r.wants("when it is over", "/api/x", 200, basic("alice", alicePassword))
	if logs := r.logs.String(); strings.Contains(logs, "guess ") {
		t.Error("a guess is in the log")
	}
}

// formLogin fills in the form of a source.
func formLogin(t *testing.T, r *rig, b *claimstest.Browser, source, user, password string) *claimstest.Page {
	t.Helper()
	form, err := b.Get(r.server.URL + "/_auth/start?source=" + source + "&rd=/")
	if err != nil || form.Status != 200 {
		t.Fatalf("the form: %v, %+v", err, form)
	}
	at, err := b.Submit(form, map[string]string{"username": user, "password": password})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Forward-auth listens to Basic where the route is known, and only there.
func TestForwardAuthTakesBasic(t *testing.T) {
	t.Parallel()
	r, d := corp(t, trustLoopback)
	uri := func(path string) func(*http.Request) { return header("X-Forwarded-Uri", path) }
	for _, endpoint := range []string{"/_auth/auth", "/_auth/auth/redirect"} {
		for what, c := range map[string]struct {
			edit       func(*http.Request)
			status     int
			challenged bool
		}{
			"right":                   {edits(uri("/api/x"), basic("alice", alicePassword)), 202, false},
			"its group":               {edits(uri("/api/dev/x"), basic("alice", alicePassword)), 202, false},
			"not his group":           {edits(uri("/api/dev/x"), basic("bob", bobPassword)), 403, false},
			"wrong":                   {edits(uri("/api/x"), basic("alice", "wrong")), 401, true},
			"wrong, wants a page":     {edits(uri("/api/x"), basic("alice", "wrong"), header("Accept", "text/html")), 401, true},
			"malformed":               {edits(uri("/api/x"), header("Authorization", "Basic x")), 401, true},
			"none":                    {uri("/api/x"), 401, true},
			"another route":           {edits(uri("/other"), basic("alice", alicePassword)), 401, false},
			"no route":                {basic("alice", alicePassword), 401, false},
			"the address of our page": {edits(uri("/api/x"), basic("alice", alicePassword), header("Sec-Fetch-Mode", "cors")), 401, false},
		} {
			res := r.do("GET", endpoint, c.edit)
			if res.StatusCode != c.status || res.Header["Www-Authenticate"] != nil != c.challenged {
				t.Errorf("%s, %s: %d, %v", endpoint, what, res.StatusCode, res.Header)
			}
			if user := res.Header.Get("X-Forwarded-User"); c.status == 202 != (user == "alice") {
				t.Errorf("%s, %s: user %q", endpoint, what, user)
			}
		}
		r.clock.advance(2 * time.Minute) // of the attempts
	}
	if tried(d) == 0 || r.up.count() != 0 {
		t.Errorf("%d passwords tried, %d requests forwarded", tried(d), r.up.count())
	}
	// Nobody who is not trusted names the route.
	r.settings.TrustedProxies = nil
	r.configure()
	if res := r.do("GET", "/_auth/auth", edits(uri("/api/x"), basic("alice", alicePassword))); res.StatusCode != 401 {
		t.Errorf("from anybody: %d", res.StatusCode)
	}
}

// A socket that a program opened with a password ends with its session.
func TestSocketsOfBasic(t *testing.T) {
	t.Parallel()
	r, _ := corp(t)
	r.up.answer(echo)
	c, _, err := r.dial("/api/socket", "", http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("alice:"+alicePassword))}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if !talks(t, c, "hello") || r.up.last(t).Header["Authorization"] != nil {
		t.Errorf("the socket does not talk, or took the password along: %v", r.up.last(t).Header)
	}
	if _, err := r.dir.EndLogins(t.Context(), groups.LoginFilter{Source: "corp"}, "admin", "test", ""); err != nil {
		t.Fatal(err)
	}
	r.proxy.Recheck(t.Context())
	eventually(t, "the socket ends", 5*time.Second, func() bool { return r.proxy.Live() == 0 })
}

// A reload that replaces the source asks the new one; one that does not asks
// nobody.
func TestBasicAcrossReloads(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	r.wants("before", "/api/x", 200, basic("alice", alicePassword))
	d.Forget()
	r.configure()
	r.wants("the same source", "/api/x", 200, basic("alice", alicePassword))
	if n := tried(d); n != 0 {
		t.Errorf("%d passwords tried after a reload that changed nothing", n)
	}
	other := claimstest.StartDirectory(t, claimstest.DirectoryOptions{AD: true})
	other.Put(other.Person("alice", "another password"))
	r.settings.Sources[1] = r.directory(other, "corp")
	r.configure()
	r.wants("another directory", "/api/x", 401, basic("alice", alicePassword))
	if n := tried(other); n != 1 {
		t.Errorf("%d passwords tried there", n)
	}
	r.settings.Routes[len(r.settings.Routes)-1].Basic = "test"
	if err := r.proxy.Configure(r.settings); err == nil {
		t.Error("a route takes passwords of a source that has none")
	}
}

// What is remembered is bounded, and who is forgotten is asked anew.
func TestBasicIsBounded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one goroutine and 15,000 keyed hashes: nothing for the race detector")
	}
	table := proxy.NewBasics()
	for i := range 3 * proxy.MaxBasics / 2 {
		table.Put("user", fmt.Sprint(i), time.Unix(int64(i), 0))
	}
	if n := table.Len(); n != proxy.MaxBasics {
		t.Errorf("%d are remembered", n)
	}
	if table.Has("user", "0") || !table.Has("user", fmt.Sprint(3*proxy.MaxBasics/2-1)) {
		t.Error("others than the oldest were forgotten")
	}
	// Lengths keep the parts apart.
	table.Put("a", "bc", time.Unix(1, 0))
	if table.Has("ab", "c") || !table.Has("a", "bc") {
		t.Error("two pairs have one key")
	}
}

func FuzzReadBasic(f *testing.F) {
	for _, seed := range []string{"Basic YWxpY2U6cGFzcw==", "basic YTpi", "Basic", "Basic ====", "Bearer x", "Basic YWxpY2U6AA==", "Basic  Og=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		user, password, ok := proxy.ReadBasic(line)
		if !ok {
			return
		}
		if user == "" || password == "" || strings.Contains(user, ":") || strings.ContainsAny(user+password, "\x00\r\n") {
			t.Errorf("%q is %q and %q", line, user, password)
		}
		again := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		if u, p, ok := proxy.ReadBasic("Basic " + again); !ok || u != user || p != password {
			t.Errorf("%q is not read as it is written", line)
		}
	})
}
