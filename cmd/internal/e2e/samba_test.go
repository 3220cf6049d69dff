package e2e

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
	servers "github.com/groupgate/groupgate/deploy/testenv"
)

// guid is an entry's objectGUID as text ([MS-DTYP] section 2.3.4.3).
func guid(t *testing.T, s *servers.Server, dn string) string {
	t.Helper()
	values := s.Values(t, dn, "objectGUID")
	if len(values) != 1 || len(values[0]) != 16 {
		t.Fatalf("objectGUID of %s: %q", dn, values)
	}
	b := []byte(values[0])
	for _, part := range [][]byte{b[0:4], b[4:6], b[6:8]} {
		slices.Reverse(part)
	}
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// LD-15: however somebody writes the name, it is one person.
func TestSambaSpellings(t *testing.T) {
	t.Parallel()
	s := servers.SambaAD(t)
	alice := s.AddPerson(t, "alice", alicesPassword)
	// A principal name need not begin with the account's.
	s.Set(t, alice, "userPrincipalName", "a.example@"+s.Domain)
	g, up := behind(t, corp(s, ""), byCN)
	for _, user := range []string{"alice", `EXAMPLE\alice`, `example\Alice`, "alice@ad.example.com", "A.Example@AD.example.com", "ALICE", " alice "} {
		b := newBrowser(t)
		if h := entered(t, g, b, user, alicesPassword); h.Get("X-Forwarded-User") != "alice" {
			t.Errorf("%q: the upstream got %v", user, h)
		}
	}
	for _, user := range []string{`EVIL\alice`, "alice@evil.example"} {
		stillOut(t, g, up, newBrowser(t), user, alicesPassword, http.StatusUnauthorized)
	}
	people := everybody(t, g)
	got := people["alice"].Identities
	if len(people) != 1 || len(got) != 1 || got[0].Source != "corp" || got[0].Subject != guid(t, s, alice) {
		t.Errorf("people %+v; wanted the subject %s", people, guid(t, s, alice))
	}
	holdsNone(t, g, alicesPassword, s.ServicePassword)
}

// LD-08, LD-09: groups by the in-chain rule, in a circle, and the primary one,
// which no memberOf names. LD-07: the domain's referrals are not followed and do
// no harm.
func TestSambaGroups(t *testing.T) {
	t.Parallel()
	s := servers.SambaAD(t)
	gina := s.AddPerson(t, "gina", alicesPassword)
	dev := s.AddGroup(t, "nest-dev", gina)
	all := s.AddGroup(t, "nest-all", dev)
	s.AddMember(t, dev, s.AddGroup(t, "nest-top", all))
	s.AddGroup(t, "nest-others", s.AdminDN)

	// The control: there are referrals.
	cmd := exec.Command("ldapsearch", "-x", "-LLL", "-H", s.URLS, "-D", s.ServiceDN, "-w", s.ServicePassword, "-b", s.BaseDN, "(sAMAccountName=gina)", "1.1")
	cmd.Env = append(os.Environ(), "LDAPTLS_CACERT="+s.CAFile)
	out, err := cmd.CombinedOutput()
	if !strings.Contains(string(out), "://ad.example.com/CN=Configuration") {
		t.Errorf("control: no referrals: %v %s", err, out)
	}

	for _, c := range []struct{ more, want string }{
		{", nested_groups: true", "Domain Users,Users,nest-all,nest-dev,nest-top"}, {"", "nest-dev"},
	} {
		for _, at := range []string{corp(s, c.more), corpAt(s, s.URL, ", starttls: true"+c.more)} {
			g, _ := behind(t, at, byCN)
			if got := entered(t, g, newBrowser(t), "gina", alicesPassword).Get("X-Forwarded-Groups"); got != c.want {
				t.Errorf("groups %q, want %q", got, c.want)
			}
			if got := everybody(t, g)["gina"].groups(); got != c.want {
				t.Errorf("stored %q, want %q", got, c.want)
			}
			if c.more == "" || !strings.Contains(at, "ldaps:") {
				continue
			}
			out, status := g.command(t, "explain", "--source", "corp", "--person", `EXAMPLE\gina`)
			for _, words := range [][]string{
				{"searched", "(sAMAccountName=gina)", "1.2.840.113556.1.4.1941"}, {"entry", gina}, {"subject", guid(t, s, gina)},
				{`"CN=Domain Users,CN=Users,`, "primary\n"}, {"CN=Users,CN=Builtin,", "nested through CN=Domain Users,"},
				{`"` + dev, "direct\n"}, {`"` + all, "nested through " + dev + "\n"}, {"nest-top", "nested through " + dev + " > " + all + "\n"},
			} {
				if !holdsInOrder(out, words...) || status != 0 {
					t.Errorf("explain: exit %d, no %q in\n%s", status, words, out)
				}
			}
			if out, status := g.command(t, "check", "--online"); status != 0 || !holdsInOrder(out, s.URLS, "Active Directory (", "EXAMPLE", "in-chain rule") {
				t.Errorf("check: exit %d\n%s", status, out)
			}
		}
	}
}

// LD-14: what is wrong with an account, at the login and at the next refresh.
func TestSambaAccounts(t *testing.T) {
	t.Parallel()
	s := servers.SambaAD(t)
	staff := s.AddGroup(t, "accounts-staff")
	g, up := behind(t, corp(s, ""), byCN+"session: {refresh: 1s}\n")
	cases := []struct {
		name   string
		spoil  func(tb testing.TB, dn string)
		status int    // of the login
		kept   string // groups
	}{
		{"disabled", s.Disable, http.StatusForbidden, ""}, {"expired", s.Expire, http.StatusForbidden, ""},
		{"locked", s.Lock, http.StatusUnauthorized, "accounts-staff"}, {"mustchange", s.MustChange, http.StatusForbidden, "accounts-staff"},
		{"gone", s.Delete, http.StatusUnauthorized, ""}, {"fine", nil, 0, "accounts-staff"},
	}
	browsers := map[string]*claimstest.Browser{}
	for _, c := range cases { // all at once, so that one refresh is waited for
		dn, b := s.AddPerson(t, "was-"+c.name, alicesPassword), newBrowser(t)
		s.AddMember(t, staff, dn)
		if got := entered(t, g, b, "was-"+c.name, alicesPassword).Get("X-Forwarded-Groups"); got != "accounts-staff" {
			t.Fatalf("%s: groups %q", c.name, got)
		}
		browsers[c.name] = b
	}
	for _, c := range cases {
		if c.spoil != nil {
			c.spoil(t, s.PersonDN("was-"+c.name))
		}
	}
	for _, c := range cases {
		user, dn := "was-"+c.name, s.PersonDN("was-"+c.name)
		if c.spoil != nil {
			ends(t, g, browsers[c.name])
			stillOut(t, g, up, newBrowser(t), user, alicesPassword, c.status)
		} else {
			follows(t, g, browsers[c.name], c.kept)
		}
		if got := everybody(t, g)[user].groups(); got != c.kept {
			t.Errorf("%s: groups %q are kept, want %q", c.name, got, c.kept)
		}
		// Who does not know the password learns nothing of the account.
		stillOut(t, g, up, newBrowser(t), user, "not the right one", http.StatusUnauthorized)
		if c.name == "gone" {
			continue
		}
		s.Enable(t, dn)
		if got := entered(t, g, newBrowser(t), user, alicesPassword).Get("X-Forwarded-Groups"); got != "accounts-staff" {
			t.Errorf("%s: groups %q when all is well again", c.name, got)
		}
	}
	holdsNone(t, g, alicesPassword, s.ServicePassword)
}

// Another name is another name of the same person, another place in the tree
// nothing at all.
func TestSambaRenames(t *testing.T) {
	t.Parallel()
	s := servers.SambaAD(t)
	dana := s.AddPerson(t, "dana", alicesPassword)
	s.AddGroup(t, "renames", dana)
	g, up := behind(t, corp(s, ""), byCN+"session: {refresh: 1s}\n")
	b := newBrowser(t)
	entered(t, g, b, "dana", alicesPassword)
	before := everybody(t, g)["dana"]
	follow := func(what, name string) {
		t.Helper()
		g.eventually(what, func() bool {
			page := get(t, b, g.url()+"/")
			if len(page.Hops) != 1 {
				t.Fatalf("%s: the session is gone: %+v", what, page.Hops)
			}
			h := received(t, page)
			if got := h.Get("X-Forwarded-Groups"); got != "renames" {
				t.Fatalf("%s: groups %q", what, got)
			}
			return h.Get("X-Forwarded-User") == name && g.logged(`"kind":"user_renamed"`, name) == (name != "dana")
		})
	}
	s.Apply(t, "dn: "+dana+"\nchangetype: modrdn\nnewrdn: CN=Dana Example\ndeleteoldrdn: 1\nnewsuperior: OU=groups,"+s.BaseDN+"\n")
	moved := "CN=Dana Example,OU=groups," + s.BaseDN
	s.Set(t, moved, "displayName", "Dana of another place")
	g.eventually("read at the new place", func() bool {
		return received(t, get(t, b, g.url()+"/")).Get("X-Forwarded-Preferred-Username") == "Dana of another place"
	})
	follow("moved", "dana")
	s.Set(t, moved, "sAMAccountName", "danielle")
	s.Set(t, moved, "userPrincipalName", "danielle@"+s.Domain)
	follow("renamed", "danielle")
	entered(t, g, newBrowser(t), "danielle", alicesPassword)
	stillOut(t, g, up, newBrowser(t), "dana", alicesPassword, http.StatusUnauthorized)
	people := everybody(t, g)
	if after := people["danielle"]; len(people) != 1 || after.ID != before.ID || after.groups() != "renames" || after.Identities[0] != before.Identities[0] {
		t.Errorf("before %+v, now %+v", before, people)
	}
}

// The same person at the directory and at a provider: one user with the groups
// of both where the sources are linked, else the second is refused.
func TestSambaBesideOIDC(t *testing.T) {
	t.Parallel()
	s := servers.SambaAD(t)
	s.AddGroup(t, "linked", s.AddPerson(t, "erin", alicesPassword))
	for _, linked := range []bool{true, false} {
		t.Run(fmt.Sprintf("linked=%v", linked), func(t *testing.T) {
			t.Parallel()
			op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{person("erin", "admins")}})
			rest := byCN + "  - {claim: groups, any: true}\n"
			if linked {
				rest += "identity: {link: [op, corp]}\n"
			}
			g, up := behind(t, oidc("op", op.URL, opSecret)+corp(s, ""), rest)
			page, err := newBrowser(t).Login(g.url()+"/_auth/start?rd=/&source=op", "erin")
			must(t, err)
			if got := received(t, page).Get("X-Forwarded-Groups"); got != "admins" {
				t.Errorf("at the provider: groups %q", got)
			}
			before, b := up.requests.Load(), newBrowser(t)
			page, err = b.Submit(get(t, b, g.url()+"/_auth/start?rd=/&source=corp"), map[string]string{"username": "erin", "password": alicesPassword})
			must(t, err)
			people := everybody(t, g)
			if len(people) != 1 {
				t.Errorf("people %+v", people)
			}
			if linked {
				if got := received(t, page).Get("X-Forwarded-Groups"); got != "admins,linked" || people["erin"].groups() != "admins,linked" || len(people["erin"].Identities) != 2 {
					t.Errorf("groups %q of %+v", got, people)
				}
				return
			}
			id := requestID.FindStringSubmatch(page.Body)
			if page.Status != http.StatusForbidden || !strings.Contains(page.Body, "belongs to another account here") || id == nil || cookie(b, g) != "" || up.requests.Load() != before {
				t.Fatalf("%d, %d requests\n%s", page.Status, up.requests.Load()-before, page.Body)
			}
			g.eventually("noted", func() bool { return g.logged(`"kind":"refused"`, `"source":"corp"`, "erin", id[1]) })
			if people["erin"].groups() != "admins" || len(people["erin"].Identities) != 1 {
				t.Errorf("people %+v", people)
			}
		})
	}
}
