package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	servers "github.com/groupgate/groupgate/deploy/testenv"
)

var ofOneForm = regexp.MustCompile(`name="token" value="[^"]*"|<code[^>]*>[^<]*</code>`)

// People sign in whichever way the directory is reached, with the groups that
// its overlay keeps. LD-02: names with a comma in them. LD-06: a certificate of
// nobody known is refused. LD-04, LD-13: all wrong passwords look alike.
func TestOpenLDAPSignsPeopleIn(t *testing.T) {
	t.Parallel()
	s := servers.OpenLDAP(t, `dn: cn=Smith\, Bob,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
cn: Smith, Bob
sn: Smith
uid: bob
userPassword: `+alicesPassword+"\n", servers.OpenLDAPOptions{})
	alice, bob := s.AddPerson(t, "alice", alicesPassword), `cn=Smith\2C Bob,ou=people,`+s.BaseDN
	s.AddPerson(t, "carol", alicesPassword)
	s.AddGroup(t, "engineering", alice, bob)
	s.Apply(t, "dn: cn=Smith\\, Bob,ou=groups,"+s.BaseDN+"\nobjectClass: groupOfNames\ncn: Smith, Bob\nmember: "+alice+"\n")
	rules := `
rules:
  - {claim: memberOf, dn: 'CN=engineering, OU=Groups, DC=Example, DC=com', group: engineering}
  - {claim: memberOf, dn: 'cn=Smith\2C Bob,ou=groups,dc=example,dc=com', group: as-hex}
  - {claim: memberOf, dn: 'CN=Smith\, Bob,OU=groups,DC=example,DC=com', group: as-sign}
  - {claim: memberOf, dn: 'CN=Smith,CN=Bob,OU=groups,DC=example,DC=com', group: another}
`
	for name, source := range map[string]string{
		"ldaps": corp(s, ""), "StartTLS": corpAt(s, s.URL, ", starttls: true"), "in the clear on loopback": corpAt(s, s.URL, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, up := behind(t, source, rules)
			h := entered(t, g, newBrowser(t), "alice", alicesPassword)
			if h.Get("X-Forwarded-User") != "alice" || h.Get("X-Forwarded-Email") != "alice@example.com" || h.Get("X-Forwarded-Groups") != "as-hex,as-sign,engineering" {
				t.Errorf("the upstream got %v", h)
			}
			if got := everybody(t, g)["alice"].groups(); got != "as-hex,as-sign,engineering" {
				t.Errorf("stored %q", got)
			}
			if name != "ldaps" {
				return
			}
			for user, want := range map[string]string{"bob": "engineering", "carol": ""} {
				if h := entered(t, g, newBrowser(t), user, alicesPassword); h.Get("X-Forwarded-User") != user || h.Get("X-Forwarded-Groups") != want {
					t.Errorf("%s: the upstream got %v", user, h)
				}
			}
			looks := map[string]string{}
			for _, user := range []string{"alice", "nobody-has-it"} {
				page := stillOut(t, g, up, newBrowser(t), user, "not the right one", http.StatusUnauthorized)
				looks[user] = strings.ReplaceAll(ofOneForm.ReplaceAllString(page.Body, ""), `value="`+user+`"`, "")
			}
			// LD-01: a filter in place of a name finds nobody, with the right password too.
			for _, user := range []string{"*", "ali*", "carol)(uid=carol", `\63arol`, alice} {
				stillOut(t, g, up, newBrowser(t), user, alicesPassword, http.StatusUnauthorized)
			}
			if looks["alice"] != looks["nobody-has-it"] || looks["alice"] == "" {
				t.Errorf("the page tells who has an account:\n%s\n%s", looks["alice"], looks["nobody-has-it"])
			}
			if g.logged("nobody-has-it") {
				t.Error("the log holds a name that nobody has")
			}
			holdsNone(t, g, alicesPassword, s.ServicePassword, "not the right one")
		})
	}
	t.Run("an authority that nobody knows", func(t *testing.T) {
		t.Parallel()
		other := claimstest.StartDirectory(t, claimstest.DirectoryOptions{})
		lies := *s
		lies.CAFile = other.CAFile
		for _, source := range []string{corp(&lies, ""), corpAt(&lies, s.URL, ", starttls: true")} {
			g, up := behind(t, source, rules)
			stillOut(t, g, up, newBrowser(t), "alice", alicesPassword, http.StatusServiceUnavailable)
			holdsNone(t, g, alicesPassword, s.ServicePassword)
		}
	})
}

// A person in 2,000 groups: how long the login takes, and that all arrive.
func TestOpenLDAPManyGroups(t *testing.T) {
	t.Parallel()
	s := servers.OpenLDAP(t, "", servers.OpenLDAPOptions{})
	many := s.AddPerson(t, "many", alicesPassword)
	var ldif strings.Builder
	var want []string
	for i := range 2000 {
		name := fmt.Sprintf("team-%04d", i)
		want = append(want, name)
		fmt.Fprintf(&ldif, "dn: cn=%s,ou=groups,%s\nobjectClass: groupOfNames\ncn: %s\nmember: %s\n\n", name, s.BaseDN, name, many)
	}
	began := time.Now()
	s.Apply(t, ldif.String())
	t.Logf("2,000 groups made in %s", time.Since(began).Round(time.Millisecond))
	for _, more := range []string{"", ", nested_groups: true"} {
		g, _ := behind(t, corp(s, more), byCN+"headers: {max_bytes: 65536}\n")
		b := newBrowser(t)
		form := get(t, b, g.url()+"/")
		began = time.Now()
		page, err := b.Submit(form, map[string]string{"username": "many", "password": alicesPassword})
		must(t, err)
		took := time.Since(began)
		t.Logf("login with 2,000 groups%s: %s", more, took.Round(time.Millisecond))
		if got := received(t, page).Get("X-Forwarded-Groups"); got != strings.Join(want, ",") {
			t.Errorf("groups %.100q, of %d bytes", got, len(got))
		}
		if took > 10*time.Second {
			t.Errorf("the login took %s", took)
		}
	}
}

// LD-08, LD-09: nested ten deep and in a circle, where the server calls the
// in-chain rule a success and finds nothing; and groups that only a search finds.
func TestOpenLDAPNestedGroups(t *testing.T) {
	t.Parallel()
	s := servers.OpenLDAP(t, "", servers.OpenLDAPOptions{})
	top := s.AddPerson(t, "alice", alicesPassword)
	var want []string
	first := s.GroupDN("level-01")
	for i := range 10 {
		name := fmt.Sprintf("level-%02d", i+1)
		want = append(want, name)
		top = s.AddGroup(t, name, top)
	}
	s.AddMember(t, first, top)
	s.AddGroup(t, "others", s.AddPerson(t, "bob", alicesPassword))
	s.Apply(t, "dn: cn=posix,ou=groups,"+s.BaseDN+"\nobjectClass: posixGroup\ncn: posix\ngidNumber: 7\nmemberUid: alice\n")
	for name, c := range map[string]struct{ more, rules, want string }{
		"nested":                 {", nested_groups: true", byCN, strings.Join(want, ",")},
		"direct ones alone":      {"", byCN, "level-01"},
		"a search by name":       {`, group_search: {filter: "(&(objectClass=posixGroup)(memberUid={uid}))", claim: posix, value: cn}`, "\nrules: [{claim: posix, any: true}]\n", "posix"},
		"a search by DN, nested": {`, nested_groups: true, group_search: {filter: "(member={dn})"}`, byCN, strings.Join(want, ",")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := behind(t, corp(s, c.more), c.rules)
			if got := entered(t, g, newBrowser(t), "alice", alicesPassword).Get("X-Forwarded-Groups"); got != c.want {
				t.Errorf("groups %q, want %q", got, c.want)
			}
		})
	}
}

// What an administrator of the directory does reaches a session without the
// person's password. LD-14: refused at login and at refresh.
func TestOpenLDAPRefresh(t *testing.T) {
	t.Parallel()
	s := servers.OpenLDAP(t, "", servers.OpenLDAPOptions{})
	var dns []string
	for _, name := range []string{"alice", "bob", "carol", "dora", "erik"} {
		dns = append(dns, s.AddPerson(t, name, alicesPassword))
	}
	staff := s.AddGroup(t, "staff", dns...)
	s.AddGroup(t, "payroll", dns[0])
	g, up := behind(t, corp(s, ""), byCN+"session: {refresh: 1s}\n")
	t.Run("people", func(t *testing.T) {
		t.Run("a group is taken away and given back", func(t *testing.T) {
			t.Parallel()
			g, b := g.in(t), newBrowser(t)
			if got := entered(t, g, b, "alice", alicesPassword).Get("X-Forwarded-Groups"); got != "payroll,staff" {
				t.Errorf("groups %q", got)
			}
			s.SetPassword(t, dns[0], "changed meanwhile")
			s.RemoveMember(t, staff, dns[0])
			follows(t, g, b, "payroll")
			s.Delete(t, s.GroupDN("payroll")) // nothing is left of memberOf
			follows(t, g, b, "")
			s.AddMember(t, staff, dns[0])
			follows(t, g, b, "staff")
		})
		for i, c := range []struct {
			name   string
			spoil  func(t *testing.T, dn string)
			status int
			kept   string // groups
		}{
			{"locked", func(t *testing.T, dn string) { s.Lock(t, dn) }, http.StatusUnauthorized, "staff"},
			{"expired", func(t *testing.T, dn string) { s.Expire(t, dn) }, http.StatusForbidden, ""},
			{"gone", func(t *testing.T, dn string) { s.Delete(t, dn) }, http.StatusUnauthorized, ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				g, b := g.in(t), newBrowser(t)
				name, dn := []string{"bob", "carol", "dora"}[i], dns[i+1]
				if got := entered(t, g, b, name, alicesPassword).Get("X-Forwarded-Groups"); got != "staff" {
					t.Errorf("groups %q", got)
				}
				c.spoil(t, dn)
				ends(t, g, b)
				if got := everybody(t, g)[name].groups(); got != c.kept {
					t.Errorf("groups %q are kept, want %q", got, c.kept)
				}
				if page := enter(t, g, newBrowser(t), name, alicesPassword); page.Status != c.status {
					t.Errorf("a login answers %d, want %d", page.Status, c.status)
				}
				if c.name != "gone" {
					s.Enable(t, dn)
					if got := entered(t, g, b, name, alicesPassword).Get("X-Forwarded-Groups"); got != "staff" {
						t.Errorf("groups %q when all is well again", got)
					}
				}
			})
		}
	})
	// The control: somebody whom all that leaves alone.
	b := newBrowser(t)
	entered(t, g, b, "erik", alicesPassword)
	follows(t, g, b, "staff")
	stillOut(t, g, up, newBrowser(t), "dora", alicesPassword, http.StatusUnauthorized)
	holdsNone(t, g, alicesPassword, s.ServicePassword)
}

// standsStill reports whether every thread of a process has been stopped.
func standsStill(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	must(t, err)
	for _, thread := range threads {
		raw, err := os.ReadFile(thread)
		if _, state, found := strings.Cut(string(raw), ") "); err != nil || !found || !strings.HasPrefix(state, "T ") {
			return false
		}
	}
	return len(threads) > 0
}

// LD-10: a directory that is not there, or hangs, is nobody's wrong password and
// nobody's sign-out; when it is back so are logins. LD-03: an empty password is
// refused without it. The first of the servers is never there.
func TestOpenLDAPComesAndGoes(t *testing.T) {
	t.Parallel()
	s := servers.OpenLDAP(t, "", servers.OpenLDAPOptions{})
	alice := s.AddPerson(t, "alice", alicesPassword)
	staff := s.AddGroup(t, "staff", alice, s.AdminDN)
	g, up := behind(t, corpAt(s, "ldaps://"+freeAddress(t)+" "+s.URLS, ""), byCN+"session: {refresh: 1s}\n")
	b := newBrowser(t)
	entered(t, g, b, "alice", alicesPassword)
	kept := cookie(b, g)
	alarms := func() int { return strings.Count(g.log.all(), "a server of the directory cannot be used") }
	for _, how := range []string{"stopped", "hangs"} {
		if how == "stopped" {
			s.Stop()
		} else {
			must(t, syscall.Kill(s.PID(), syscall.SIGSTOP))
			g.eventually("stopped in all its threads", func() bool { return standsStill(t, s.PID()) })
		}
		began := time.Now()
		page := stillOut(t, g, up, newBrowser(t), "alice", alicesPassword, http.StatusServiceUnavailable)
		if page.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", how)
		}
		t.Logf("a login when it %s was answered after %s", how, time.Since(began).Round(time.Millisecond))
		for _, empty := range []string{"", "   "} {
			stillOut(t, g, up, newBrowser(t), "alice", empty, http.StatusUnauthorized)
		}
		if how == "stopped" {
			before := alarms()
			g.eventually("asked again", func() bool { // the session is due for it
				if a := ask(t, g, kept); a.status != http.StatusOK || !strings.Contains(a.body, `"staff"`) {
					t.Fatalf("the session: %d %s", a.status, a.body)
				}
				return alarms() > before
			})
			s.Start(t)
		} else {
			if a := ask(t, g, kept); a.status != http.StatusOK {
				t.Errorf("%s: the session: %d", how, a.status)
			}
			must(t, syscall.Kill(s.PID(), syscall.SIGCONT))
		}
		back := newBrowser(t)
		entered(t, g, back, "alice", alicesPassword)
		s.RemoveMember(t, staff, alice)
		follows(t, g, back, "")
		s.AddMember(t, staff, alice)
		if a := ask(t, g, kept); a.status != http.StatusOK {
			t.Errorf("%s: the old session: %d", how, a.status)
		}
	}
	g.eventually("named", func() bool {
		return g.logged(`"level":"warn"`, "a server of the directory cannot be used", `"source":"corp"`, s.URLS)
	})
	holdsNone(t, g, alicesPassword, s.ServicePassword)
}

// The second server takes over from the first while people are signed in, and
// hands back to it.
func TestOpenLDAPFailsOver(t *testing.T) {
	t.Parallel()
	var both [2]*servers.Server
	var authorities []byte
	for i, group := range []string{"first", "second"} {
		both[i] = servers.OpenLDAP(t, "", servers.OpenLDAPOptions{})
		both[i].AddGroup(t, group, both[i].AddPerson(t, "alice", alicesPassword))
		pem, err := os.ReadFile(both[i].CAFile)
		must(t, err)
		authorities = append(authorities, pem...)
	}
	all := *both[0]
	all.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(all.CAFile, authorities, 0o600))
	// They do not know of each other, so their entryUUIDs differ.
	g, _ := behind(t, corpAt(&all, both[0].URLS+" "+both[1].URLS, ", subject: uid"), byCN+"session: {refresh: 1s}\n")
	b := newBrowser(t)
	if got := entered(t, g, b, "alice", alicesPassword).Get("X-Forwarded-Groups"); got != "first" {
		t.Errorf("groups %q", got)
	}
	both[0].Stop()
	follows(t, g, b, "second")
	both[0].Start(t)
	both[1].Stop() // the first one would have its rest otherwise
	entered(t, g, newBrowser(t), "alice", alicesPassword)
	follows(t, g, b, "first")
	if got := everybody(t, g)["alice"].groups(); got != "first" {
		t.Errorf("groups %q", got)
	}
}

// LD-09, LD-10: an answer that the server cuts short is unknown: nobody gets
// what is in it, and nobody loses anything.
func TestOpenLDAPSizeLimit(t *testing.T) {
	t.Parallel()
	s := servers.OpenLDAP(t, "", servers.OpenLDAPOptions{NoMemberOf: true, SizeLimit: 3})
	alice := s.AddPerson(t, "alice", alicesPassword)
	s.AddGroup(t, "g1", alice)
	s.AddGroup(t, "g2", alice)
	g, _ := behind(t, corp(s, `, group_search: {filter: "(member={dn})"}`), byCN+"session: {refresh: 1s}\n")
	b := newBrowser(t)
	if got := entered(t, g, b, "alice", alicesPassword).Get("X-Forwarded-Groups"); got != "g1,g2" {
		t.Fatalf("groups %q", got)
	}
	for _, name := range []string{"g3", "g4", "g5"} {
		s.AddGroup(t, name, alice)
	}
	s.Set(t, s.GroupDN("g1"), "member", s.AdminDN) // four are left of her
	g.eventually("unknown", func() bool {
		if a := ask(t, g, cookie(b, g)); a.status != http.StatusOK {
			t.Fatalf("%+v", a)
		}
		return g.logged(`"kind":"sync"`, `"claim_unknown":"memberOf"`)
	})
	if got := entered(t, g, newBrowser(t), "alice", alicesPassword).Get("X-Forwarded-Groups"); !holdsInOrder(got, "g1", "g2") {
		t.Errorf("groups %q: something was taken away", got)
	}
	// Whole again: now it counts.
	for _, name := range []string{"g4", "g5"} {
		s.Delete(t, s.GroupDN(name))
	}
	follows(t, g, b, "g2,g3")
}

// LD-11: the service account's password is another one: logins answer 503, the
// log says what to do, and nobody's session or membership suffers.
func TestOpenLDAPServicePasswordChanged(t *testing.T) {
	t.Parallel()
	s := servers.OpenLDAP(t, "", servers.OpenLDAPOptions{})
	s.AddGroup(t, "staff", s.AddPerson(t, "alice", alicesPassword))
	g, up := behind(t, corp(s, ""), byCN+"session: {refresh: 1s}\n")
	b := newBrowser(t)
	entered(t, g, b, "alice", alicesPassword)
	if out, status := g.command(t, "check", "--online"); status != 0 || !strings.Contains(out, "source corp") {
		t.Errorf("control: %d %s", status, out)
	}
	s.SetPassword(t, s.ServiceDN, "rotated by somebody")
	s.Stop() // connections that are bound already would live on
	s.Start(t)
	stillOut(t, g, up, newBrowser(t), "alice", alicesPassword, http.StatusServiceUnavailable)
	g.eventually("an alarm", func() bool {
		return g.logged(`"level":"error"`, "refuses the service account", "bind_password", `"source":"corp"`)
	})
	out, status := g.command(t, "check", "--online")
	if status != 1 || !strings.Contains(out, "failed") || strings.Contains(out, s.ServicePassword) {
		t.Errorf("check --online: %d %s", status, out)
	}
	due := time.Now().Add(1500 * time.Millisecond)
	for time.Now().Before(due) {
		if a := ask(t, g, cookie(b, g)); a.status != http.StatusOK || !strings.Contains(a.body, `"staff"`) {
			t.Fatalf("the session: %+v", a)
		}
	}
	if got := everybody(t, g)["alice"].groups(); got != "staff" {
		t.Errorf("groups %q are kept", got)
	}
	s.SetPassword(t, s.ServiceDN, s.ServicePassword)
	if got := entered(t, g, newBrowser(t), "alice", alicesPassword).Get("X-Forwarded-Groups"); got != "staff" {
		t.Errorf("groups %q when all is well again", got)
	}
	holdsNone(t, g, alicesPassword, s.ServicePassword)
}

// The commands that ask a directory, without anybody's password.
func TestOpenLDAPCommands(t *testing.T) {
	t.Parallel()
	s := servers.OpenLDAP(t, "", servers.OpenLDAPOptions{})
	alice := s.AddPerson(t, "alice", alicesPassword)
	all := s.AddGroup(t, "all", s.AddGroup(t, "dev", alice))
	g, _ := behind(t, corp(s, ", nested_groups: true"), byCN)
	for _, c := range []struct {
		args  []string
		exit  int
		words []string
	}{
		{[]string{"check", "--online"}, 0, []string{"source corp", "ok:", s.URLS, "TLS 1.3", "LDAPv3", s.ServiceDN, s.BaseDN, "nested groups by a walk"}},
		{[]string{"explain", "--source", "corp", "--person", "alice"}, 0, []string{"searched", "(uid=alice)", "nested groups, level 1", "entry", alice, "subject", "may sign in",
			all, "nested through cn=dev", "direct", "claim memberOf: complete", "hit", "groups", "all", "X-Forwarded-Groups: all,dev"}},
		{[]string{"explain", "--source", "corp", "--person", "nobody"}, 1, []string{"searched", "(uid=nobody)", "nobody", "no entry has this user name"}},
	} {
		out, status := g.command(t, c.args...)
		if status != c.exit || !holdsInOrder(strings.ToLower(out), lowerAll(c.words)...) {
			t.Errorf("%q: exit %d, wanted %q in it:\n%s", c.args, status, c.words, out)
		}
		if strings.Contains(out, s.ServicePassword) {
			t.Errorf("%q shows the password", c.args)
		}
	}
	// LD-17: the API says the same, to administrators.
	var tested struct {
		OK    bool
		Found struct {
			Entry  string
			Groups []struct {
				Value, How string
				Through    []string
			}
		}
	}
	status := g.api("POST", "/sources/corp:test", map[string]string{"person": "alice"}, &tested)
	if got := fmt.Sprint(tested.Found.Groups); status != http.StatusOK || !tested.OK || tested.Found.Entry != alice || !holdsInOrder(strings.ToLower(got), "cn=all", "nested [cn=dev", "cn=dev", "direct") {
		t.Errorf("the API: %d %+v", status, tested)
	}
	resp, err := http.Post("http://"+g.admin+"/api/v1/sources/corp:test", "application/json", strings.NewReader(`{"person":"alice"}`))
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusUnauthorized || strings.Contains(string(body), "uid=") {
		t.Errorf("without a token: %d %s", resp.StatusCode, body)
	}
	if people := everybody(t, g); len(people) != 0 {
		t.Errorf("looking at somebody signs in: %v", people)
	}
}

func lowerAll(words []string) (all []string) {
	for _, w := range words {
		all = append(all, strings.ToLower(w))
	}
	return all
}

// Scripts send name and password where a route takes them.
func TestOpenLDAPBasic(t *testing.T) {
	t.Parallel()
	s := servers.OpenLDAP(t, "", servers.OpenLDAPOptions{})
	alice := s.AddPerson(t, "alice", alicesPassword)
	staff := s.AddGroup(t, "staff", alice)
	g, up := behind(t, corp(s, ""), byCN+"session: {refresh: 1s}\nroutes: [{path: /api/, basic: corp}, {path: /open/, access: public}]\n")
	curl := func(path, user, password, mode string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, g.url()+path, nil)
		must(t, err)
		req.SetBasicAuth(user, password)
		req.Header.Set("User-Agent", "curl/8")
		if mode != "" {
			req.Header.Set("Sec-Fetch-Mode", mode)
		}
		resp, err := http.DefaultTransport.RoundTrip(req) // it follows nothing
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp, string(body)
	}
	resp, body := curl("/api/x", "alice", alicesPassword, "")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"X-Forwarded-User":["alice"]`) || !strings.Contains(body, `"X-Forwarded-Groups":["staff"]`) || strings.Contains(body, "Authorization") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	before := up.requests.Load()
	for name, c := range map[string][4]string{
		"a wrong password":  {"/api/x", "alice", "not it", ""},
		"nobody":            {"/api/x", "nobody", "not it", ""},
		"an empty password": {"/api/x", "alice", "", ""}, // LD-03
		"a browser":         {"/api/x", "alice", alicesPassword, "cors"},
		"another route":     {"/x", "alice", alicesPassword, ""},
	} {
		resp, _ := curl(c[0], c[1], c[2], c[3])
		asks := strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic ")
		if want := name != "a browser" && name != "another route"; resp.StatusCode != http.StatusUnauthorized || asks != want {
			t.Errorf("%s: %d, asks for a password: %v", name, resp.StatusCode, asks)
		}
	}
	if n := up.requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	if _, body := curl("/open/x", "alice", "for the application", ""); !strings.Contains(body, `"Authorization":["Basic `) {
		t.Errorf("elsewhere it does not pass: %s", body)
	}
	s.Delete(t, staff)
	s.AddGroup(t, "later", alice)
	g.eventually("other groups", func() bool {
		resp, body := curl("/api/x", "alice", alicesPassword, "")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		return strings.Contains(body, `"X-Forwarded-Groups":["later"]`)
	})
	s.SetPassword(t, alice, "another one")
	g.eventually("out", func() bool { // the directory is asked again within session.refresh
		resp, _ := curl("/api/x", "alice", alicesPassword, "")
		return resp.StatusCode == http.StatusUnauthorized
	})
	holdsNone(t, g, alicesPassword, s.ServicePassword)
}

// LD-13: who has no account waits as long as who has one.
func TestOpenLDAPTiming(t *testing.T) {
	t.Parallel()
	const people = 100
	s := servers.OpenLDAP(t, "", servers.OpenLDAPOptions{})
	var ldif strings.Builder
	for i := range people {
		fmt.Fprintf(&ldif, "dn: uid=known%03d,ou=people,%s\nobjectClass: inetOrgPerson\nuid: known%03d\ncn: x\nsn: x\nuserPassword: %s\n\n", i, s.BaseDN, i, alicesPassword)
	}
	s.Apply(t, ldif.String())
	g, _ := behind(t, corp(s, ""), "\ntrusted_proxies: [127.0.0.0/8]\n")
	form := opened(t, g)
	// What is slow on a busy machine is slow by chance: a difference that is
	// there each time is not.
	for round := range 3 {
		var times [2][]time.Duration
		for i := range people {
			for kind, user := range []string{fmt.Sprintf("known%03d", i), fmt.Sprintf("unknown%03d", i)} {
				status, took, err := form.send(fmt.Sprintf("10.%d.%d.1", 2*round+kind, i), user, "not the right one")
				if err != nil || status != http.StatusUnauthorized {
					t.Fatalf("%s: %d %v", user, status, err)
				}
				times[kind] = append(times[kind], took)
			}
		}
		at := func(kind int, q float64) time.Duration { return quantile(times[kind], q) }
		t.Logf("a wrong password: p50 %s, p95 %s; nobody: p50 %s, p95 %s", at(0, 0.5), at(0, 0.95), at(1, 0.5), at(1, 0.95))
		ratio := float64(at(1, 0.5)) / float64(at(0, 0.5))
		if (at(0, 0.95)-at(1, 0.95)).Abs() < 20*time.Millisecond && ratio > 0.75 && ratio < 1.33 {
			return
		}
	}
	t.Error("the time tells who has an account")
}
