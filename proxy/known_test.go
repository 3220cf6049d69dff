package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// storm fills one form again and again, and answers how often that was refused
// and how often the source was asked. It fails when anybody gets in.
func (r *rig) storm(k *keeper, b *claimstest.Browser, n int, who func(i int) (user, password string)) (refused, asked int) {
	r.t.Helper()
	form := r.form(b, "source=corp&rd=/x")
	k.calls()
	for i := range n {
		user, password := who(i)
		switch page := r.submit(b, form, user, password); page.Status {
		case http.StatusTooManyRequests:
			refused++
		case http.StatusUnauthorized:
		default:
			r.t.Fatalf("attempt %d as %q: %d", i, user, page.Status)
		}
	}
	return refused, k.calls()
}

// LD-12: of a thousand passwords for one person ten reach the directory,
// however the name is spelled and from wherever they come. Others are not
// disturbed.
func TestAThousandPasswordsForOnePerson(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	spellings := []string{"alice", "Alice", "ALICE", `CORP\alice`, "alice@corp", " alice ", "ａｌｉｃｅ", `corp\Alice`, "aliCE@CORP", "al\u00adice"}
	b := r.browser()
	refused, asked := r.storm(k, b, 1000, func(i int) (string, string) {
		from(b, fmt.Sprintf("192.0.%d.1", i%250)) // a network of its own each
		return spellings[i%len(spellings)], fmt.Sprint("guess ", i)
	})
	if asked != 10 || refused != 990 {
		t.Errorf("%d reached the directory, %d were refused", asked, refused)
	}
	must(t, "somebody else meanwhile", r.try(from(r.browser(), "192.0.7.1"), "bob", passwordOf("bob")), 200)
	page := r.try(from(r.browser(), "198.51.100.1"), "alice", passwordOf("alice"))
	must(t, "the person from a browser that nobody knows", page, 429)
	f := page.Forms()[0]
	if f.Fields["username"] != "alice" || !strings.Contains(page.Body, `role="alert"`) || !strings.Contains(page.Body, "\u00a0s") {
		t.Errorf("the form does not say how long: %s", page.Body)
	}
	r.clock.advance(retryAfter(t, page))
	must(t, "the person when the time has passed", r.try(from(r.browser(), "198.51.100.1"), "alice", passwordOf("alice")), 200)
}

// LD-12: several names of one account are one bucket, which only the source
// can tell.
func TestSeveralNamesOfOneAccount(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	refused, asked := r.storm(k, from(r.browser(), "203.0.113.1"), 12, func(i int) (string, string) { return []string{"alice", "a.example"}[i%2], "guess" })
	if asked != 12 { // for whose account it is; the last two passwords it did not try
		t.Errorf("the source was asked %d times", asked)
	}
	if refused != 2 {
		t.Errorf("%d were refused", refused)
	}
	must(t, "the right password under the second name", r.try(from(r.browser(), "198.51.100.1"), "a.example", passwordOf("alice")), 429)
	must(t, "somebody else", r.try(from(r.browser(), "198.51.100.1"), "bob", passwordOf("bob")), 200)
}

// LD-12: of one password for a thousand people a hundred reach the directory
// from one network. Other networks are not disturbed, nor who is known.
func TestOnePasswordForAThousandPeople(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	near := from(r.browser(), "203.0.113.200")
	must(t, "bob signs in in that network", r.try(near, "bob", passwordOf("bob")), 200)
	r.clock.advance(2 * time.Minute)
	b := r.browser()
	refused, asked := r.storm(k, b, 1000, func(i int) (string, string) {
		from(b, fmt.Sprintf("203.0.113.%d", i%250))
		return fmt.Sprint("user", i), "Summer2026!"
	})
	if asked != 100 || refused != 900 {
		t.Errorf("%d reached the directory, %d were refused", asked, refused)
	}
	must(t, "a stranger in that network", r.try(from(r.browser(), "203.0.113.3"), "alice", passwordOf("alice")), 429)
	must(t, "alice from another network", r.try(from(r.browser(), "203.0.114.3"), "alice", passwordOf("alice")), 200)
	must(t, "bob, who is known", r.try(near, "bob", passwordOf("bob")), 200)

	six := r.browser()
	refused, asked = r.storm(k, six, 150, func(i int) (string, string) {
		from(six, fmt.Sprintf("2001:db8:aa:bb%02x::%x", i%256, i)) // one /56
		return fmt.Sprint("six", i), "Summer2026!"
	})
	if asked != 100 || refused != 50 {
		t.Errorf("of IPv6 %d reached the directory, %d were refused", asked, refused)
	}
	must(t, "the next /56", r.try(from(r.browser(), "2001:db8:aa:bc00::1"), "carol", passwordOf("carol")), 200)
}

// LD-12: an address that a client makes up counts for nothing: behind a
// trusted proxy the last address that such a proxy saw, else the connection's.
func TestMadeUpAddressesAreOneNetwork(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		trusted bool
		said    string
		asked   int
	}{
		"nobody is trusted":                    {false, "192.0.%d.1", 100},
		"left of what the proxy says":          {true, "192.0.%d.1, 203.0.113.9", 100},
		"beyond a second proxy":                {true, "192.0.%d.1, 203.0.113.9, 127.0.0.2", 100},
		"words":                                {true, "192.0.%d.1, unknown", 100},
		"with a port":                          {true, "192.0.%d.1, 203.0.113.9:4711", 100},
		"what the proxy says itself is a fact": {true, "192.0.%d.1", 110},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			k := newKeeper("corp")
			r := newRig(t, withForm(k))
			if !c.trusted {
				r.settings.TrustedProxies = nil
				r.configure()
			}
			b := r.browser()
			_, asked := r.storm(k, b, 110, func(i int) (string, string) {
				from(b, fmt.Sprintf(c.said, i))
				return fmt.Sprint("user", i), "guess"
			})
			if asked != c.asked {
				t.Errorf("%d reached the directory, want %d", asked, c.asked)
			}
		})
	}
}

// LD-12: nobody can lock out a person who signed in with this browser before,
// or is signed in with it now; such a browser may not try without end either.
func TestKnownBrowsersAreNotLockedOut(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	known := from(r.browser(), "203.0.113.50")
	must(t, "alice", r.try(known, "alice", passwordOf("alice")), 200)
	if _, err := known.Get(r.server.URL + "/_auth/sign_out"); err != nil {
		t.Fatal(err)
	}
	// Signed in, but her cookie of the time before is lost.
	only := from(r.browser(), "203.0.113.51")
	must(t, "alice elsewhere", r.try(only, "alice", passwordOf("alice")), 200)
	session := ""
	for _, c := range only.Cookies(r.server.URL + "/") {
		if c.Name == "__Host-groupgate" {
			session = c.Name + "=" + c.Value
		}
	}
	r.clock.advance(2 * time.Minute)
	b := from(r.browser(), "203.0.113.66")
	if _, asked := r.storm(k, b, 30, func(int) (string, string) { return "alice", "guess" }); asked != 10 {
		t.Fatalf("%d reached the directory", asked)
	}
	must(t, "an unknown browser", r.try(from(r.browser(), "198.51.100.9"), "alice", passwordOf("alice")), 429)
	must(t, "the known one mistypes", r.try(known, `CORP\Alice`, "not it"), 401)
	must(t, "the known one", r.try(known, "alice@corp", passwordOf("alice")), 200)
	form := r.form(b, "source=corp")
	both := session
	for _, c := range b.Cookies(r.server.URL + "/") {
		both += "; " + c.Name + "=" + c.Value
	}
	values := map[string][]string{"username": {"alice"}, "password": {"not it"}, "token": {form.Forms()[0].Fields["token"]}}
	if res := r.script("/_auth/login/corp", values, edits(signedIn(both), header("X-Forwarded-For", "203.0.113.66"))); res.StatusCode != 401 {
		t.Errorf("a live session without the cookie: %d", res.StatusCode)
	}
	// Its own bucket has an end.
	thief := from(r.browser(), "203.0.113.67")
	must(t, "bob", r.try(thief, "bob", passwordOf("bob")), 200)
	r.clock.advance(2 * time.Minute)
	if _, asked := r.storm(k, thief, 30, func(int) (string, string) { return "bob", "guess" }); asked != 10 {
		t.Errorf("from a known browser %d reached the directory", asked)
	}
	must(t, "bob elsewhere meanwhile", r.try(from(r.browser(), "198.51.100.10"), "bob", passwordOf("bob")), 200)
}

// LD-12: being known for one account is worth nothing for another, though
// their names be alike, nor at another source, nor when the cookie is old.
func TestKnownForOneAccountOnly(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	k.accounts["alice@partner"] = &account{subject: "corp-stranger", user: "alice.partner", password: "mine"}
	r := newRig(t, withForm(k))
	b := from(r.browser(), "203.0.113.1")
	must(t, "the namesake", r.try(b, "alice@partner", "mine"), 200)
	r.clock.advance(2 * time.Minute)
	_, asked := r.storm(k, b, 9, func(int) (string, string) { return "alice", "guess" })
	if asked != 9 {
		t.Fatalf("%d reached the directory", asked)
	}
	must(t, "the tenth, from elsewhere", r.try(from(r.browser(), "198.51.100.1"), "alice", "guess"), 401)
	must(t, "the eleventh", r.try(from(r.browser(), "198.51.100.2"), "alice", passwordOf("alice")), 429)

	r.clock.advance(91 * 24 * time.Hour)
	if _, asked := r.storm(k, from(r.browser(), "198.51.100.3"), 30, func(int) (string, string) { return "alice@partner", "guess" }); asked != 10 {
		t.Fatalf("%d reached the directory", asked)
	}
	must(t, "with the cookie of three months ago", r.try(b, "alice@partner", "mine"), 429)
}

// The cookie by which a browser is known says nothing, is not the upstream's,
// and a session it is not.
func TestKnownCookie(t *testing.T) {
	t.Parallel()
	r := newRig(t, withForm(newKeeper("corp")))
	b := r.browser()
	must(t, "alice", r.try(b, "alice", passwordOf("alice")), 200)
	value := ""
	for _, c := range b.Cookies(r.server.URL + "/") {
		if c.Name == "__Host-groupgate-known" {
			value = c.Value
		}
	}
	if value == "" || len(value) > 400 || strings.Contains(value, "alice") {
		t.Fatalf("the cookie is %q", value)
	}
	if res := r.do("GET", "/x", signedIn("__Host-groupgate-known="+value)); res.StatusCode != 401 {
		t.Errorf("it lets in: %d", res.StatusCode)
	}
	r.do("GET", "/public/", signedIn("__Host-groupgate-known="+value+"; theirs=1"))
	if got := r.up.last(t).Header.Get("Cookie"); strings.TrimSpace(got) != "theirs=1" {
		t.Errorf("the upstream got %q", got)
	}
	// Changed, or sealed by somebody else, it is nothing.
	for _, bad := range []string{value[:len(value)-1], "x" + value, "", strings.Repeat("A", 5000)} {
		if res := r.do("GET", "/_auth/sign_in", edits(page, signedIn("__Host-groupgate-known="+bad))); res.StatusCode != 200 {
			t.Errorf("%.20q: %d", bad, res.StatusCode)
		}
	}
}

// LD-12: what was tried is not forgotten by a reload.
func TestThrottleOutlivesReloads(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	b := r.browser()
	r.storm(k, b, 11, func(int) (string, string) { return "alice", "guess" })
	r.configure()
	must(t, "after a reload", r.try(r.browser(), "alice", passwordOf("alice")), 429)
}

// LD-12, LD-15: the same with a real LDAP source: of a thousand passwords for
// one person, in every spelling that the directory takes, ten are tried by a
// bind, and somebody else signs in meanwhile.
func TestStormOnADirectory(t *testing.T) {
	t.Parallel()
	d := claimstest.StartDirectory(t, claimstest.DirectoryOptions{AD: true})
	d.Put(d.Person("alice", passwordOf("alice")), d.Person("bob", passwordOf("bob")))
	src, err := claims.NewLDAP(claims.LDAPOptions{Name: "corp", Config: claims.LDAPConfig{
		URL: claims.URLs{d.URLS}, BindDN: d.ServiceDN, BindPassword: d.ServicePassword, BaseDN: d.BaseDN,
		UserFilter: claims.DefaultLDAP.UserFilter, CAFile: d.CAFile,
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, withForm(newKeeper("corp")), func(r *rig) { r.settings.Sources[0].Source = src })
	tried := func(dn string) (n int) {
		for _, op := range d.Binds() {
			if strings.EqualFold(op.DN, dn) {
				n++
			}
		}
		return n
	}
	spellings := []string{"alice", "Alice", `EXAMPLE\alice`, `example\ALICE`, "alice@example.com", "ALICE@EXAMPLE.COM", " alice ", "ａｌｉｃｅ"}
	b := r.browser()
	form, codes := r.form(b, "source=corp&rd=/x"), map[int]int{}
	for i := range 1000 {
		from(b, fmt.Sprintf("192.0.%d.1", i%250))
		codes[r.submit(b, form, spellings[i%len(spellings)], fmt.Sprint("guess ", i)).Status]++
	}
	if n := tried(d.PersonDN("alice")); codes[401] != 10 || codes[429] != 990 || n < 8 || n > 10 {
		t.Errorf("answers %v, %d binds as the person", codes, n)
	}
	began := time.Now()
	must(t, "somebody else", r.try(from(r.browser(), "192.0.7.1"), "bob", passwordOf("bob")), 200)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("somebody else's login took %v", took)
	}
	must(t, "the person", r.try(from(r.browser(), "198.51.100.1"), "alice", passwordOf("alice")), 429)
	r.clock.advance(2 * time.Minute)
	must(t, "the person later", r.try(from(r.browser(), "198.51.100.1"), "alice", passwordOf("alice")), 200)
}
