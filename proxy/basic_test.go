package proxy_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

const (
	alicePassword = "Correct:Horse 7" // the first colon ends the user name alone
	bobPassword   = "bobs-own-passw\u00f6rd"
)

// corp is a rig with an Active Directory beside the provider: alice and bob,
// alice in the group dev. Scripts may send passwords of it to /api/.
func corp(t *testing.T, opts ...option) (*rig, *claimstest.Directory) {
	t.Helper()
	d := claimstest.StartDirectory(t, claimstest.DirectoryOptions{AD: true, NetBIOS: "CORP"})
	d.Put(d.Person("alice", alicePassword), d.Person("bob", bobPassword), d.Group("dev", d.PersonDN("alice")))
	add := func(r *rig) {
		r.settings.Sources = append(r.settings.Sources, r.source("test"), r.directory(d, "corp"))
		r.groups.Sources = append(r.groups.Sources, groups.SourceSettings{
			Name: "corp", Groups: claims.GroupClaims{Claims: []string{"memberOf"}, WhenAbsent: claims.Clear},
		})
		r.groups.Rules = append(r.groups.Rules, groups.Rule{ID: "dev", Source: "corp", Claim: "memberOf", DN: d.GroupDN("dev"), Group: "dev"})
		r.settings.Routes = append(r.settings.Routes,
			proxy.RouteConfig{Path: "/api/", Basic: "corp"},
			proxy.RouteConfig{Path: "/api/dev/", Basic: "corp", Groups: []string{"dev"}})
	}
	return newRig(t, append([]option{add}, opts...)...), d
}

// directory is a source at an LDAP server.
func (r *rig) directory(d *claimstest.Directory, name string) proxy.SourceEntry {
	src, err := claims.NewLDAP(claims.LDAPOptions{
		Name: name, Now: r.clock.Now,
		Config: claims.LDAPConfig{
			URL: claims.URLs{d.URLS}, CAFile: d.CAFile, BaseDN: d.BaseDN, BindDN: d.ServiceDN, BindPassword: d.ServicePassword,
			UserFilter: claims.DefaultLDAP.UserFilter,
		},
		Needed: func() []string { return []string{"memberOf", "preferred_username", "email", "name", "department"} },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return proxy.SourceEntry{Source: src, Label: "Account at " + name, Protocol: "ldap"}
}

func basic(user, password string) func(*http.Request) {
	return func(req *http.Request) { req.SetBasicAuth(user, password) }
}

// tried counts the binds with which a password of a person was tried.
func tried(d *claimstest.Directory) (n int) {
	for _, b := range d.Binds() {
		if b.DN != d.ServiceDN {
			n++
		}
	}
	return n
}

// wants asks by HTTP Basic, and asserts the status and whether the upstream
// was reached.
func (r *rig) wants(what, path string, status int, edit ...func(*http.Request)) *http.Response {
	r.t.Helper()
	before := r.up.count()
	res := r.do("GET", path, edits(edit...))
	if res.StatusCode != status {
		r.t.Errorf("%s: %d, want %d: %s", what, res.StatusCode, status, bodyOf(r.t, res))
	}
	if forwarded := r.up.count() - before; forwarded == 1 != (status == 200) {
		r.t.Errorf("%s: %d requests reached the upstream", what, forwarded)
	}
	return res
}

// HTTP Basic signs a program in as a form does, and is remembered: the second
// request asks neither the directory nor the store.
func TestBasicSignsIn(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	res := r.wants("first", "/api/list?x=1", 200, basic("alice", alicePassword), header("X-Forwarded-User", "mallory"))
	got := r.up.last(t)
	if h := got.Header; h.Get("X-Forwarded-User") != "alice" || h.Get("X-Forwarded-Email") != "alice@example.com" ||
		h.Get("X-Forwarded-Groups") != "dev" || h["Authorization"] != nil || got.URI != "/api/list?x=1" {
		t.Errorf("the upstream got %s with %v", got.URI, h)
	}
	if res.Header["Set-Cookie"] != nil || res.Header["Www-Authenticate"] != nil {
		t.Errorf("the answer has %v", res.Header)
	}
	d.Forget()
	reads := r.faults.reads.Load()
	for range 20 {
		r.wants("again", "/api/list", 200, basic("alice", alicePassword))
	}
	if n := len(d.Operations()); n != 0 || r.faults.reads.Load() != reads {
		t.Errorf("%d operations of the directory and %d readings of the store for who is known", n, r.faults.reads.Load()-reads)
	}
	if ins := events(t, r, groups.EventSignIn); len(ins) != 1 || ins[0].Source != "corp" || ins[0].Name != "alice" {
		t.Errorf("sign-ins: %v", ins)
	}
	// LD-15: another spelling is the same person, by the directory's word.
	for _, name := range []string{"ALICE", `CORP\alice`, "alice@example.com", `corp\Alice`} {
		r.wants(name, "/api/list", 200, basic(name, alicePassword))
		if u := r.up.last(t).Header.Get("X-Forwarded-User"); u != "alice" {
			t.Errorf("%s is %q", name, u)
		}
	}
	r.wants("bob", "/api/list", 200, basic("bob", bobPassword))
	if h := r.up.last(t).Header; h.Get("X-Forwarded-User") != "bob" || h.Get("X-Forwarded-Groups") != "" {
		t.Errorf("bob is %v", h)
	}
	// A route's groups hold as for everybody.
	r.wants("a group that bob lacks", "/api/dev/x", 403, basic("bob", bobPassword))
	r.wants("a group that alice has", "/api/dev/x", 200, basic("alice", alicePassword))
	if logs := r.logs.String(); strings.Contains(logs, alicePassword) || strings.Contains(logs, "YWxpY2U6") || strings.Contains(logs, bobPassword) {
		t.Error("a password is in the log")
	}
}

// PX-14: a password that is ours to look at goes no further; a header that is
// the application's passes as it came.
func TestAuthorizationEndsWhereItIsOurs(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	cookie := r.signIn("bob")
	d.Forget()
	own := "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:"+alicePassword))
	for _, c := range []struct {
		path, authorization string
		passes              bool
	}{
		{"/other", own, true}, {"/other", "Bearer x", true}, {"/public/x", own, true}, {"/apix", own, true},
		{"/api/x", "Bearer x", false}, {"/api/x", "Digest x", false}, {"/api/x", "Basic\t" + own[6:], false}, {"/api;v=1/x", own, false},
		{"/x/%2e%2e%2fapi/x", own, false}, {"//api/x", own, false},
	} {
		before := r.up.count()
		res := r.do("GET", c.path, edits(signedIn(cookie), header("Authorization", c.authorization)))
		if res.StatusCode == 400 && strings.Contains(c.path, "%2e") {
			continue // two readings of dots are refused altogether
		}
		if res.StatusCode != 200 || r.up.count() != before+1 {
			t.Errorf("%s, %s: %d", c.path, c.authorization, res.StatusCode)
			continue
		}
		got := r.up.last(t).Header
		if passed := got.Get("Authorization"); c.passes && passed != c.authorization || !c.passes && got["Authorization"] != nil {
			t.Errorf("%s: %q arrived as %q", c.path, c.authorization, passed)
		}
		if u := got.Get("X-Forwarded-User"); u != "bob" && c.path != "/public/x" {
			t.Errorf("%s, %s: signed in as %q", c.path, c.authorization, u)
		}
	}
	if n := tried(d); n != 0 {
		t.Errorf("%d passwords were tried", n)
	}
	r.wants("elsewhere nobody is signed in by it", "/other", 401, basic("alice", alicePassword))
	r.wants("control", "/api/x", 200, basic("alice", alicePassword), signedIn(cookie))
	if h := r.up.last(t).Header; h.Get("X-Forwarded-User") != "alice" {
		t.Errorf("beside a cookie Basic decides alone, and this is %q", h.Get("X-Forwarded-User"))
	}
}

// LD-03: what is no password is refused before anybody is asked, and what is
// malformed is nobody's, whoever the cookie beside it belongs to.
func TestMalformedBasicIsNobody(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	cookie := r.signIn("carol")
	encoded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	good := encoded("alice:" + alicePassword)
	d.Forget()
	for what, lines := range map[string][]string{
		"nothing":                {"Basic"},
		"blank":                  {"Basic "},
		"no base64":              {"Basic !!!!"},
		"base64 of URLs":         {"Basic " + base64.URLEncoding.EncodeToString([]byte("alice:\u00ff\u00fe>?>?"))},
		"no padding":             {"Basic " + strings.TrimRight(encoded("alice:xx"), "=")},
		"no colon":               {"Basic " + encoded("alice")},
		"no user":                {"Basic " + encoded(":"+alicePassword)},
		"no password":            {"Basic " + encoded("alice:")},
		"a NUL":                  {"Basic " + encoded("alice:\x00")},
		"NUL behind":             {"Basic " + encoded("alice\x00:"+alicePassword)},
		"a line break":           {"Basic " + encoded("alice:"+alicePassword+"\n")},
		"Latin-1":                {"Basic " + encoded("bob:bobs-own-passw\xf6rd")},
		"a long user":            {"Basic " + encoded(strings.Repeat("a", 257)+":"+alicePassword)},
		"a long password":        {"Basic " + encoded("alice:"+strings.Repeat("a", 1025))},
		"very long":              {"Basic " + strings.Repeat("A", 100_000)},
		"twice":                  {"Basic " + good, "Basic " + good},
		"two people":             {"Basic " + good, "Basic " + encoded("bob:"+bobPassword)},
		"a token first":          {"Bearer x", "Basic " + good},
		"a comma":                {"Basic " + good + ", Basic " + good},
		"two tokens":             {"Basic " + good + " " + good},
		"lower case, no padding": {"basic YTpi0"},
	} {
		res := r.wants(what, "/api/x", 401, header("Authorization", lines...), signedIn(cookie))
		if got := res.Header.Get("WWW-Authenticate"); got != `Basic realm="corp", charset="UTF-8"` {
			t.Errorf("%s: the challenge is %q", what, got)
		}
	}
	if n := tried(d); n != 0 {
		t.Errorf("%d passwords were tried", n)
	}
	r.wants("blanks only", "/api/x", 401, basic("alice", "   "))
	if n := tried(d); n != 0 {
		t.Errorf("%d passwords were tried", n)
	}
	for what, line := range map[string]string{"plain": "Basic " + good, "lower case": "basic " + good, "blanks": "BASIC   " + good + " "} {
		r.wants("control, "+what, "/api/x", 200, header("Authorization", line))
	}
	r.wants("control, not ASCII", "/api/x", 200, basic("bob", bobPassword))
}

// A program is told that it may send a password; a browser never, and what it
// sends on its own is not listened to: any site's page could have it sent.
func TestBrowsersAreNotAskedForBasic(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	cookie := r.signIn("bob")
	d.Forget()
	fetch := func(mode string) func(*http.Request) { return header("Sec-Fetch-Mode", mode) }
	for what, c := range map[string]struct {
		edit       func(*http.Request)
		status     int
		challenged bool
	}{
		"a program":                 {nil, 401, true},
		"another kind of program":   {header("Accept", "application/json"), 401, true},
		"a wrong password":          {basic("alice", "wrong"), 401, true},
		"one that wants a page":     {edits(basic("alice", "wrong"), header("Accept", "text/html")), 401, true},
		"a page's script":           {header("X-Requested-With", "XMLHttpRequest"), 401, false},
		"fetch":                     {fetch("cors"), 401, false},
		"fetch with a password":     {edits(fetch("cors"), basic("alice", alicePassword)), 401, false},
		"an image of another site":  {edits(fetch("no-cors"), basic("alice", alicePassword)), 401, false},
		"a navigation":              {page, 302, false},
		"a navigation, remembering": {edits(page, basic("alice", alicePassword)), 302, false},
	} {
		res := r.wants(what, "/api/x", c.status, c.edit)
		if got := res.Header["Www-Authenticate"]; got != nil != c.challenged {
			t.Errorf("%s: challenged with %q", what, got)
		}
	}
	if n := tried(d); n != 2 {
		t.Errorf("%d passwords were tried, of two that count", n)
	}
	r.wants("a route without passwords", "/other", 401)
	if res := r.do("GET", "/other", nil); res.Header["Www-Authenticate"] != nil {
		t.Errorf("challenged on another route: %q", res.Header["Www-Authenticate"])
	}
	if res := r.do("GET", "/_auth/userinfo", nil); res.Header["Www-Authenticate"] != nil {
		t.Errorf("challenged on a page of ours: %q", res.Header["Www-Authenticate"])
	}
	r.wants("a browser's own session", "/api/x", 200, page, basic("alice", alicePassword), signedIn(cookie))
	if h := r.up.last(t).Header; h.Get("X-Forwarded-User") != "bob" || h["Authorization"] != nil {
		t.Errorf("the upstream got %v", h)
	}
}

// The answers are those of every script: JSON, without a word of the source's.
func TestBasicAnswers(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	for _, who := range []string{"alice", "nobody"} {
		body := bodyOf(t, r.wants(who, "/api/x", 401, basic(who, "wrong"), header("Accept", "text/html")))
		if !strings.Contains(body, `"error":"wrong_password"`) || strings.Contains(body, who) {
			t.Errorf("%s: %s", who, body)
		}
	}
	d.Change(d.PersonDN("bob"), func(e *claimstest.Entry) { e.Account = claimstest.AccountDisabled })
	if body := bodyOf(t, r.wants("disabled", "/api/x", 403, basic("bob", bobPassword))); !strings.Contains(body, `"error":"denied"`) {
		t.Errorf("disabled: %s", body)
	}
	if body := bodyOf(t, r.wants("disabled, wrong password", "/api/x", 401, basic("bob", "wrong"))); !strings.Contains(body, `"error":"wrong_password"`) {
		t.Errorf("disabled, wrong password: %s", body)
	}
	if err := d.SetOffline(true); err != nil {
		t.Fatal(err)
	}
	res := r.wants("the directory is down", "/api/x", 503, basic("alice", alicePassword))
	if body := bodyOf(t, res); !strings.Contains(body, `"error":"source_unavailable"`) || res.Header.Get("Retry-After") == "" {
		t.Errorf("down: %s, %v", body, res.Header)
	}
	if logs := r.logs.String(); strings.Contains(logs, bobPassword) || strings.Contains(logs, alicePassword) {
		t.Error("a password is in the log")
	}
}

// Credentials are believed for session.refresh, and then asked about by a bind:
// a password that was changed ends the session.
func TestBasicIsCheckedAgain(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	r.wants("first", "/api/x", 200, basic("alice", alicePassword))
	d.Change(d.PersonDN("alice"), func(e *claimstest.Entry) { e.Password = "another password" })
	d.Forget()
	r.clock.advance(5*time.Minute - time.Second)
	r.wants("remembered", "/api/x", 200, basic("alice", alicePassword))
	if n := tried(d); n != 0 {
		t.Errorf("%d passwords were tried before it was time", n)
	}
	r.clock.advance(2 * time.Second)
	r.wants("after the refresh", "/api/x", 401, basic("alice", alicePassword))
	r.wants("and from then on", "/api/x", 401, basic("alice", alicePassword))
	r.wants("the new one", "/api/x", 200, basic("alice", "another password"))
	// The person's groups are those of the check.
	d.Put(d.Group("dev")) // nobody is in it any more: alice has no memberOf
	r.clock.advance(5*time.Minute + time.Second)
	d.Forget()
	r.wants("another refresh", "/api/x", 200, basic("alice", "another password"))
	if h := r.up.last(t).Header; tried(d) != 1 || h.Get("X-Forwarded-Groups") != "" {
		t.Errorf("%d passwords tried, groups %q", tried(d), h.Get("X-Forwarded-Groups"))
	}
	equal(t, "stored", groupsOf(t, r, "alice"), nil)
	if ins := events(t, r, groups.EventSignIn); len(ins) != 2 {
		t.Errorf("%d sign-ins, one for each password", len(ins))
	}
}

// LD-14: disabled accounts are refused at the next check, and their sessions
// and grants end.
func TestBasicOfADisabledAccount(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	r.wants("before", "/api/x", 200, basic("alice", alicePassword))
	equal(t, "before", groupsOf(t, r, "alice"), []string{"dev"})
	for _, state := range []claimstest.Account{claimstest.AccountDisabled, claimstest.AccountExpired, claimstest.AccountPasswordExpired, claimstest.AccountMustChange} {
		d.Change(d.PersonDN("alice"), func(e *claimstest.Entry) { e.Account = state })
		r.clock.advance(6 * time.Minute)
		r.wants(string(state), "/api/x", 403, basic("alice", alicePassword))
		d.Change(d.PersonDN("alice"), func(e *claimstest.Entry) { e.Account = claimstest.AccountOpen })
		r.wants("open again", "/api/x", 200, basic("alice", alicePassword))
		if h := r.up.last(t).Header; h.Get("X-Forwarded-Groups") != "dev" {
			t.Errorf("after %s: groups %q", state, h.Get("X-Forwarded-Groups"))
		}
	}
	d.Change(d.PersonDN("alice"), func(e *claimstest.Entry) { e.Account = claimstest.AccountDisabled })
	r.clock.advance(6 * time.Minute)
	r.wants("disabled", "/api/x", 403, basic("alice", alicePassword))
	equal(t, "of a disabled person", groupsOf(t, r, "alice"), nil)
}

// What ends sessions reaches the very next request, and the directory has its
// say about it.
func TestBasicSessionsEnd(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	id := func() groups.UserID {
		u, err := r.store.UserByName(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		return u.ID
	}
	subject := d.Subject(d.PersonDN("alice"))
	for what, end := range map[string]func() error{
		"signed out everywhere": func() error {
			_, err := r.dir.EndLogins(t.Context(), groups.LoginFilter{User: id()}, "admin", "signed out everywhere by an administrator", "")
			return err
		},
		"deleted": func() error { return r.dir.DeleteUser(t.Context(), id(), "admin") },
		"gone":    func() error { return r.dir.Gone(t.Context(), "corp", subject, "") },
	} {
		r.wants(what+": before", "/api/x", 200, basic("alice", alicePassword))
		d.Forget()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		r.wants(what+": the password is still right", "/api/x", 200, basic("alice", alicePassword))
		if n := tried(d); n != 1 {
			t.Errorf("%s: %d passwords tried", what, n)
		}
		if h := r.up.last(t).Header; h.Get("X-Forwarded-Groups") != "dev" {
			t.Errorf("%s: groups %q", what, h.Get("X-Forwarded-Groups"))
		}
		entry, _ := d.Entry(d.PersonDN("alice"))
		d.Remove(d.PersonDN("alice"))
		if err := end(); err != nil {
			t.Fatal(err)
		}
		r.wants(what+": and taken out of the directory", "/api/x", 401, basic("alice", alicePassword))
		d.Put(entry)
		r.clock.advance(2 * time.Minute) // of the attempts
	}
	// Idle and absolute bounds are those of all sessions; a program's password
	// opens a new one.
	r.wants("before idling", "/api/x", 200, basic("alice", alicePassword))
	before := len(events(t, r, groups.EventSignIn))
	r.clock.advance(2 * time.Hour)
	r.wants("after idling", "/api/x", 200, basic("alice", alicePassword))
	if n := len(events(t, r, groups.EventSignIn)); n != before+1 {
		t.Errorf("%d sign-ins after idling", n-before)
	}
}

// A directory that is down ends no session, and lets nobody new in.
func TestBasicOutlivesTheDirectory(t *testing.T) {
	t.Parallel()
	r, d := corp(t)
	r.wants("before", "/api/x", 200, basic("alice", alicePassword))
	if err := d.SetOffline(true); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(6 * time.Minute)
	r.wants("who is signed in", "/api/dev/x", 200, basic("alice", alicePassword))
	r.wants("who is signed in, with a wrong password", "/api/x", 503, basic("alice", "wrong"))
	r.wants("somebody new", "/api/x", 503, basic("bob", bobPassword))
	r.clock.advance(20 * time.Second)
	r.wants("left alone for a while", "/api/dev/x", 200, basic("alice", alicePassword))
	d.Change(d.PersonDN("alice"), func(e *claimstest.Entry) { e.Password = "another password" })
	if err := d.SetOffline(false); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(31 * time.Second)
	r.wants("asked again", "/api/x", 401, basic("alice", alicePassword))
	r.wants("control", "/api/x", 200, basic("alice", "another password"))
}
