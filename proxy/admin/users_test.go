package admin_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/groupgate/groupgate/groups"
)

type userItem struct {
	ID, User, Email, Name, Created string
	Identities                     []struct{ Source, Subject string }
}

func TestUsersArePagedAndFound(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	var want []string
	for i := range 11 {
		subject := fmt.Sprintf("s%02d", i)
		want = append(want, a.signIn("entra", subject, `{"preferred_username":"user`+subject+`","email":"`+subject+`@example.com","name":"Person `+subject+`"}`).String())
	}
	for _, limit := range []string{"1", "3", "11", "500"} {
		var ids []string
		for _, u := range all[userItem](a, "/users", limit) {
			ids = append(ids, u.ID)
		}
		if !slices.Equal(ids, want) {
			t.Errorf("limit %s: %v, want %v", limit, ids, want)
		}
	}
	found := ok[listOf[userItem]](a, 200, "GET", "/users?query=USERS03", "")
	if len(found.Items) != 1 || found.Next != nil {
		t.Fatalf("query: %+v", found)
	}
	u := found.Items[0]
	if u.User != "users03" || u.Email != "s03@example.com" || u.Name != "Person s03" || u.Created != "2026-03-01T11:00:00Z" ||
		len(u.Identities) != 1 || u.Identities[0].Source != "entra" || u.Identities[0].Subject != "s03" {
		t.Errorf("item: %+v", u)
	}
	if none := a.call("GET", "/users?query=nobody", ""); string(none.body) != "{\"items\":[]}\n" {
		t.Errorf("an empty list: %s", none.body)
	}
}

func TestPagesAreAskedForProperly(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for i := range 3 {
		a.signIn("entra", fmt.Sprint(i), `{"groups":["eng"]}`)
	}
	next := *ok[listOf[userItem]](a, 200, "GET", "/users?limit=1", "").Next
	for _, path := range []string{"/users", "/groups", "/rules", "/events", "/sources", "/targets", "/groups/engineering/members"} {
		for query, status := range map[string]int{
			"": 200, "limit=1": 200, "limit=500": 200, "limit=": 200, "utm=x": 200,
			"limit=0": 400, "limit=501": 400, "limit=-1": 400, "limit=ten": 400, "limit=1.0": 400,
			"limit=1&limit=2": 400, "after=x": 400, "after=" + next + "!": 400, "limit=%zz": 400, "after=%00": 400,
		} {
			if got := a.call("GET", path+"?"+query, ""); got.status != status {
				t.Errorf("%s?%s: %d, want %d", path, query, got.status, status)
			}
		}
		status := 400 // a cursor of another list
		if path == "/users" {
			status = 200
		}
		if got := a.call("GET", path+"?after="+next, ""); got.status != status {
			t.Errorf("%s with a cursor of users: %d, want %d", path, got.status, status)
		}
	}
}

// SC-04: no answer holds a grant, a session's hash or a session's id.
func TestUserShowsEverythingButWhatLetsIn(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	at := a.clock.now()
	hash := [32]byte{0xde, 0xad, 0xbe, 0xef, 0x11, 0x22}
	id := a.session("entra", "s1", `{"preferred_username":"alice","email":"alice@example.com","name":"Alice","groups":["eng","other"]}`,
		&groups.Login{ID: "login-canary", Source: "entra", Subject: "s1", Session: "sid-canary", Created: at, Expires: at.Add(time.Hour), ClaimsAt: at, Grant: []byte("grant-canary")},
		&groups.Session{Hash: hash, Host: "eng.example.com", Used: at})
	if again := a.signIn("corp", "guid-1", `{"preferred_username":"alice","memberOf":null}`); again != id {
		t.Fatalf("linked sources made two users: %s and %s", id, again)
	}
	ok[any](a, 201, "POST", "/groups", `{"name":"board"}`)
	a.done("PUT", "/groups/board/members/"+id.String())

	got := a.call("GET", "/users/"+id.String(), "")
	var v map[string]any
	if err := json.Unmarshal(got.body, &v); err != nil || got.status != 200 {
		t.Fatalf("%d %v: %s", got.status, err, got.body)
	}
	const noon = "2026-03-01T11:00:00Z"
	want := map[string]any{
		"id": id.String(), "user": "alice", "email": "alice@example.com", "name": "Alice", "created": noon,
		"identities": []any{
			map[string]any{
				"source": "corp", "subject": "guid-1", "issued_at": noon, "last_seen": noon,
				"claims": map[string]any{"preferred_username": "alice", "memberOf": nil},
				"states": map[string]any{"memberOf": map[string]any{"state": "unknown", "why": "the claim is null"}},
			},
			map[string]any{
				"source": "entra", "subject": "s1", "issued_at": noon, "last_seen": noon,
				"claims": map[string]any{"preferred_username": "alice", "email": "alice@example.com", "name": "Alice", "groups": []any{"eng", "other"}},
				"states": map[string]any{"groups": map[string]any{"state": "complete"}},
			},
		},
		"memberships": []any{
			map[string]any{"group": "board", "control": "manual", "origin": "manual", "since": noon, "why": []any{}, "by": "api"},
			map[string]any{"group": "engineering", "control": "sso", "origin": "sso", "since": noon, "why": []any{
				map[string]any{"source": "entra", "rule": "f-0123456789", "claim": "groups", "value": "eng"},
			}},
		},
		"sessions": []any{map[string]any{
			"host": "eng.example.com", "source": "entra", "created": noon, "expires": "2026-03-01T12:00:00Z", "last_used": noon,
		}},
	}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	nothingIn(t, got.body, "canary", "deadbeef", "3q2+7", "222,173")

	a.clock.pass(time.Hour)
	over := ok[struct{ Sessions []any }](a, 200, "GET", "/users/"+id.String(), "")
	if len(over.Sessions) != 0 {
		t.Errorf("a session that is over is listed: %v", over.Sessions)
	}
}

func TestUserThatIsNotThere(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.signIn("entra", "s1", `{}`).String()
	ok[any](a, 200, "GET", "/users/"+id, "")
	for _, bad := range []string{"uzzzz", "1", "U1", "u01", "u", "alice", "-1", "u-1", "u%20", "uzzzzzzzzzzzzzzzzzzzz"} {
		a.refused(404, "GET", "/users/"+bad, "")
	}
}

func TestUserIsForgotten(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.signIn("entra", "s1", `{"preferred_username":"alice"}`).String()
	a.done("DELETE", "/users/"+id)
	a.refused(404, "GET", "/users/"+id, "")
	a.done("DELETE", "/users/"+id) // idempotent
	a.refused(404, "DELETE", "/users/alice", "")
	if again := a.signIn("entra", "s2", `{"preferred_username":"alice"}`).String(); again == id {
		t.Error("an id was given twice")
	}
	deleted := ok[listOf[struct{ Actor, User string }]](a, 200, "GET", "/events?kind=user_deleted", "").Items
	if len(deleted) != 1 || deleted[0].Actor != "api" || deleted[0].User != "alice" {
		t.Errorf("audit trail: %+v", deleted)
	}
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	at := a.clock.now()
	hash := [32]byte{1}
	id := a.session("entra", "s1", `{"preferred_username":"alice"}`,
		&groups.Login{ID: "l1", Source: "entra", Subject: "s1", Created: at, Expires: at.Add(time.Hour), ClaimsAt: at}, &groups.Session{Hash: hash, Used: at})
	if _, err := a.dir.View(t.Context(), hash); err != nil {
		t.Fatalf("before: %v", err)
	}
	a.done("DELETE", "/users/"+id.String()+"/sessions")
	if _, err := a.dir.View(t.Context(), hash); err == nil {
		t.Error("the session lives on")
	}
	a.done("DELETE", "/users/"+id.String()+"/sessions")
	ok[any](a, 200, "GET", "/users/"+id.String(), "")
	a.refused(404, "DELETE", "/users/alice/sessions", "")
	out := ok[listOf[struct{ Actor, User, Request string }]](a, 200, "GET", "/events?kind=sign_out", "").Items
	if len(out) != 1 || out[0].Actor != "api" || out[0].User != "alice" || out[0].Request == "" {
		t.Errorf("audit trail: %+v", out)
	}
}

func TestEventsAreFilteredAndPaged(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	alice := a.signIn("entra", "s1", `{"preferred_username":"alice","groups":["eng"]}`).String()
	a.clock.pass(time.Minute)
	a.signIn("corp", "g2", `{"preferred_username":"bob","memberOf":7}`)
	a.clock.pass(time.Minute)
	ok[any](a, 201, "POST", "/groups", `{"name":"board"}`)
	type event struct {
		ID, At, Kind, User, Source, Group, Actor, Request string
		UserID                                            string `json:"user_id"`
		States                                            map[string]struct{ State, Why string }
		Change                                            struct{ Added []string }
	}
	whole := all[event](a, "/events", "500")
	for _, limit := range []string{"1", "2"} {
		if diff := cmp.Diff(whole, all[event](a, "/events", limit)); diff != "" {
			t.Errorf("limit %s: %s", limit, diff)
		}
	}
	kinds := func(query string) string {
		var out []string
		for _, e := range all[event](a, "/events?"+query, "2") {
			out = append(out, e.Kind)
		}
		return strings.Join(out, " ")
	}
	for query, want := range map[string]string{
		"":                                 "group_created sync user_created sync user_created",
		"kind=sync":                        "sync sync",
		"kind=nothing":                     "",
		"user=" + alice:                    "sync user_created",
		"group=board":                      "group_created",
		"group=engineering":                "sync",
		"source=corp":                      "sync user_created",
		"request=req-s1":                   "sync user_created",
		"from=2026-03-01T12:01:00%2B01:00": "group_created sync user_created",
		"to=2026-03-01T11:00:30Z":          "sync user_created",
		"source=corp&kind=sync":            "sync",
	} {
		if got := kinds(query); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	first := all[event](a, "/events?group=engineering", "50")[0]
	if first.ID == "" || first.At != "2026-03-01T11:00:00Z" || first.User != "alice" || first.UserID != alice || !slices.Equal(first.Change.Added, []string{"engineering"}) {
		t.Errorf("event: %+v", first)
	}
	if s := all[event](a, "/events?source=corp&kind=sync", "50")[0].States["memberOf"]; s.State != "unknown" || s.Why == "" {
		t.Errorf("states: %+v", s)
	}
	for _, bad := range []string{"from=yesterday", "to=2026-03-01", "user=alice", "kind=a&kind=b"} {
		a.refused(400, "GET", "/events?"+bad, "")
	}
}
