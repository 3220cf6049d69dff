package admin_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

type statsOf struct {
	From, To time.Time
	Step     string
	Items    []struct {
		At                             time.Time
		SignIns                        int `json:"sign_ins"`
		Refused, Syncs, Added, Removed int
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	a := newAPI(t) // 12:00 in the east is 11:00 UTC
	ok[any](a, 201, "POST", "/groups", `{"name":"engineering","control":"sso"}`)
	a.clock.pass(30 * time.Minute)
	in := groups.Event{Kind: groups.EventSignIn, Source: "entra"}
	a.dir.Note(t.Context(), in)
	a.signIn("entra", "1", `{"preferred_username":"alice","groups":["eng"]}`)
	a.clock.pass(26 * time.Hour)
	a.signIn("entra", "1", `{"preferred_username":"alice","groups":[]}`)
	a.signIn("entra", "2", `{"preferred_username":"bob","groups":["eng"]}`)
	for _, e := range []groups.Event{in, in, {Kind: groups.EventRefused, Source: "entra"}} {
		a.dir.Note(t.Context(), e)
	}

	hours := ok[statsOf](a, 200, "GET", "/stats", "")
	end := time.Date(2026, 3, 2, 14, 0, 0, 0, time.UTC)
	if hours.Step != "hour" || !hours.To.Equal(end) || !hours.From.Equal(end.Add(-24*time.Hour)) || len(hours.Items) != 24 {
		t.Fatalf("%+v", hours)
	}
	for i, c := range hours.Items {
		if !c.At.Equal(hours.From.Add(time.Duration(i) * time.Hour)) {
			t.Errorf("step %d begins at %s", i, c.At)
		}
		if i < 23 && c.SignIns+c.Syncs+c.Refused != 0 {
			t.Errorf("%+v", c)
		}
	}
	if c := hours.Items[23]; c.SignIns != 2 || c.Refused != 1 || c.Syncs != 2 || c.Added != 1 || c.Removed != 1 {
		t.Errorf("the last hour: %+v", c)
	}
	days := ok[statsOf](a, 200, "GET", "/stats?step=day", "")
	if len(days.Items) != 14 || days.Items[12].SignIns != 1 || days.Items[13].SignIns != 2 || days.Items[12].Added != 1 {
		t.Errorf("by the day: %+v", days)
	}
	some := ok[statsOf](a, 200, "GET", "/stats?from=2026-03-01T11:59:00Z&to=2026-03-01T12:00:01Z", "")
	if len(some.Items) != 2 || some.Items[0].SignIns != 1 || some.Items[1].SignIns != 0 {
		t.Errorf("two hours: %+v", some)
	}
	if most := ok[statsOf](a, 200, "GET", "/stats?step=day&from=2024-10-19T00:00:00Z&to=2026-03-03T00:00:00Z", ""); len(most.Items) != 500 {
		t.Errorf("%d days", len(most.Items))
	}
	for _, q := range []string{"step=week", "from=yesterday", "to=x", "from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z",
		"from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z", "from=1960-01-01T00:00:00Z&to=1960-01-02T00:00:00Z", "step=day&from=0002-01-01T00:00:00Z&to=9999-01-01T00:00:00Z"} {
		a.refused(400, "GET", "/stats?"+q, "")
	}
}

// exported reads a CSV export: by the names of its columns.
func exported(t *testing.T, body []byte) (rows []map[string]string) {
	t.Helper()
	all, err := csv.NewReader(strings.NewReader(string(body))).ReadAll()
	if err != nil || len(all) == 0 {
		t.Fatalf("%v: %s", err, body)
	}
	for _, rec := range all[1:] {
		row := map[string]string{}
		for i, name := range all[0] {
			row[name] = rec[i]
		}
		rows = append(rows, row)
	}
	return rows
}

func TestExportOfTheTrail(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		s.Sync.CreateNewGroups = false
		s.Rules = append(s.Rules, groups.Rule{ID: "r", Source: "entra", Claim: "groups", Value: "x", Group: "nowhere"})
	})
	ok[any](a, 201, "POST", "/groups", `{"name":"engineering","control":"sso"}`)
	alice := a.signIn("entra", "1", `{"preferred_username":"alice","groups":["eng","x"]}`)
	a.dir.Note(t.Context(), groups.Event{Kind: groups.EventRefused, Source: "corp", Name: `=HYPERLINK("http://evil.example.com")`, Reason: "two\nlines, \"quoted\""})

	got := a.call("GET", "/events:export?format=csv", "")
	if got.status != 200 || got.header.Get("Content-Disposition") != `attachment; filename="audit-2026-03-01.csv"` {
		t.Fatalf("%d %v", got.status, got.header)
	}
	rows := exported(t, got.body)
	listed := all[struct{ ID, Kind string }](a, "/events", "2")
	if len(rows) != len(listed) || len(rows) < 4 {
		t.Fatalf("%d rows, %d events", len(rows), len(listed))
	}
	for i := range rows {
		if rows[i]["id"] != listed[i].ID || rows[i]["kind"] != listed[i].Kind {
			t.Errorf("row %d: %v, listed %v", i, rows[i], listed[i])
		}
	}
	if r := rows[0]; r["user"] != `'=HYPERLINK("http://evil.example.com")` || r["reason"] != "two\nlines, \"quoted\"" || r["source"] != "corp" || r["user_id"] != "" {
		t.Errorf("%q", r)
	}
	sync := exported(t, a.call("GET", "/events:export?format=csv&kind=sync&user="+alice.String(), "").body)
	if len(sync) != 1 || sync[0]["added"] != "engineering" || sync[0]["skipped"] != "nowhere (group does not exist)" ||
		sync[0]["user"] != "alice" || sync[0]["user_id"] != alice.String() || sync[0]["at"] != "2026-03-01T11:00:00Z" {
		t.Errorf("the sync: %q", sync)
	}

	lines := a.call("GET", "/events:export?format=jsonl&source=corp", "")
	if lines.status != 200 || !strings.HasSuffix(lines.header.Get("Content-Disposition"), `.jsonl"`) || strings.Count(string(lines.body), "\n") != 1 {
		t.Fatalf("%d %v %s", lines.status, lines.header, lines.body)
	}
	var e struct{ Kind, Source, User string }
	if err := json.Unmarshal(lines.body, &e); err != nil || e.Kind != "refused" || !strings.HasPrefix(e.User, "=") {
		t.Errorf("%+v, %v", e, err)
	}
	if head := a.call("HEAD", "/events:export?format=csv", ""); head.status != 200 || len(head.body) > 0 {
		t.Errorf("HEAD: %d %s", head.status, head.body)
	}
	for _, q := range []string{"", "format=xml", "format=csv&user=7", "format=csv&from=x", "format=csv&to=x"} {
		a.refused(400, "GET", "/events:export?"+q, "")
	}
	if got := a.call("GET", "/events:export?format=csv", "", "Authorization: Bearer wrong"); got.status != 401 {
		t.Errorf("without the token: %d", got.status)
	}
}

// An export reads on until its bound, each event once.
func TestExportIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; takes many times as long under the race detector")
	}
	t.Parallel()
	a := newAPI(t)
	const n = admin.MaxExport + 700
	for from := 0; from < n; from += 10_000 {
		batch := make([]groups.Event, min(10_000, n-from))
		for i := range batch {
			batch[i] = groups.Event{Kind: groups.EventSignIn, Request: fmt.Sprint(from + i)}
		}
		if err := a.store.Update(t.Context(), func(tx groups.Tx) error { return tx.AddEvents(t.Context(), batch...) }); err != nil {
			t.Fatal(err)
		}
	}
	rows := exported(t, a.call("GET", "/events:export?format=csv", "").body)
	if len(rows) != admin.MaxExport {
		t.Fatalf("%d rows", len(rows))
	}
	for i, r := range rows {
		if r["request"] != fmt.Sprint(n-1-i) {
			t.Fatalf("row %d is of %s", i, r["request"])
		}
	}
}

func TestSourcesSayWhatRunsOut(t *testing.T) {
	t.Parallel()
	age := int64(90)
	a := newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		o.Sources = func() []admin.SourceStatus {
			all := testSources()
			all[0].CertificateExpires, all[0].MetadataExpires = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
			all[0].MetadataAge = &age
			return all
		}
	})
	got := ok[listOf[map[string]any]](a, 200, "GET", "/sources", "").Items
	if got[0]["certificate_expires"] != "2026-04-01T00:00:00Z" || got[0]["metadata_expires"] != "2026-05-01T00:00:00Z" || got[0]["metadata_age"] != 90.0 {
		t.Errorf("%v", got[0])
	}
	for _, key := range []string{"certificate_expires", "metadata_expires", "metadata_age"} {
		if v, there := got[1][key]; there {
			t.Errorf("%s of a source that does not say: %v", key, v)
		}
	}
}
