package admin_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

type testedPerson struct {
	OK     bool
	Detail string
	Found  *struct {
		Searches, Unknown                []string
		Problem, Entry, Subject, Account string
		Groups                           []claims.FoundGroup
		Claims                           map[string]any
	}
}

// directoryAPI serves the API with a directory as the source "corp".
func directoryAPI(t *testing.T) (*api, *claimstest.Directory) {
	t.Helper()
	d := claimstest.StartDirectory(t, claimstest.DirectoryOptions{AD: true})
	d.Put(d.Person("alice", "the password of alice"))
	d.Put(d.Group("team", d.PersonDN("alice")), d.Group("all", d.GroupDN("team")))
	cfg := claims.DefaultLDAP
	cfg.URL, cfg.CAFile, cfg.NestedGroups = claims.URLs{d.URLS}, d.CAFile, true
	cfg.BindDN, cfg.BindPassword, cfg.BaseDN = d.ServiceDN, d.ServicePassword, d.BaseDN
	return newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		src, err := claims.NewLDAP(claims.LDAPOptions{Name: "corp", Config: cfg, Log: o.Log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = src.Close() })
		o.TestSource = func(ctx context.Context, name string) (string, error) {
			if name != "corp" {
				return testSource(ctx, name)
			}
			return src.Probe(ctx)
		}
		o.FindPerson = func(ctx context.Context, name, person string) (*claims.Found, error) {
			if name != "corp" {
				return nil, fmt.Errorf("source %q: %w", name, groups.ErrNotFound)
			}
			return src.Find(ctx, person)
		}
	}), d
}

func TestPersonIsLookedUpInADirectory(t *testing.T) {
	t.Parallel()
	a, d := directoryAPI(t)
	without := ok[testedPerson](a, 200, "POST", "/sources/corp:test", "")
	if !without.OK || without.Found != nil || !strings.Contains(without.Detail, "Active Directory") {
		t.Errorf("without a person: %+v", without)
	}
	if got := ok[testedPerson](a, 200, "POST", "/sources/corp:test", "{}"); got.Detail != without.Detail || got.Found != nil {
		t.Errorf("an empty body: %+v", got)
	}
	got := ok[testedPerson](a, 200, "POST", "/sources/corp:test", `{"person":"EXAMPLE\\alice"}`)
	if !got.OK || got.Detail != without.Detail || got.Found == nil {
		t.Fatalf("%+v", got)
	}
	f := got.Found
	if f.Entry != d.PersonDN("alice") || f.Subject != d.Subject(f.Entry) || f.Problem != "" || len(f.Unknown) > 0 {
		t.Errorf("%+v", f)
	}
	if !slices.ContainsFunc(f.Groups, func(g claims.FoundGroup) bool {
		return g.Value == d.GroupDN("all") && g.How == claims.Nested && slices.Equal(g.Through, []string{d.GroupDN("team")})
	}) {
		t.Errorf("groups %v", f.Groups)
	}
	if list, _ := f.Claims["memberOf"].([]any); len(list) != 3 || f.Claims["preferred_username"] == nil {
		t.Errorf("claims %v", f.Claims)
	}
	if nobody := ok[testedPerson](a, 200, "POST", "/sources/corp:test", `{"person":"carol"}`); !nobody.OK || nobody.Found.Problem == "" || nobody.Found.Claims != nil {
		t.Errorf("nobody: %+v", nobody)
	}
	for _, b := range d.Binds() {
		if b.DN != d.ServiceDN {
			t.Errorf("bound as %s", b.DN)
		}
	}
	for status, body := range map[int]string{400: `{"person":1}`, 422: `{"person":""}`} {
		a.refused(status, "POST", "/sources/corp:test", body)
	}
	a.refused(400, "POST", "/sources/corp:test", `{"people":"alice"}`)
	a.refused(415, "POST", "/sources/corp:test", `person=alice`, "Content-Type: application/x-www-form-urlencoded")
	a.refused(422, "POST", "/sources/entra:test", `{"person":"alice"}`)
	a.refused(404, "POST", "/sources/nobody:test", `{"person":"alice"}`)

	if err := d.SetOffline(true); err != nil {
		t.Fatal(err)
	}
	d.DropConnections()
	if got := ok[testedPerson](a, 200, "POST", "/sources/corp:test", `{"person":"alice"}`); got.OK || got.Found != nil || got.Detail == "" {
		t.Errorf("offline: %+v", got)
	}
}

func TestLookingSomebodyUpWantsTheToken(t *testing.T) { // LD-17
	t.Parallel()
	a, d := directoryAPI(t)
	for _, authorization := range []string{"", "Bearer wrong", "Basic YWxpY2U6YQ==", "Bearer"} {
		got := a.call("POST", "/sources/corp:test", `{"person":"alice"}`, "Authorization: "+authorization)
		if got.status != 401 || strings.Contains(string(got.body), "alice") {
			t.Errorf("%q: %d %s", authorization, got.status, got.body)
		}
	}
	a.refused(403, "POST", "/sources/corp:test", `{"person":"alice"}`, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example.com")
	if n := len(d.Operations()); n != 0 {
		t.Errorf("the directory was asked %d times", n)
	}
	if got := ok[testedPerson](a, 200, "POST", "/sources/corp:test", `{"person":"alice"}`); !got.OK || got.Found.Entry == "" {
		t.Errorf("with the token: %+v", got)
	}
	if len(d.Operations()) == 0 {
		t.Error("with the token, too")
	}
}

// What a person is looked up by goes into no log: people type passwords there.
func TestNameThatNobodyHasIsNotLogged(t *testing.T) { // LD-17
	t.Parallel()
	a, _ := directoryAPI(t)
	const typed = "hunter2-canary"
	got := a.call("POST", "/sources/corp:test", `{"person":"`+typed+`"}`)
	if got.status != 200 || !strings.Contains(string(got.body), typed) { // in the search that was made
		t.Fatalf("%d %s", got.status, got.body)
	}
	for _, e := range a.logs.All() {
		if line := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(line, typed) {
			t.Errorf("the log has it: %s", line)
		}
	}
}
