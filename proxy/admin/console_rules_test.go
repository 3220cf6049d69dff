package admin_test

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

type seenItems struct {
	Items []struct {
		Value, Claim string
		People       int
		Usual        bool
	}
	AsOf     string `json:"as_of"`
	Complete bool
	More     bool
}

func (s seenItems) text() string {
	var out []string
	for _, i := range s.Items {
		out = append(out, fmt.Sprintf("%s%s=%d", i.Value, i.Claim, i.People))
	}
	return strings.Join(out, " ")
}

func TestValuesThatPeopleCarry(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		s.Sources = append(s.Sources, groups.SourceSettings{Name: "people", Local: &claims.LocalConfig{}})
	})
	a.signIn("entra", "s1", `{"groups":["eng","ops"],"roles":["r"]}`)
	a.signIn("entra", "s2", `{"groups":["eng"]}`)
	a.signIn("corp", "s3", `{"memberOf":["CN=Eng,DC=example,DC=com"],"groups":"eng"}`)
	for query, want := range map[string]string{
		"claim=groups":                        "eng=3 ops=1",
		"claim=groups&source=entra":           "eng=2 ops=1",
		"claim=groups&source=entra&query=OP":  "ops=1",
		"claim=memberOf&source=corp&limit=1":  "CN=Eng,DC=example,DC=com=1",
		"claim=memberOf&source=entra":         "",
		"claim=nothing-of-that-name&limit=50": "",
	} {
		got := ok[seenItems](a, 200, "GET", "/values?"+query, "")
		if got.text() != want || got.AsOf != "2026-03-01T11:00:00Z" || !got.Complete || got.More {
			t.Errorf("%s: %+v, want %s", query, got, want)
		}
	}
	if got := ok[seenItems](a, 200, "GET", "/values?claim=groups&limit=1", ""); got.text() != "eng=3" || !got.More {
		t.Errorf("limit 1: %+v", got)
	}
	if got := ok[seenItems](a, 200, "GET", "/claims?source=entra", ""); got.text() != "groups=2 roles=1" || !got.Items[0].Usual || got.Items[1].Usual {
		t.Errorf("claims: %+v", got)
	}
	if got := ok[seenItems](a, 200, "GET", "/claims", ""); got.text() != "groups=3 memberOf=1 roles=1" {
		t.Errorf("claims of all: %+v", got)
	}
	a.refused(400, "GET", "/values?source=entra", "")
	a.refused(400, "GET", "/values?claim=groups&source=nobody", "")
	a.refused(400, "GET", "/claims?source=nobody", "")
	a.refused(400, "GET", "/values?claim=groups&limit=0", "")
	a.refused(401, "GET", "/values?claim=groups", "", "Authorization: Bearer wrong")
	a.refused(401, "GET", "/claims", "", "Authorization: Bearer wrong")
}

type matches struct {
	People   int
	Known    int `json:"known_users"`
	Complete bool
	Items    []struct{ ID, User, Source, Value, Group string }
}

func TestMatchOfARuleChangesNothing(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.signIn("entra", "s1", `{"preferred_username":"alice","groups":["eng","ops"]}`)
	for i := range 12 {
		a.signIn("corp", fmt.Sprint("c", i), `{"groups":["many"]}`)
	}
	m := ok[matches](a, 200, "POST", "/rules:match", `{"rule":{"source":"entra","claim":"groups","regexp":"o(.)s","group":"x$1"}}`)
	if m.People != 1 || m.Known != 1 || !m.Complete || len(m.Items) != 1 || m.Items[0].ID != id.String() || m.Items[0].User != "alice" || m.Items[0].Value != "ops" || m.Items[0].Group != "xp" {
		t.Errorf("one: %+v", m)
	}
	if m := ok[matches](a, 200, "POST", "/rules:match", `{"rule":{"claim":"groups","value":"many"}}`); m.People != 12 || len(m.Items) != 10 || m.Known != 13 || m.Items[0].Group != "" {
		t.Errorf("many, without a group: %+v", m)
	}
	if m := ok[matches](a, 200, "POST", "/rules:match", `{"rule":{"claim":"groups","value":"none","group":"x"}}`); m.People != 0 || len(m.Items) != 0 || m.Known != 13 {
		t.Errorf("nobody: %+v", m)
	}
	for body, keys := range map[string]string{
		`{"rule":{}}`:                                          "claim value",
		`{"rule":{"claim":"g","regexp":"("}}`:                  "regexp group",
		`{"rule":{"claim":"g","dn":"x"}}`:                      "dn",
		`{"rule":{"claim":"g","value":"x","source":"nobody"}}`: "source",
		`{"rule":{"claim":"g","value":"x","when":"claims."}}`:  "when",
		`{"rule":{"claim":"g","any":true,"group":"x"}}`:        "group",
		`{"rule":{"claim":"g","regexp":"a","group":"$1"}}`:     "group",
		`{}`: "rule",
	} {
		var got []string
		for _, e := range a.refused(422, "POST", "/rules:match", body).Errors {
			got = append(got, e.Key)
		}
		want := strings.Fields(keys)
		if slices.Sort(got); len(got) == 0 || !slices.Contains(want, got[0]) || len(got) > len(want) {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	a.refused(400, "POST", "/rules:match", `{"rule":{"clam":"g"}}`)
	a.refused(401, "POST", "/rules:match", `{"rule":{"claim":"g","any":true}}`, "Authorization: Bearer wrong")
	if got := a.groupsOf(id); !slices.Equal(got, []string{"engineering"}) || len(all[ruleItem](a, "/rules", "50")) != 1 {
		t.Errorf("a match changed something: %v", got)
	}
}

func TestPlanListsNoMoreThanAskedFor(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	ok[any](a, 201, "POST", "/groups", `{"name":"by-hand","control":"manual"}`)
	for i := range 3 {
		a.signIn("corp", fmt.Sprint("a", i), `{"memberOf":["skips"]}`) // their names come first
		a.signIn("entra", fmt.Sprint("s", i), `{"groups":["ops"]}`)
	}
	type plan struct {
		planned
		Changed int `json:"changed_users"`
		Skipped []struct {
			Rule, Group, Reason string
			People              int
		}
	}
	const rules = `"rules":[{"claim":"memberOf","value":"skips","group":"by-hand"},{"claim":"groups","value":"ops","group":"operations"}]`
	for limit, want := range map[string]int{``: 6, `,"limit":500`: 6, `,"limit":2`: 2, `,"limit":0`: 0} {
		p := ok[plan](a, 200, "POST", "/plan", `{`+rules+limit+`}`)
		if len(p.Users) != want || p.Changed != 3 || p.Added != 3 || len(p.Groups) != 1 || len(p.Skipped) != 1 {
			t.Errorf("%s: %+v", limit, p)
			continue
		}
		if s := p.Skipped[0]; s.Rule != "new-0" || s.Group != "by-hand" || s.Reason != groups.SkipManual || s.People != 3 {
			t.Errorf("%s: skipped %+v", limit, s)
		}
		if want == 2 && (len(p.Users[0].Added) == 0 || len(p.Users[1].Added) == 0) {
			t.Errorf("%s: who changes does not come first: %+v", limit, p.Users)
		}
	}
	a.refused(422, "POST", "/plan", `{"limit":-1}`)
}

var (
	ruleRows = regexp.MustCompile(`(?s)<tr data-rule=.*?</tr>`)
	nextPage = regexp.MustCompile(`href="([^"]*)" rel="next"`)
)

// rows are the rules that a page shows, by their groups.
func ruleNames(page string) (names []string) {
	for _, row := range ruleRows.FindAllString(page, -1) {
		names = append(names, regexp.MustCompile(`(?s)<td[^>]*>(?:<[^>]*>)*([^<]*)`).FindStringSubmatch(row)[1])
	}
	return names
}

func TestRulesPage(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for id, body := range map[string]string{
		"b": `{"claim":"groups","value":"ops","group":"operations"}`,
		"a": `{"source":"corp","claim":"memberOf","dn":"CN=Ops,DC=example","group":"operations","split":";"}`,
		"c": `{"claim":"groups","any":true}`,
		"d": `{"claim":"roles","regexp":"op-(.*)","group":"op-$1","when":"'x' in claims.y"}`,
		"e": `{"claim":"groups","value":"<b>&\"'","group":"<i>odd</i>"}`,
	} {
		ok[any](a, 201, "PUT", "/rules/"+id, body)
	}
	cookie := a.console()
	get := func(path string) string {
		t.Helper()
		w := a.visit("GET", path, cookie)
		if w.Code != 200 {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		return w.Body.String()
	}
	want := []string{"named by the value", "&lt;i&gt;odd&lt;/i&gt;", "engineering", "op-$1", "operations", "operations"}
	page := get("/rules")
	if got := ruleNames(page); !slices.Equal(got, want) {
		t.Errorf("rules %q, want %q", got, want)
	}
	rows := ruleRows.FindAllString(page, -1)
	if !strings.Contains(rows[2], "groupgate.yaml:7") || strings.Contains(rows[2], "data-rule-edit") || !strings.Contains(rows[4], "data-rule-edit") || !strings.Contains(rows[4], "data-rule-delete") {
		t.Errorf("whose rules: %s\n%s", rows[2], rows[4])
	}
	if strings.Contains(page, "<b>&") || strings.Contains(page, "<i>odd") {
		t.Error("a rule's text is not escaped")
	}
	for path, want := range map[string][]string{
		"/rules?query=OPER":                     {"operations", "operations"},
		"/rules?query=yaml":                     {"engineering"},
		"/rules?source=corp":                    {"named by the value", "&lt;i&gt;odd&lt;/i&gt;", "op-$1", "operations", "operations"},
		"/rules?source=corp&query=memberof":     {"operations"},
		"/rules?group=operations":               {"named by the value", "operations", "operations"},
		"/rules?group=op-west":                  {"named by the value", "op-$1"},
		"/rules?group=operations&query=nothing": nil,
		"/rules?new=1&source=corp&value=x":      {"named by the value", "&lt;i&gt;odd&lt;/i&gt;", "engineering", "op-$1", "operations", "operations"},
	} {
		if got := ruleNames(get(path)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	var paged []string
	for path := "/rules?limit=2"; path != "" && len(paged) < 20; {
		page := get(path)
		paged = append(paged, ruleNames(page)...)
		path = ""
		if m := nextPage.FindStringSubmatch(page); m != nil {
			path = "/rules" + strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if !slices.Equal(paged, want) {
		t.Errorf("page by page %q, want %q", paged, want)
	}
	for path, status := range map[string]int{"/rules?limit=x": 400, "/rules?after=x": 400, "/rules?query=a&query=b": 400} {
		if w := a.visit("GET", path, cookie); w.Code != status {
			t.Errorf("%s: %d, want %d", path, w.Code, status)
		}
	}
	if w := a.visit("GET", "/rules", ""); w.Code != 303 {
		t.Errorf("without a session: %d", w.Code)
	}
}

func TestRulesPageIsNeverBlank(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) { s.Rules, s.Sync.Enabled = nil, false })
	cookie := a.console()
	for path, want := range map[string]string{
		"/rules": "There are no rules yet", "/rules?group=x": "There are no rules yet", "/rules?query=x": "No rule fits",
	} {
		page := a.visit("GET", path, cookie).Body.String()
		if !strings.Contains(page, want) || !strings.Contains(page, "Memberships are not stored") {
			t.Errorf("%s does not say %q", path, want)
		}
	}
}

// 100,000 people, 10,000 rules: pages and suggestions come at once, and what
// takes its time ends.
func TestManyPeopleAndRulesAnswerQuickly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	a := newAPI(t)
	ctx, at := t.Context(), a.clock.now()
	const people, batch = 100_000, 20_000
	for from := 0; from < people; from += batch {
		err := a.store.Update(ctx, func(tx groups.Tx) error {
			for i := from; i < from+batch; i++ {
				c, err := claims.Parse(fmt.Appendf(nil, `{"sub":"s%d","email":"p%d@example.com","groups":["everybody","team-%d","room-%d"]}`, i, i, i%100, i%3000))
				if err != nil {
					return err
				}
				u := groups.User{Name: fmt.Sprint("person", i), Created: at}
				if err := tx.CreateUser(ctx, &u); err != nil {
					return err
				}
				if err := tx.PutIdentity(ctx, &groups.IdentityRecord{User: u.ID, Source: "entra", Subject: u.Name, Claims: c, IssuedAt: at, Seen: at}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	err := a.store.Update(ctx, func(tx groups.Tx) error {
		for i := range 10_000 {
			if err := tx.PutRule(ctx, groups.Rule{ID: fmt.Sprint("r-", i), Claim: "roles", Value: fmt.Sprint("v", i), Group: fmt.Sprint("g", i%100)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.dir.Preview(ctx, settings()); err != nil { // what Configure does, without evaluating everybody
		t.Fatal(err)
	}
	cookie := a.console()
	timed := func(what string, bound time.Duration, do func()) {
		t.Helper()
		began := time.Now()
		do()
		took := time.Since(began)
		t.Logf("%s: %v", what, took.Round(time.Millisecond))
		if took > bound {
			t.Errorf("%s took %v", what, took)
		}
	}
	for _, path := range []string{"/rules", "/rules?group=g7", "/rules?query=v99", "/rules?limit=500"} {
		timed(path, time.Second, func() { a.visit("GET", path, cookie) })
	}
	timed("the first values", time.Second, func() { ok[seenItems](a, 200, "GET", "/values?claim=groups", "") })
	timed("the summary", time.Minute, func() {
		for deadline := time.Now().Add(time.Minute); ok[seenItems](a, 200, "GET", "/values?claim=groups&limit=1", "").AsOf == "" && time.Now().Before(deadline); {
		}
	})
	timed("values", time.Second, func() {
		if got := ok[seenItems](a, 200, "GET", "/values?claim=groups&query="+url.QueryEscape("team-7"), ""); len(got.Items) != 11 || got.Items[0].People != 1000 || !got.Complete {
			t.Errorf("values: %+v", got)
		}
	})
	timed("values of everybody's own", time.Second, func() {
		if got := ok[seenItems](a, 200, "GET", "/values?claim=email", ""); got.Complete {
			t.Errorf("values of everybody's own: %+v", got)
		}
	})
	timed("a match", 4*time.Second, func() {
		m := ok[matches](a, 200, "POST", "/rules:match", `{"rule":{"claim":"groups","value":"team-7"}}`)
		if m.Known == people != m.Complete || m.Complete && m.People != 1000 || len(m.Items) == 0 {
			t.Errorf("match: %+v", m)
		}
		t.Logf("looked at %d, complete %v", m.Known, m.Complete)
	})
	timed("a plan", time.Minute, func() {
		p := ok[planned](a, 200, "POST", "/plan", `{"limit":50,"rules":[{"claim":"groups","value":"team-7","group":"seven"}]}`)
		if len(p.Users) != 50 || p.Added != 1000 {
			t.Errorf("plan: %d of %d", len(p.Users), p.Added)
		}
	})
}
