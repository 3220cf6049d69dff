package admin_test

import (
	"crypto/sha256"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy/admin"
)

// Every endpoint that changes something notes who did it, by whichever way
// somebody came. An endpoint that is in neither list has to be put into one.
func TestEveryActIsNoted(t *testing.T) {
	t.Parallel()
	noActs := []string{
		"POST /rules:match", "POST /plan", "POST /explain", // change nothing
		"POST /sources/{name}:test", "POST /targets/{name}:retry", // ask a source, a target
	}
	acts := []struct{ route, path, body, kind string }{
		{"POST /users", "/users", `{"user":"N","password":"a long password of N"}`, groups.EventUserCreated},
		{"PATCH /users/{id}", "/users/DORA", `{"name":"N"}`, groups.EventUserChanged},
		{"DELETE /users/{id}/sessions", "/users/ALICE/sessions", "", groups.EventSignOut},
		{"DELETE /users/{id}", "/users/ALICE", "", groups.EventUserDeleted},
		{"POST /groups", "/groups", `{"name":"N"}`, groups.EventGroupCreated},
		{"PATCH /groups/{name}", "/groups/board", `{"description":"N"}`, groups.EventGroupChanged},
		{"PUT /groups/{name}/members/{id}", "/groups/board/members/BOB", "", groups.EventMemberAdded},
		{"DELETE /groups/{name}/members/{id}", "/groups/board/members/BOB", "", groups.EventMemberGone},
		{"POST /groups/{name}/members:import", "/groups/board/members:import", "user\nbob\n", groups.EventImported},
		{"DELETE /groups/{name}", "/groups/board", "", groups.EventGroupDeleted},
		{"POST /rules", "/rules", `{"claim":"groups","value":"N","group":"ops"}`, groups.EventRuleChanged},
		{"PUT /rules/{id}", "/rules/one", `{"claim":"groups","value":"N","group":"ops"}`, groups.EventRuleChanged},
		{"DELETE /rules/{id}", "/rules/one", "", groups.EventRuleDeleted},
		{"POST /guard:allow", "/guard:allow", "", groups.EventGuardAllowed},
	}
	for who, actor := range map[string]string{"api": "api", "token": "administrator", "alice": "user:alice"} {
		a := newPublic(t, "admins")
		cookie := a.console()
		ids := a.actedOn()
		var seen []string
		for _, act := range acts {
			seen = append(seen, act.route)
			method, _, _ := strings.Cut(act.route, " ")
			path, body := ids.Replace(act.path), strings.ReplaceAll(act.body, "N", "new-one")
			head := func(r *http.Request) {
				if strings.HasPrefix(body, "user\n") {
					r.Header.Set("Content-Type", "text/csv")
				}
			}
			status := 0
			switch who {
			case "api":
				kind := "application/json"
				if strings.HasPrefix(body, "user\n") {
					kind = "text/csv"
				}
				status = a.call(method, path, body, "Content-Type: "+kind).status
			case "token":
				change := []func(*http.Request){head}
				if body != "" {
					change = []func(*http.Request){jsonOf(body), head}
				}
				status = a.visit(method, "/api/v1"+path, cookie, change...).Code
			default:
				status = a.publicAs(who, method, "/api/v1"+path, body, head).Code
			}
			if status/100 != 2 {
				t.Fatalf("%s by %s: %d", act.route, who, status)
			}
			e := ok[listOf[struct{ Actor, At string }]](a, 200, "GET", "/events?limit=1&kind="+act.kind, "").Items
			if len(e) != 1 || e[0].Actor != actor || e[0].At != a.clock.now().UTC().Format(time.RFC3339) {
				t.Errorf("%s by %s is noted as %+v, want %s", act.route, who, e, actor)
			}
			a.clock.pass(time.Second)
		}
		for _, route := range a.h.Patterns() {
			if !strings.HasPrefix(route, "GET ") && !slices.Contains(seen, route) && !slices.Contains(noActs, route) {
				t.Errorf("%s: is it noted?", route)
			}
		}
	}
}

// actedOn makes what the acts are about, and answers how their paths are
// filled in.
func (a *api) actedOn() *strings.Replacer {
	a.t.Helper()
	alice := a.session("entra", "a", `{"preferred_username":"alice"}`,
		&groups.Login{ID: "l", Source: "entra", Subject: "a", Created: a.clock.now(), Expires: a.clock.now().Add(time.Hour)},
		&groups.Session{Hash: sha256.Sum256([]byte("c")), Used: a.clock.now()})
	bob := a.signIn("entra", "b", `{"preferred_username":"bob"}`)
	dora := ok[struct{ ID string }](a, 201, "POST", "/users", `{"user":"dora","password":"a long password of hers"}`)
	ok[any](a, 201, "POST", "/groups", `{"name":"board"}`)
	a.clock.pass(time.Second)
	return strings.NewReplacer("ALICE", alice.String(), "BOB", bob.String(), "DORA", dora.ID)
}

// Two replicas on one database: of two edits of the same state one wins, and
// the other is told, however close together they come.
func TestTwoReplicasDoNotOverwriteEachOther(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	var replicas [2]*httptest.Server
	for i := range replicas {
		store, err := sqlstore.OpenSQLite(t.Context(), path, sqlstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		dir := groups.NewDirectory(groups.Options{Store: store, Log: zap.NewNop(), Audit: zap.NewNop()})
		set := settings()
		set.Sources = append(set.Sources, localSettings())
		if err := dir.Configure(t.Context(), set); err != nil {
			t.Fatal(err)
		}
		replicas[i] = httptest.NewServer(admin.New(admin.Options{Directory: dir, TokenHash: func() [32]byte { return sha256.Sum256([]byte(token)) }}))
		t.Cleanup(replicas[i].Close)
	}
	send := func(at int, method, path, body, tag string) (int, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), method, replicas[at].URL+"/api/v1"+path, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		if tag != "" {
			req.Header.Set("If-Match", tag)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		defer res.Body.Close()
		return res.StatusCode, res.Header
	}
	send(0, "POST", "/groups", `{"name":"board"}`, "")
	_, made := send(0, "POST", "/users", `{"user":"dora","password":"a long password of hers"}`, "")
	user := strings.TrimPrefix(made.Get("Location"), "/api/v1")
	const rounds = 40
	for _, thing := range []struct{ path, body string }{{"/groups/board", `{"description":"%d-%d"}`}, {user, `{"name":"%d-%d"}`}} {
		for round := range rounds {
			status, head := send(0, "GET", thing.path, "", "")
			if status != 200 || head.Get("ETag") == "" {
				t.Fatalf("%s: %d, tag %q", thing.path, status, head.Get("ETag"))
			}
			var got [2]int
			var both sync.WaitGroup
			for i := range replicas {
				both.Go(func() { got[i], _ = send(i, "PATCH", thing.path, fmt.Sprintf(thing.body, round, i), head.Get("ETag")) })
			}
			both.Wait()
			if slices.Sort(got[:]); got != [2]int{200, 412} {
				t.Fatalf("%s, round %d: %v", thing.path, round, got)
			}
		}
	}
	for round := range rounds { // one deletes what the other changes
		name := fmt.Sprint("/groups/g", round)
		send(0, "POST", "/groups", fmt.Sprintf(`{"name":"g%d"}`, round), "")
		_, head := send(0, "GET", name, "", "")
		var changed, deleted int
		var both sync.WaitGroup
		both.Go(func() { changed, _ = send(0, "PATCH", name, `{"description":"x"}`, head.Get("ETag")) })
		both.Go(func() { deleted, _ = send(1, "DELETE", name, "", head.Get("ETag")) })
		both.Wait()
		if changed == 200 && deleted != 412 || changed != 200 && deleted != 204 {
			t.Fatalf("round %d: changed %d, deleted %d", round, changed, deleted)
		}
	}
}

// Every form of a page that changes or takes away what can be edited says which
// state it was made of.
func TestFormsSayWhatTheyWereMadeOf(t *testing.T) {
	t.Parallel()
	a := newPublic(t, "admins")
	ids := a.actedOn()
	ok[any](a, 200, "PATCH", ids.Replace("/users/DORA"), `{"disabled":true}`)
	form := regexp.MustCompile(`<form [^>]*data-api="([^"]*)"[^>]*>`)
	tagged := 0
	for _, path := range []string{"/groups/board", "/people/DORA", "/people/ALICE"} {
		for _, f := range form.FindAllStringSubmatch(a.seen("root", ids.Replace(path), 200), -1) {
			edits := strings.Contains(f[0], `data-method="PATCH"`) || strings.Contains(f[0], `data-method="DELETE"`) && regexp.MustCompile(`/groups/[^/]+$`).MatchString(f[1])
			if !edits {
				continue
			}
			tag := regexp.MustCompile(`data-tag="([^"]+)"`).FindStringSubmatch(f[0])
			if tag == nil {
				t.Errorf("%s: %s", path, f[0])
				continue
			}
			tagged++
			api, now := strings.TrimPrefix(html.UnescapeString(f[1]), "/console/api/v1"), html.UnescapeString(tag[1])
			if got := a.call("GET", api, "").header.Get("ETag"); got != now {
				t.Errorf("%s: the form has the tag %s, the thing %s", path, now, got)
			}
		}
	}
	if tagged < 6 {
		t.Errorf("%d forms", tagged)
	}
}
