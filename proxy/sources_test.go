package proxy_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

const localPassword = "a local password"

// everySource is corp with local users as well. Each of the three has an
// alice; carol is the provider's alone, and dora is a local user.
func everySource(t *testing.T, link ...string) (*rig, *claimstest.Directory) {
	t.Helper()
	r, d := corp(t, func(r *rig) {
		local := claims.NewLocal(claims.LocalOptions{Name: "local", Config: claims.DefaultLocal, Accounts: r.dir, Now: r.clock.Now})
		r.settings.Sources = append(r.settings.Sources, proxy.SourceEntry{Source: local, Label: "Account here", Protocol: "local"})
		r.groups.Sources = append(r.groups.Sources, groups.SourceSettings{Name: "local", Local: &claims.DefaultLocal})
		r.groups.Link = link
		r.settings.Routes = append(r.settings.Routes, proxy.RouteConfig{Path: "/local/", Basic: "local"})
	})
	return r, d
}

func (r *rig) localUser(name string) error {
	r.t.Helper()
	hash, err := claims.HashPassword(r.t.Context(), localPassword)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = r.dir.CreateLocal(r.t.Context(), "local", groups.LocalUser{Name: name, Email: name + "@example.com", Password: hash}, "admin")
	return err
}

// signsIn signs a person in at a source, as a browser does, and answers the
// page that it ends on.
func (r *rig) signsIn(t *testing.T, b *claimstest.Browser, source, user string) *claimstest.Page {
	t.Helper()
	switch source {
	case "test":
		return r.login(b, user, "/_auth/start?source=test&rd=/")
	case "local":
		return formLogin(t, r, b, source, user, localPassword)
	}
	return formLogin(t, r, b, source, user, map[string]string{"alice": alicePassword, "bob": bobPassword}[user])
}

// A user name is of the source that stated it first: whoever comes with it from
// elsewhere is refused, with a page that says so and an event, and gets nothing
// of that person's.
func TestNoSourceSpeaksForAnothersPeople(t *testing.T) {
	t.Parallel()
	for first, second := range map[string]string{"test": "corp", "corp": "test", "local": "corp"} {
		t.Run(first+" before "+second, func(t *testing.T) {
			t.Parallel()
			r, _ := everySource(t)
			if first == "local" {
				if err := r.localUser("alice"); err != nil {
					t.Fatal(err)
				}
			}
			owner := r.browser()
			if at := r.signsIn(t, owner, first, "alice"); at.Status != 200 {
				t.Fatalf("the first alice: %d", at.Status)
			}
			held := groupsOf(t, r, "alice")
			before := r.up.count()
			other := r.browser()
			at := r.signsIn(t, other, second, "alice")
			if at.Status != 403 || !strings.Contains(at.Body, "belongs to another account") || r.up.count() != before {
				t.Errorf("the second alice: %d, %d forwarded, %s", at.Status, r.up.count()-before, at.Body)
			}
			if refused := events(t, r, groups.EventRefused); len(refused) != 1 || refused[0].Source != second || refused[0].Name != "alice" || refused[0].User != 0 {
				t.Errorf("refused: %+v", refused)
			}
			equal(t, "groups of the first", groupsOf(t, r, "alice"), held)
			if res := r.do("GET", "/", signedIn(r.cookie(other))); res.StatusCode != 401 {
				t.Errorf("the second alice is signed in: %d", res.StatusCode)
			}
			if res := r.do("GET", "/", signedIn(r.cookie(owner))); res.StatusCode != 200 || r.up.last(t).Header.Get("X-Forwarded-User") != "alice" {
				t.Errorf("the first alice: %d", res.StatusCode)
			}
			if second == "corp" { // by HTTP Basic as by the form
				r.wants("by HTTP Basic", "/api/x", 403, basic("alice", alicePassword))
			}
			// Somebody whom nobody else speaks for comes in from there.
			if at := r.signsIn(t, r.browser(), second, "bob"); at.Status != 200 {
				t.Errorf("control: %d", at.Status)
			}
		})
	}
}

// Nor can an administrator make a local user in somebody's name by accident.
func TestALocalUserTakesNobodysName(t *testing.T) {
	t.Parallel()
	r, _ := everySource(t)
	if at := r.signsIn(t, r.browser(), "corp", "alice"); at.Status != 200 {
		t.Fatalf("alice: %d", at.Status)
	}
	if err := r.localUser("alice"); err == nil {
		t.Error("a local alice was made beside the directory's")
	}
	if err := r.localUser("dora"); err != nil {
		t.Fatal(err)
	}
	if at := r.signsIn(t, r.browser(), "local", "dora"); at.Status != 200 || r.up.last(t).Header.Get("X-Forwarded-User") != "dora" {
		t.Errorf("control: %d", at.Status)
	}
}

// HTTP Basic with a local user: what the administrator changed holds at the
// next check, and a disabled account at once.
func TestBasicOfLocalUsers(t *testing.T) {
	t.Parallel()
	r, _ := everySource(t)
	if err := r.localUser("dora"); err != nil {
		t.Fatal(err)
	}
	r.wants("dora", "/local/x", 200, basic("dora", localPassword))
	if h := r.up.last(t).Header; h.Get("X-Forwarded-User") != "dora" || h.Get("X-Forwarded-Email") != "dora@example.com" || h["Authorization"] != nil {
		t.Errorf("the upstream got %v", h)
	}
	r.wants("wrong", "/local/x", 401, basic("dora", "wrong"))
	r.wants("on another source's route", "/api/x", 401, basic("dora", localPassword))
	subject, none := "", ""
	if list, err := r.dir.ListLocal(t.Context(), "local", 0, 10); err != nil || len(list) != 1 {
		t.Fatalf("%d accounts, %v", len(list), err)
	} else {
		subject = list[0].Subject
	}
	if _, err := r.dir.ChangeLocal(t.Context(), "local", subject, groups.LocalChange{Email: &none}, "admin"); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(6 * time.Minute)
	r.wants("without an address", "/local/x", 200, basic("dora", localPassword))
	if h := r.up.last(t).Header; h.Get("X-Forwarded-Email") != "" {
		t.Errorf("the address that was taken away is told: %v", h)
	}
	if err := r.dir.SetLocalDisabled(t.Context(), "local", subject, true, "admin"); err != nil {
		t.Fatal(err)
	}
	r.wants("disabled", "/local/x", 403, basic("dora", localPassword))
}

// Sources that share their people make one user of one name, who has what each
// of them grants; the sync of one leaves what another granted.
func TestLinkedSourcesAreOnePerson(t *testing.T) {
	t.Parallel()
	r, d := everySource(t, "test", "corp", "local")
	if at := r.signsIn(t, r.browser(), "test", "alice"); at.Status != 200 {
		t.Fatalf("test: %d", at.Status)
	}
	equal(t, "after test", groupsOf(t, r, "alice"), []string{"admins", "engineering"})
	if at := r.signsIn(t, r.browser(), "corp", "alice"); at.Status != 200 {
		t.Fatalf("corp: %d", at.Status)
	}
	equal(t, "after corp", groupsOf(t, r, "alice"), []string{"admins", "dev", "engineering"})
	if err := r.localUser("alice"); err != nil {
		t.Fatal(err)
	}
	if at := r.signsIn(t, r.browser(), "local", "alice"); at.Status != 200 || r.grouped() != "admins,dev,engineering" {
		t.Fatalf("local: %d, %q", at.Status, r.grouped())
	}
	u, err := r.store.UserByName(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := r.store.Identities(t.Context(), u.ID)
	if err != nil || len(ids) != 3 {
		t.Fatalf("%d identities, %v", len(ids), err)
	}
	// What one source takes away another did not give, by a login of hers ...
	r.op.SetPerson(person("alice", "engineering"))
	if at := r.signsIn(t, r.browser(), "test", "alice"); at.Status != 200 {
		t.Fatalf("test again: %d", at.Status)
	}
	equal(t, "after test took one away", groupsOf(t, r, "alice"), []string{"dev", "engineering"})
	// ... or by a check of her password.
	r.wants("basic", "/api/dev/x", 200, basic("alice", alicePassword))
	d.Put(d.Group("dev"))
	r.clock.advance(6 * time.Minute)
	r.wants("without the group", "/api/dev/x", 403, basic("alice", alicePassword))
	equal(t, "after corp took one away", groupsOf(t, r, "alice"), []string{"engineering"})
	// Who is gone from one source has what the others grant.
	if err := r.dir.Gone(t.Context(), "corp", d.Subject(d.PersonDN("alice")), ""); err != nil {
		t.Fatal(err)
	}
	equal(t, "after corp called her gone", groupsOf(t, r, "alice"), []string{"engineering"})
	// Linking two does not open the third's people to others.
	r.groups.Link = []string{"test", "local"}
	r.configure()
	if at := r.signsIn(t, r.browser(), "corp", "bob"); at.Status != 200 {
		t.Fatalf("bob: %d", at.Status)
	}
	if at := r.signsIn(t, r.browser(), "test", "bob"); at.Status != 403 {
		t.Errorf("bob of a source that is not linked to the first: %d", at.Status)
	}
}

// A directory that no longer states an attribute has taken it away, by a
// refresh that asks no person as much as by a login.
func TestRefreshOfADirectoryTakesAway(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	d.Change(d.PersonDN("alice"), func(e *claimstest.Entry) { e.Attributes["department"] = []string{"Sales"} })
	r.settings.Headers.Claims = map[string]string{"X-Department": "department"}
	r.configure()
	b := r.browser()
	if at := r.signsIn(t, b, "corp", "alice"); at.Status != 200 || r.grouped() != "dev" || r.up.last(t).Header.Get("X-Department") != "Sales" {
		t.Fatalf("%d, %q", at.Status, r.grouped())
	}
	d.Put(d.Group("dev"))
	d.Change(d.PersonDN("alice"), func(e *claimstest.Entry) { delete(e.Attributes, "department") })
	d.Forget()
	r.clock.advance(6 * time.Minute)
	res := r.do("GET", "/", signedIn(r.cookie(b)))
	if h := r.up.last(t).Header; res.StatusCode != 200 || r.grouped() != "" || h.Get("X-Department") != "" || tried(d) != 0 {
		t.Errorf("%d, groups %q, department %q, %d passwords tried", res.StatusCode, r.grouped(), h.Get("X-Department"), tried(d))
	}
	equal(t, "stored", groupsOf(t, r, "alice"), nil)
}

// A rule without a source holds for every source that has the claim; one with
// a source for that alone; none for local users.
func TestRulesWithoutASource(t *testing.T) {
	t.Parallel()
	r, d := everySource(t)
	r.op.SetPerson(func() claimstest.Person {
		p := person("carol")
		p.Claims["department"] = "Sales"
		return p
	}())
	d.Change(d.PersonDN("bob"), func(e *claimstest.Entry) { e.Attributes["department"] = []string{"Sales"} })
	src := claims.NewOIDC(claims.OIDCOptions{
		Name: "test", Config: claims.OIDCConfig{Issuer: r.op.URL, ClientID: "portal", ClientSecret: "secret-of-the-client"},
		Needed: func() []string { return []string{"groups", "preferred_username", "email", "name", "department"} },
	})
	r.settings.Sources[0].Source = src
	r.groups.Rules = append(r.groups.Rules,
		groups.Rule{ID: "sales", Claim: "department", Value: "Sales", Group: "sales"},
		groups.Rule{ID: "corp-sales", Source: "corp", Claim: "department", Value: "Sales", Group: "corp-sales"},
		groups.Rule{ID: "mail", Claim: "email", Value: "dora@example.com", Group: "mail"})
	r.groups.Sync.DefaultGroups = []string{"everyone"}
	r.configure()
	if err := r.localUser("dora"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		source, user string
		want         []string
	}{
		{"test", "carol", []string{"sales"}},
		{"corp", "bob", []string{"corp-sales", "sales"}},
		{"corp", "alice", nil},
		{"local", "dora", []string{"everyone"}},
	} {
		if at := r.signsIn(t, r.browser(), c.source, c.user); at.Status != 200 {
			t.Errorf("%s: %d", c.user, at.Status)
		}
		got := groupsOf(t, r, c.user)
		if c.user == "alice" {
			got = slices.DeleteFunc(got, func(g string) bool { return g == "dev" })
		}
		equal(t, c.user, got, c.want)
	}
}

// The chooser offers every source by its label; ?source= goes straight on.
func TestEverySourceIsOffered(t *testing.T) {
	t.Parallel()
	r, _ := everySource(t)
	b := r.browser()
	chooser, err := b.Get(r.server.URL + "/")
	if err != nil || chooser.Status != 200 {
		t.Fatalf("%v, %+v", err, chooser)
	}
	for _, label := range []string{"Account at test", "Account at corp", "Account here"} {
		if !strings.Contains(chooser.Body, label) {
			t.Errorf("the chooser lacks %q", label)
		}
	}
	for source, sign := range map[string]string{"corp": "/_auth/login/corp", "local": "/_auth/login/local"} {
		form, err := b.Get(r.server.URL + "/_auth/sign_in?source=" + source + "&rd=/")
		if err != nil || form.Status != 200 || !strings.Contains(form.Body, sign) {
			t.Errorf("%s: %v, %d", source, err, form.Status)
		}
	}
	if res := hop(t, b, r.server.URL+"/_auth/sign_in?source=test&rd=/"); res.StatusCode != 302 || !strings.HasPrefix(res.Header.Get("Location"), r.op.URL) {
		t.Errorf("test: %d to %s", res.StatusCode, res.Header.Get("Location"))
	}
}
