package admin_test

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

// seen is a page of the console as somebody of that name gets it on the public
// host.
func (a *api) seen(by, path string, status int, language ...string) string {
	a.t.Helper()
	r := httptest.NewRequest("GET", "/console"+path, nil)
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Accept-Language", append(language, "en")[0])
	w := httptest.NewRecorder()
	a.h.ServeConsole(w, r, "/console", by)
	if w.Code != status {
		a.t.Fatalf("%s: %d, want %d: %s", path, w.Code, status, w.Body)
	}
	return w.Body.String()
}

var (
	tags   = regexp.MustCompile(`<[^>]*>`)
	blanks = regexp.MustCompile(`\s+`)
)

// words is the text of a page.
func words(page string) string {
	return blanks.ReplaceAllString(html.UnescapeString(tags.ReplaceAllString(page, " ")), " ")
}

func wants(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: %q is missing in\n%.3000s", what, p, text)
		}
	}
}

func lacks(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if strings.Contains(text, p) {
			t.Errorf("%s: %q stands in\n%.3000s", what, p, text)
		}
	}
}

var personLink = regexp.MustCompile(`<td [^>]*><a href="/console/people/(u[0-9a-z]+)">`)

func listed(page string) (ids []string) {
	for _, m := range personLink.FindAllStringSubmatch(page, -1) {
		ids = append(ids, m[1])
	}
	return ids
}

func TestConsoleListsPeople(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	wants(t, "nobody", words(a.seen("root", "/people", 200)), "Nobody is known yet", "0 people in all")
	var want []string
	for i := range 5 {
		want = append(want, a.signIn("entra", fmt.Sprint("s", i), fmt.Sprintf(`{"preferred_username":"user%d","email":"user%d@example.com","name":"<b>Person %d</b>","groups":["eng"]}`, i, i, i)).String())
	}
	a.signIn("corp", "g3", `{"preferred_username":"user3","memberOf":[]}`)
	var got []string
	path := "/people?limit=2"
	for pages := 0; path != ""; pages++ {
		page := a.seen("root", path, 200)
		got = append(got, listed(page)...)
		wants(t, path, words(page), "5 people in all")
		if first := strings.Contains(page, `>First page</a>`); first != (pages > 0) {
			t.Errorf("%s: a way to the first page: %v", path, first)
		}
		next := regexp.MustCompile(`href="([^"]+)" rel="next"`).FindStringSubmatch(page)
		if path = ""; next != nil {
			path = "/people" + html.UnescapeString(next[1])
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages list %v, want %v", got, want)
	}
	for query, n := range map[string]int{"USER3": 1, "user1@": 1, "Person+2": 1, "user": 5, "": 5, "carol": 0} {
		page := a.seen("root", "/people?query="+query, 200)
		if found := listed(page); len(found) != n {
			t.Errorf("%q finds %v", query, found)
		}
		if n == 0 {
			wants(t, query, words(page), "Nobody fits this search.")
		}
	}
	one := a.seen("root", "/people?query=user3", 200)
	wants(t, "one", one, "&lt;b&gt;Person 3", `<span class="badge">corp</span><span class="badge">entra</span>`, `class="num">1</td>`, `value="user3"`)
	lacks(t, "one", one, "<b>Person", "people-new")
	a.seen("root", "/people?limit=x", 400)
	a.seen("root", "/people?after=x", 400)
}

func TestConsoleShowsAPerson(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		s.Rules = append(s.Rules, groups.Rule{ID: "f-1", Location: "groupgate.yaml:8", Source: "entra", Claim: "groups", Value: "<script>", Group: "engineering"})
	})
	at := a.clock.now()
	id := a.session("entra", "s1", `{"preferred_username":"alice","email":"alice@example.com","name":"Alice <i>A.</i>","groups":["eng","<script>"]}`,
		&groups.Login{ID: "login-canary", Source: "entra", Subject: "s1", Created: at, Expires: at.Add(time.Hour), ClaimsAt: at, Grant: []byte("grant-canary")},
		&groups.Session{Hash: [32]byte{0xde, 0xad}, Host: "eng.example.com", Used: at}).String()
	a.signIn("corp", "guid-1", `{"preferred_username":"alice","memberOf":null}`)
	ok[any](a, 201, "POST", "/groups", `{"name":"board/<b>"}`)
	a.done("PUT", "/groups/board%2F%3Cb%3E/members/"+id)
	page := a.seen("root", "/people/"+id, 200)
	wants(t, "alice", words(page), "Alice <i>A.</i> · alice@example.com",
		"Because entra states groups = eng , by the rule groupgate.yaml:7", "groups = <script> , by the rule groupgate.yaml:8", "Added by API, by the token", "board/<b>",
		"Known to corp oidc", "unknown the claim is null: grants nothing, removes nothing", "Known to entra oidc", "complete grants and removes",
		"eng.example.com", "Sign out everywhere", "Sync entra + engineering", "Added to a group – board/<b> by API, by the token", "all memberships (2), manual ones too")
	wants(t, "alice", page, `href="/console/groups/board%2F%3Cb%3E"`, `href="/console/audit?user=`+id+`"`, `href="/console/explain?source=corp&amp;user=`+id+`"`,
		`data-api="/console/api/v1/users/`+id+`/sessions"`, `&#34;preferred_username&#34;: &#34;alice&#34;`)
	lacks(t, "alice", page, "canary", "dead", "<script>", "<i>A", "board/<b>", "This is you", "person-edit", "Local account")
	wants(t, "in German", words(a.seen("root", "/people/"+id, 200, "de")), "Weil entra angibt: groups = eng , nach der Regel groupgate.yaml:7", "der Claim ist null: vergibt nichts, entzieht nichts")

	for _, who := range []string{"alice", "bob"} {
		if self := strings.Contains(a.seen(who, "/people/"+id, 200), "This is you"); self != (who == "alice") {
			t.Errorf("%s is told to be alice: %v", who, self)
		}
	}
	a.clock.pass(time.Hour)
	over := a.seen("root", "/people/"+id, 200)
	wants(t, "later", words(over), "Nowhere signed in at the moment.")
	lacks(t, "later", over, "person-out")
	for _, bad := range []string{"uzzzz", "alice", "u01", "u-1"} {
		a.seen("root", "/people/"+bad, 404)
	}
}

func TestConsoleShortensWhatIsLong(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		s.Rules = append(s.Rules, groups.Rule{ID: "f-any", Source: "entra", Claim: "groups", Any: true})
		s.Sync.CreateNewGroups = true
	})
	var values []string
	for i := range 2000 {
		values = append(values, fmt.Sprintf(`"a-group-of-many-letters-%04d"`, i))
	}
	id := a.signIn("entra", "s1", `{"preferred_username":"alice","groups":[`+strings.Join(values, ",")+`]}`).String()
	page := a.seen("root", "/people/"+id, 200)
	wants(t, "short", words(page), "Show all 2\u202f000", "and 1\u202f992 more", "This is the beginning of", "and 1992 more added")
	lacks(t, "short", page, "/groups/a-group-of-many-letters-0100")
	whole := a.seen("root", "/people/"+id+"?groups=all", 200)
	wants(t, "whole", whole, "/groups/a-group-of-many-letters-0100", "/groups/a-group-of-many-letters-1999")
	lacks(t, "whole", words(whole), "Show all")
}

func TestConsoleOffersWhatALocalAccountTakes(t *testing.T) {
	t.Parallel()
	a := newAPI(t, withLocal, func(_ *groups.Settings, o *admin.Options) {
		o.Sources = func() []admin.SourceStatus {
			return append(testSources(), admin.SourceStatus{Name: "local", Label: "local", Kind: "local", Ready: true})
		}
	})
	wants(t, "people", a.seen("root", "/people", 200), `data-api="/console/api/v1/users"`, "At least 12 characters")
	u := ok[localUser](a, 201, "POST", "/users", `{"user":"dora","email":"dora@example.com","name":"Dora","password":"`+secret+`"}`)
	page := a.seen("root", "/people/"+u.ID, 200)
	etag := a.call("GET", "/users/"+u.ID, "").header.Get("ETag")
	wants(t, "dora", page, "person-edit", "person-password", "person-disable", `data-tag="`+html.EscapeString(etag)+`"`)
	wants(t, "dora", words(page), "Known to local local", "No rule reads anything of local users", "the local account with its password", "Because everybody who signs in by local gets it")
	lacks(t, "dora", page, "person-enable", secret, "argon2", "/console/explain?")
	ok[localUser](a, 200, "PATCH", "/users/"+u.ID, `{"disabled":true}`)
	page = a.seen("root", "/people/"+u.ID, 200)
	wants(t, "disabled", page, "person-enable", "Account disabled")
	lacks(t, "disabled", page, "person-disable")
}

// Two administrators who edit at once do not overwrite each other silently.
func TestLocalUserIsChangedAsItWasRead(t *testing.T) {
	t.Parallel()
	a := newAPI(t, withLocal)
	u := ok[localUser](a, 201, "POST", "/users", `{"user":"dora","password":"`+secret+`"}`)
	path := "/users/" + u.ID
	first := a.call("GET", path, "").header.Get("ETag")
	if first == "" {
		t.Fatal("no ETag")
	}
	changed := a.call("PATCH", path, `{"email":"dora@example.com"}`, "If-Match: "+first)
	second := changed.header.Get("ETag")
	if changed.status != 200 || second == "" || second == first {
		t.Fatalf("%d, ETag %q after %q", changed.status, second, first)
	}
	for _, body := range []string{`{"name":"D."}`, `{"disabled":true}`, `{"password":"another password"}`} {
		if p := a.refused(412, "PATCH", path, body, "If-Match: "+first); !strings.HasSuffix(p.Type, "precondition-failed") {
			t.Errorf("%s: %+v", body, p)
		}
	}
	if got := ok[localUser](a, 200, "GET", path, ""); got.Name != "" || got.Local.Disabled || got.Email != "dora@example.com" {
		t.Errorf("changed all the same: %+v", got)
	}
	tag := second
	for _, body := range []string{`{"name":"D."}`, `{"disabled":true}`, `{"password":"another password"}`} {
		a.clock.pass(time.Minute)
		got := a.call("PATCH", path, body, "If-Match: "+tag)
		if got.status != 200 || got.header.Get("ETag") == tag {
			t.Errorf("%s: %d, ETag %q after %q", body, got.status, got.header.Get("ETag"), tag)
		}
		tag = got.header.Get("ETag")
	}
	ok[localUser](a, 200, "PATCH", path, `{"name":"without a condition"}`)
	other := a.signIn("entra", "s1", `{"preferred_username":"alice"}`).String()
	if got := a.call("GET", "/users/"+other, ""); got.status != 200 || got.header.Get("ETag") != "" {
		t.Errorf("of nothing that can be changed: %d, ETag %q", got.status, got.header.Get("ETag"))
	}
}

func TestConsoleFillsInWhatIsExplained(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	wants(t, "empty", a.seen("root", "/explain", 200), `<option value="entra" data-kind="oidc">`, "explain.js?v=")
	id := a.signIn("entra", "s1", `{"preferred_username":"alice","groups":["eng"]}`).String()
	a.clock.pass(time.Minute)
	a.signIn("corp", "g1", `{"preferred_username":"alice","memberOf":["</textarea><script>"]}`)
	bob := a.signIn("entra", "s2", `{"preferred_username":"bob"}`).String()
	claimsOf := func(path string) (source, user, text string) {
		page := a.seen("root", path, 200)
		if m := regexp.MustCompile(`<option value="(\w+)"[^>]* selected>`).FindStringSubmatch(page); m != nil {
			source = m[1]
		}
		user = regexp.MustCompile(`id="user" name="user" value="([^"]*)"`).FindStringSubmatch(page)[1]
		text = regexp.MustCompile(`(?s)<textarea[^>]*>(.*)</textarea>`).FindStringSubmatch(page)[1]
		return source, user, html.UnescapeString(text)
	}
	for query, want := range map[string][3]string{
		"":                            {"", "", ""},
		"?source=corp":                {"corp", "", ""},
		"?source=entra&user=" + id:    {"entra", id, "{\n  \"groups\": [\n    \"eng\"\n  ],\n  \"preferred_username\": \"alice\"\n}"},
		"?user=" + id:                 {"corp", id, "{\n  \"memberOf\": [\n    \"</textarea><script>\"\n  ],\n  \"preferred_username\": \"alice\"\n}"},
		"?source=corp&user=" + bob:    {"corp", bob, ""},
		"?source=entra&user=nobody":   {"entra", "nobody", ""},
		"?source=entra&user=uzzzzz":   {"entra", "uzzzzz", ""},
		"?source=nothing&user=" + bob: {"", bob, ""},
	} {
		source, user, text := claimsOf("/explain" + query)
		if got := [3]string{source, user, text}; got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	wants(t, "gone", words(a.seen("root", "/explain?source=nothing", 200)), "The source nothing is not in the configuration any more.")
	wants(t, "bob at corp", words(a.seen("root", "/explain?source=corp&user="+bob, 200)), "This source has said nothing about the person.")
	found := a.seen("root", "/explain?query=ali", 200)
	wants(t, "found", found, `href="/console/explain?source=corp&amp;user=`+id+`"`, `href="/console/explain?source=entra&amp;user=`+id+`"`)
	lacks(t, "found", found, bob, `id="lookup"`)
	wants(t, "nobody", words(a.seen("root", "/explain?query=carol", 200)), "Nobody fits this search.")
	a.seen("root", "/explain?source=entra&source=corp", 400)
}

// The page puts the API's fixed words into the page's language: every one has
// to be known in all of them.
func TestEveryVerdictHasWords(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		s.Sources[0].Groups.Claims = []string{"groups", "gone", "none"}
		s.Sources = append(s.Sources, groups.SourceSettings{Name: "strict", Groups: claims.GroupClaims{Claims: []string{"a", "n"}, WhenAbsent: claims.Deny}})
		s.Rules = []groups.Rule{
			{ID: "v", Claim: "groups", Value: "eng", Group: "v"}, {ID: "d", Claim: "groups", DN: "CN=eng,DC=example", Group: "d"},
			{ID: "r", Claim: "groups", Regexp: "e(n)g", Group: "r"}, {ID: "y", Claim: "any", Any: true}, {ID: "s", Claim: "list", Split: ";", Value: "eng", Group: "s"},
			{ID: "m", Claim: "missing", Value: "manual", Group: "board"}, {ID: "k", Claim: "missing", Value: "bad", Group: "bad\tname"},
		}
	})
	statement := `{"groups":["eng"," eng ","ENG","ops","CN=eng,DC=example","CN=ops,DC=example"],"any":["x"],"list":["eng;ops",";"],"none":null}`
	phrases := map[string]bool{}
	for _, source := range []string{"entra", "corp", "strict"} {
		type verdicts struct {
			Explanation struct {
				Claims []struct {
					Why, Effect string
					Values      []struct {
						Rules []struct{ Why string }
					}
				}
			}
		}
		got := ok[verdicts](a, 200, "POST", "/explain", `{"source":"`+source+`","claims":`+statement+`}`)
		for _, c := range got.Explanation.Claims {
			phrases["effect."+c.Effect] = true
			if c.Why != "" {
				phrases["why."+c.Why] = true
			}
			for _, v := range c.Values {
				for _, r := range v.Rules {
					_, after, cut := strings.Cut(r.Why, `": `)
					if !cut {
						after = r.Why
					}
					phrases["why."+after] = true
				}
			}
		}
	}
	for _, reason := range []string{groups.SkipMissing, groups.SkipName, groups.SkipManual} {
		phrases["skip."+reason] = true
	}
	if len(phrases) != 20 {
		t.Errorf("%d phrases, want all 20: %v", len(phrases), phrases)
	}
	for _, l := range []string{"en", "de", "fr", "es", "cs"} {
		raw, err := os.ReadFile("ui/text/" + l + "/explain.json")
		if err != nil {
			t.Fatal(err)
		}
		var texts map[string]string
		if err := json.Unmarshal(raw, &texts); err != nil {
			t.Fatal(err)
		}
		for p := range phrases {
			if texts["js.explain."+p] == "" {
				t.Errorf("%s: no words for %q", l, p)
			}
		}
	}
}

// What the script says is in the texts, and the other way round.
func TestExplainScriptHasItsWords(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("ui/explain.js")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("ui/text/en/explain.json")
	if err != nil {
		t.Fatal(err)
	}
	var texts map[string]string
	if err := json.Unmarshal(raw, &texts); err != nil {
		t.Fatal(err)
	}
	used := 0
	for _, m := range regexp.MustCompile(`"(explain\.[a-z_.]+[a-z])"`).FindAllStringSubmatch(string(script), -1) {
		used++
		if texts["js."+m[1]] == "" {
			t.Errorf("no words for %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`fault\("(\w+)"|: "(end)"|\? "(\w+)" : "end"`).FindAllStringSubmatch(string(script), -1) {
		used++
		if why := m[1] + m[2] + m[3]; texts["js.explain.json."+why] == "" {
			t.Errorf("no words for the fault %s", why)
		}
	}
	if used < 60 {
		t.Errorf("only %d uses were found: the expression is wrong", used)
	}
	for key := range texts {
		name, js := strings.CutPrefix(key, "js.")
		built := regexp.MustCompile(`^explain\.(json|state|why|effect|skip)\.`).MatchString(name)
		if js && !built && !strings.Contains(string(script), `"`+name+`"`) {
			t.Errorf("%s is said nowhere", key)
		}
	}
}

// A page of people does not get slower with their number.
func TestManyPeopleAreListedQuickly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	a := newAPI(t)
	const people, perTx = 100_000, 20_000
	c, err := claims.Parse([]byte(`{"groups":["eng"]}`))
	if err != nil {
		t.Fatal(err)
	}
	var last groups.UserID
	ctx, at := t.Context(), a.clock.now()
	for from := 0; from < people; from += perTx {
		err := a.store.Update(ctx, func(tx groups.Tx) error {
			for i := from; i < from+perTx; i++ {
				u := groups.User{Name: fmt.Sprint("user", i), Email: fmt.Sprintf("user%d@example.com", i), Display: fmt.Sprint("Person ", i), Created: at}
				if err := tx.CreateUser(ctx, &u); err != nil {
					return err
				}
				if err := tx.PutIdentity(ctx, &groups.IdentityRecord{User: u.ID, Source: "entra", Subject: u.Name, Claims: c, IssuedAt: at, Seen: at}); err != nil {
					return err
				}
				last = u.ID
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	a.signIn("corp", "g1", `{"preferred_username":"user5"}`) // alone there
	middle := cursorOf(fmt.Sprintf("users-seen:%d:%s", at.UnixMicro(), groups.UserID(people/2)))
	for _, path := range []string{
		"/people?sort=name", "/people?sort=seen", "/people?sort=seen&source=entra", "/people?sort=seen&source=corp", "/people?sort=name&source=corp", "/people?source=corp",
		"/people?sort=name&query=user", "/people?sort=seen&query=user99999", "/people?sort=name&query=99", "/people?sort=seen&query=nobody-has-this",
		"/people?sort=seen&after=" + middle, "/people?sort=name&after=" + cursorOf("users-name:user5"), "/people?sort=seen&after=" + cursorOf("users-seen:0:u1"),
		"/people", "/people?query=user99999", "/people?query=nobody-has-this", "/people?limit=500", "/people/" + last.String(), "/explain?query=user99998",
	} {
		began := time.Now()
		page := a.seen("root", path, 200)
		took := time.Since(began)
		t.Logf("%s: %v, %d KB", path, took.Round(time.Millisecond), len(page)>>10)
		if took > time.Second {
			t.Errorf("%s took %v", path, took)
		}
	}
}
