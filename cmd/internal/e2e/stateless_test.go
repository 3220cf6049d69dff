package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

const oldKey, newKey = "the-old-session-key-of-thirty-two-bytes-or-more", "the-new-session-key-of-thirty-two-bytes-or-more"

// sharingNothing writes a configuration without a store, with these keys, for a
// process that is reached under another one's address.
func (p place) sharingNothing(t *testing.T, public, upstream, sources string, keys ...string) {
	t.Helper()
	text := fmt.Sprintf("listen: %q\npublic_url: %s\nupstream: %s\nstore: {none: {}}\nsession: {keys: [%s]}\nadmin: {listen: %q, token: %s}\n"+
		"headers: {max_bytes: 65536, assertion: X-Groupgate-Assertion}\nsources:%s\n%s",
		p.public, public, upstream, strings.Join(keys, ", "), p.admin, adminToken, sources, everyValue)
	putFile(t, p.config(), []byte(text))
}

// asked asks a process as a browser would that was led there under the other
// one's address.
func asked(t *testing.T, of place, host, cookies string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequest("GET", of.url()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Cookie", cookies)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

// Two processes share a key and nothing else: who signed in at one is signed in
// at the other, with every group; a key is exchanged over restarts without
// anybody signing in again.
func TestProcessesThatShareOnlyAKey(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 400 {
		many = append(many, fmt.Sprintf("team-%d-%x", i, i*2654435761))
	}
	up := newUpstream(t)
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{person("alice", many...)}})
	source := oidc("op", op.URL, opSecret)
	here, there := newPlace(t), newPlace(t)
	here.sharingNothing(t, here.url(), up.URL, source, oldKey)
	there.sharingNothing(t, here.url(), up.URL, source, newKey, oldKey)
	g, other := here.start(t), there.start(t)
	b := newBrowser(t)
	if got := signIn(t, g, b, "alice").Get("X-Forwarded-Groups"); strings.Count(got, ",") != 399 {
		t.Fatalf("groups %.80q", got)
	}
	var jar []string
	for _, c := range b.Cookies(g.url()) {
		jar = append(jar, c.Name+"="+c.Value)
	}
	cookies := strings.Join(jar, "; ")
	if status, body := asked(t, there, here.public, cookies); status != 200 || !strings.Contains(body, many[399]) || !strings.Contains(body, "X-Groupgate-Assertion") {
		t.Errorf("at the other process: %d %.200s", status, body)
	}
	if status, _ := asked(t, there, here.public, ""); status != 401 {
		t.Errorf("without cookies: %d", status)
	}
	if !g.logged("there is no directory", "back-channel", "by hand") {
		t.Errorf("nothing said at the start:\n%s", g.log.all())
	}
	g.signal(syscall.SIGTERM)
	<-g.exited
	here.sharingNothing(t, here.url(), up.URL, source, newKey)
	here.start(t)
	if status, _ := asked(t, here, here.public, cookies); status != 401 {
		t.Errorf("with the new key alone: %d", status)
	}
	if status, _ := asked(t, there, here.public, cookies); status != 200 {
		t.Errorf("with both keys: %d", status)
	}

	// The admin listener says what there is not.
	if status, body := asked(t, place{public: here.admin}, here.admin, ""); status != 303 {
		t.Errorf("the console: %d %s", status, body)
	}
	for path, want := range map[string]int{"/users": 501, "/groups": 501, "/events": 501, "/sources": 200, "/openapi.json": 200} {
		var answer struct{ Type, Detail string }
		if status := other.api("GET", path, nil, &answer); status != want || want == 501 && !strings.Contains(answer.Detail, "store.none") {
			t.Errorf("%s: %d %+v", path, status, answer)
		}
	}
	var explained struct{ Groups []string }
	said := map[string]any{"source": "op", "user": "u1", "claims": map[string]any{"groups": []string{"a"}}}
	if status := other.api("POST", "/explain", said, &explained); status != 200 || len(explained.Groups) != 1 {
		t.Errorf("explain: %d %+v", status, explained)
	}
	res, err := http.Get("http://" + there.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(raw), "groupgate_sessions_in_memory 1") || strings.Contains(string(raw), "groupgate_sessions_active") {
		t.Errorf("metrics: %d %v", res.StatusCode, err)
	}
}
