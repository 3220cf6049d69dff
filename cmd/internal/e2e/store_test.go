package e2e

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// answer is what one request with a session cookie got.
type answer struct {
	status    int
	setCookie string
	retry     string
	body      string
}

func ask(t *testing.T, g *gate, cookie string) answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, g.url()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", cookie)
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header.Get("Set-Cookie"), resp.Header.Get("Retry-After"), string(body)}
}

// GS-12: when the store goes away, live sessions get 503, keep their cookie, and
// nothing is forwarded. When it comes back so do they, without a login.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ down, up func(t *testing.T, p place) }{
		"the file is moved away": {
			func(t *testing.T, p place) { must(t, os.Rename(p.store(), p.file("away"))) },
			func(t *testing.T, p place) { must(t, os.Rename(p.file("away"), p.store())) },
		},
		"the file may not be read": {
			func(t *testing.T, p place) { must(t, os.Chmod(p.store(), 0)) },
			func(t *testing.T, p place) { must(t, os.Chmod(p.store(), 0o600)) },
		},
		"another file is in its place": {
			func(t *testing.T, p place) {
				must(t, os.Rename(p.store(), p.file("away")))
				must(t, os.WriteFile(p.store(), []byte(strings.Repeat("this is no database ", 100)), 0o600))
			},
			func(t *testing.T, p place) { must(t, os.Rename(p.file("away"), p.store())) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{person("alice", "eng")}})
			p := newPlace(t)
			p.write(t, up.URL, oidc("op", op.URL, opSecret), everyValue)
			g, b := p.start(t), newBrowser(t)
			signIn(t, g, b, "alice")
			kept := cookie(b, g)
			if a := ask(t, g, kept); a.status != http.StatusOK {
				t.Fatalf("before: %+v", a)
			}

			c.down(t, p)
			g.eventually("refused", func() bool { return ask(t, g, kept).status != http.StatusOK })
			before := up.requests.Load()
			for range 20 {
				a := ask(t, g, kept)
				if a.status != http.StatusServiceUnavailable || a.setCookie != "" || a.retry == "" {
					t.Fatalf("while the store is down: %d, Set-Cookie %q, Retry-After %q", a.status, a.setCookie, a.retry)
				}
			}
			if g.ready() != http.StatusServiceUnavailable {
				t.Error("still ready")
			}
			if page, err := newBrowser(t).Login(g.url()+"/", "alice"); err != nil || page.Status != http.StatusServiceUnavailable {
				t.Errorf("a login while the store is down: %v %d", err, page.Status)
			}
			if n := up.requests.Load() - before; n != 0 {
				t.Errorf("%d requests reached the upstream", n)
			}

			c.up(t, p)
			g.eventually("back", func() bool {
				a := ask(t, g, kept)
				if a.status != http.StatusOK && a.status != http.StatusServiceUnavailable || a.setCookie != "" {
					t.Fatalf("on the way back: %+v", a)
				}
				return a.status == http.StatusOK
			})
			g.waitReady()
			if got := signIn(t, g, newBrowser(t), "alice").Get("X-Forwarded-Groups"); got != "eng" {
				t.Errorf("groups %q after the store came back", got)
			}
		})
	}
}

// A backup that is put in place of the live file is taken up: its sessions
// hold, those it does not know are over, and nobody is taken for another.
func TestStoreReplacedByABackup(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret,
		People: []claimstest.Person{person("alice", "eng"), person("bob", "ops")}})
	p := newPlace(t)
	p.write(t, up.URL, oidc("op", op.URL, opSecret), everyValue)
	g, alice := p.start(t), newBrowser(t)
	signIn(t, g, alice, "alice")
	g.kill()
	vacuum(t, p.store(), p.file("backup"))

	g = p.start(t)
	bob := newBrowser(t)
	signIn(t, g, bob, "bob")
	must(t, os.Rename(p.file("backup"), p.store()))
	g.eventually("on the backup", func() bool {
		a := ask(t, g, cookie(bob, g))
		if a.status == http.StatusOK && !strings.Contains(a.body, `"X-Forwarded-User":["bob"]`) {
			t.Fatalf("bob is somebody else: %s", a.body)
		}
		return a.status != http.StatusOK && a.status != http.StatusServiceUnavailable
	})
	if a := ask(t, g, cookie(alice, g)); a.status != http.StatusOK || !strings.Contains(a.body, `"X-Forwarded-User":["alice"]`) {
		t.Errorf("alice, whom the backup knows: %d %s", a.status, a.body)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
