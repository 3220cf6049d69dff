package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	servers "github.com/groupgate/groupgate/deploy/testenv"
)

// receiver is the other end of a webhook: it remembers who is in which groups.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	held   map[string]string
}

const hookSecret = "a-secret-of-the-hook-that-nobody-may-see"

func newReceiver(tb testing.TB, status int) *receiver {
	r := &receiver{status: status, held: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var m struct {
			User   struct{ User string }
			Groups []string
		}
		body, _ := io.ReadAll(req.Body)
		_ = json.Unmarshal(body, &m)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.status < 300 && strings.HasPrefix(req.Header.Get("webhook-signature"), "v1,") {
			r.held[m.User.User] = strings.Join(m.Groups, " ")
		}
		w.WriteHeader(r.status)
	}))
	tb.Cleanup(r.Close)
	return r
}

func (r *receiver) answers(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) holds(user string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[user]
}

// A login reaches a SCIM server that nobody here wrote, and a webhook; a target
// that refuses is parked, shown, and tried again at a click.
func TestTargetsAreToldAndRetried(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t, http.StatusUnprocessableEntity)
	scim, token := servers.SCIM(t, true)
	g := newConsole(t, fmt.Sprintf(`targets:
  - {name: wiki, scim: {url: %q, token: %q}, wait: 10s}
  - {name: hook, webhook: {url: %q, secret: %q}}
`, scim, token, hook.URL, hookSecret))
	// The login of newConsole waited for the one, and not for the other.
	if got := scimGroups(t, scim, token); !slices.Contains(got["engineering"], "alice") {
		t.Errorf("after the login the SCIM server has %v", got)
	}
	type status struct {
		Name, Kind, Problem string
		Waiting, Parked     int
	}
	target := func(name string) status {
		t.Helper()
		var list struct{ Items []status }
		if code := g.api("GET", "/targets", nil, &list); code != http.StatusOK || len(list.Items) != 2 {
			t.Fatalf("targets: %d, %+v", code, list)
		}
		return list.Items[slices.IndexFunc(list.Items, func(s status) bool { return s.Name == name })]
	}
	// Impatience: every retry makes what waits due at once.
	g.eventually("parked", func() bool {
		if now := target("hook"); now.Parked > 0 {
			return true
		}
		if code := g.api("POST", "/targets/hook:retry", nil, nil); code != http.StatusNoContent {
			t.Fatalf("retry: %d", code)
		}
		return false
	})
	if now := target("hook"); now.Kind != "webhook" || now.Problem != "webhook: the target answers 422" || now.Waiting < now.Parked {
		t.Errorf("the hook: %+v", now)
	}
	if now := target("wiki"); now.Kind != "scim" || now.Waiting != 0 || now.Problem != "" {
		t.Errorf("the wiki: %+v", now)
	}

	s := g.surf(t, wide)
	s.signIn("/targets")
	s.see("text=the target answers 422")
	s.look("targets-parked")
	hook.answers(http.StatusNoContent)
	s.click("text=Retry hook")
	s.expect("What waits for hook is tried again.")
	g.eventually("told", func() bool { return hook.holds("alice") == "board engineering" })
	g.eventually("nothing waits", func() bool { return target("hook").Waiting == 0 })
	s.open("/targets")
	s.gone("text=the target answers 422")
	s.look("targets")
	s.open("/audit?kind=target_parked")
	if got := strings.Join(s.read(".operate-trail tbody tr"), " "); !strings.Contains(got, "hook: webhook: the target answers 422") {
		t.Errorf("the trail: %q", got)
	}

	metrics, _ := scrape(t, g.gate)
	for _, want := range []string{
		`groupgate_target_work_waiting{target="hook"} 0`, `groupgate_target_work_parked{target="hook"} 0`, `groupgate_target_work_oldest_seconds{target="hook"} 0`,
		`groupgate_target_pushes_total{result="ok",target="wiki"} `, `groupgate_target_pushes_total{result="failed",target="hook"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%s is no metric", want)
		}
	}
	if m := regexp.MustCompile(`target_pushes_total\{result="refused",target="hook"\} (\d+)`).FindStringSubmatch(metrics); m == nil || m[1] == "0" {
		t.Errorf("refused: %q", m)
	}
	for what, secret := range map[string]string{"secret of the hook": hookSecret, "token": token} {
		if strings.Contains(g.log.all(), secret) || strings.Contains(metrics, secret) {
			t.Errorf("the %s is in the log or the metrics", what)
		}
	}
	out, code := g.command(t, "check", "--online")
	if code != 0 || !regexp.MustCompile(`(?m)^target wiki +ok: SCIM 2\.0, \d+ groups$`).MatchString(out) || !regexp.MustCompile(`(?m)^target hook +ok: reached`).MatchString(out) {
		t.Errorf("check --online: %d\n%s", code, out)
	}
}

// scimGroups reads what the server holds: user names by group.
func scimGroups(t *testing.T, base, token string) map[string][]string {
	t.Helper()
	read := func(kind string, into any) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/"+kind+"?count=1000", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	var users struct {
		Resources []struct{ ID, UserName string }
	}
	var all struct {
		Resources []struct {
			DisplayName string
			Members     []struct{ Value string }
		}
	}
	read("Users", &users)
	read("Groups", &all)
	names, out := map[string]string{}, map[string][]string{}
	for _, u := range users.Resources {
		names[u.ID] = u.UserName
	}
	for _, g := range all.Resources {
		for _, m := range g.Members {
			out[g.DisplayName] = append(out[g.DisplayName], names[m.Value])
		}
	}
	return out
}
