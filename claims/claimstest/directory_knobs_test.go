package claimstest_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/groupgate/groupgate/claims/claimstest"
)

type knobs = claimstest.DirectoryKnobs

func TestDirectoryLiesAboutStartTLS(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	for lie, words := range map[string]string{"refuse": "LDAP Result Code 52", "unknown": "LDAP Result Code 2", "close": "EOF"} {
		d.Lie(func(k *knobs) { k.StartTLS = lie })
		if err := dial(t, d, d.URL).StartTLS(trustingTLS(d)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", lie, err)
		}
	}
	// Success, but what comes then is no TLS: the client's hello is no LDAP.
	d.Lie(func(k *knobs) { k.StartTLS = "clear" })
	if err := dial(t, d, d.URL).StartTLS(trustingTLS(d)); err == nil {
		t.Error("TLS with somebody who speaks none")
	}
	d.Honest()
	if err := dial(t, d, d.URL).StartTLS(trustingTLS(d)); err != nil {
		t.Errorf("honest: %v", err)
	}
}

func TestDirectoryLiesAboutItsCertificate(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	try := func() error {
		c, err := ldap.DialURL(d.URLS, ldap.DialWithTLSConfig(trustingTLS(d)))
		if err == nil {
			c.Close()
		}
		return err
	}
	for lie, words := range map[string]string{"expired": "expired", "other-host": "cannot validate certificate for 127.0.0.1", "other-ca": "unknown authority"} {
		d.Lie(func(k *knobs) { k.Certificate = lie })
		if err := try(); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", lie, err)
		}
		if err := dial(t, d, d.URL).StartTLS(trustingTLS(d)); err == nil {
			t.Errorf("%s: StartTLS went well", lie)
		}
	}
	d.Lie(func(k *knobs) { *k = knobs{MaxTLS: tls.VersionTLS11} })
	if err := try(); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("an old TLS: %v", err)
	}
	d.Honest()
	if err := try(); err != nil {
		t.Errorf("honest: %v", err)
	}
}

func TestDirectoryHangs(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	everything := request(d.BaseDN, ldap.ScopeWholeSubtree, "(uid=alice)")
	for name, one := range map[string]struct {
		lie  func(k *knobs)
		bind bool // goes well
	}{
		"after accept": {func(k *knobs) { k.HangAccept = true }, false},
		"in a bind":    {func(k *knobs) { k.HangBind = true }, false},
		"in a search": {func(k *knobs) {
			k.HangSearch = func(q claimstest.SearchQuery) bool { return q.Filter == "(uid=alice)" }
		}, true},
		"slow": {func(k *knobs) { k.Delay = 200 * time.Millisecond }, false},
	} {
		c := dial(t, d, d.URL)
		c.SetTimeout(100 * time.Millisecond)
		d.Lie(one.lie)
		if err := c.Bind(d.ServiceDN, d.ServicePassword); (err == nil) != one.bind {
			t.Errorf("%s: bind %v", name, err)
		}
		if one.bind {
			mustSearch(t, c, request(d.BaseDN, ldap.ScopeWholeSubtree, "(uid=bob)"))
		}
		if _, err := c.Search(everything); err == nil {
			t.Errorf("%s: the search went well", name)
		}
		d.Honest()
	}
	mustSearch(t, asService(t, d), everything)

	// Over TLS nothing is said either.
	d.Lie(func(k *knobs) { k.HangAccept = true })
	done := make(chan error, 1)
	go func() {
		_, err := ldap.DialURL(d.URLS, ldap.DialWithTLSConfig(trustingTLS(d)))
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("a handshake with nobody: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	d.DropConnections()
	if err := <-done; err == nil {
		t.Error("a handshake with nobody")
	}
}

func TestDirectoryDropsConnections(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	c := asService(t, d)
	d.DropConnections()
	if _, err := c.Search(request(d.BaseDN, ldap.ScopeWholeSubtree, "(uid=alice)")); err == nil {
		t.Errorf("a dropped connection: %v", err)
	}
	asService(t, d)
	if err := d.SetOffline(true); err != nil {
		t.Fatal(err)
	}
	if _, err := ldap.DialURL(d.URL); err == nil {
		t.Error("it is offline, and answers")
	}
	if err := d.SetOffline(false); err != nil {
		t.Fatal(err)
	}
	asService(t, d)
	if _, ever := d.Connections(); ever != 3 {
		t.Errorf("%d connections", ever)
	}
	d.DropConnections()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		open, _ := d.Connections()
		if open == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are still open", open)
		}
	}
}

func TestDirectoryRefusesByName(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{AD: true})
	referral := "ldap://127.0.0.2:1/dc=example,dc=com"
	for code, r := range map[uint16]*claimstest.Result{
		49: claimstest.ADRefusal("775"), 51: {Code: 51}, 10: {Code: 10, Referrals: []string{referral}},
	} {
		d.Lie(func(k *knobs) {
			k.BindResult = func(dn string) *claimstest.Result {
				if dn == d.PersonDN("alice") {
					return r
				}
				return nil
			}
		})
		c := dial(t, d, d.URLS)
		err := c.Bind(d.PersonDN("alice"), "the password of alice")
		if codeOf(err) != code || code == 49 && !strings.Contains(err.Error(), "data 775") {
			t.Errorf("%d: %v", code, err)
		}
		if err := c.Bind(d.PersonDN("bob"), "the password of bob"); err != nil {
			t.Errorf("somebody else: %v", err)
		}
	}
}

func TestDirectoryEndsSearches(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	c := asService(t, d)
	groups := request(d.BaseDN, ldap.ScopeWholeSubtree, "(objectClass=groupOfNames)")
	for _, code := range []int{3, 4, 10, 11, 51, 53} {
		for entries, want := range map[int]int{0: 0, 1: 1, -1: 2} {
			d.Lie(func(k *knobs) {
				k.SearchResult = func(q claimstest.SearchQuery) *claimstest.Result {
					return &claimstest.Result{Code: code, Entries: entries, Referrals: []string{"ldap://127.0.0.2:1/"}}
				}
			})
			if answer, err := c.Search(groups); int(codeOf(err)) != code || len(answer.Entries) != want {
				t.Errorf("%d after %d: %v, %v", code, entries, answer, err)
			}
		}
	}
	d.Honest()
	limited := *groups
	limited.SizeLimit = 1
	if answer, err := c.Search(&limited); codeOf(err) != 4 || len(answer.Entries) != 1 {
		t.Errorf("one of two: %v", err)
	}
	limited.SizeLimit = 2
	mustSearch(t, c, &limited)
	d.Lie(func(k *knobs) { k.Continuations = []string{"ldap://127.0.0.2:1/dc=example,dc=com"} })
	answer, err := c.Search(groups)
	if err != nil || len(answer.Entries) != 2 || !slices.Equal(answer.Referrals, []string{"ldap://127.0.0.2:1/dc=example,dc=com"}) {
		t.Errorf("continuations: %v, %v", answer, err)
	}
}

func TestDirectoryRewrites(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	c := asService(t, d)
	d.Lie(func(k *knobs) {
		k.Rewrite = func(_ claimstest.SearchQuery, f []claimstest.Found) []claimstest.Found {
			return append(f, claimstest.Found{DN: "cn=evil,dc=example,dc=org", Attributes: []claimstest.FoundAttribute{{Name: "uid", Values: []string{"alice"}}}})
		}
		k.RootDSE = func(a map[string][]string) { a["vendorName"] = []string{"somebody"} }
	})
	if got := found(t, c, d, "(uid=alice)"); !slices.Equal(got, []string{d.PersonDN("alice"), "cn=evil,dc=example,dc=org"}) {
		t.Errorf("%q", got)
	}
	if root := mustSearch(t, c, request("", ldap.ScopeBaseObject, "(objectClass=*)", "vendorName")); root[0].GetAttributeValue("vendorName") != "somebody" {
		t.Errorf("root %v", root[0])
	}
}

// crowd is a group of that many, and its members.
func crowd(t *testing.T, opts claimstest.DirectoryOptions, n int) (d *claimstest.Directory, members []string) {
	t.Helper()
	d = claimstest.StartDirectory(t, opts)
	for i := range n {
		members = append(members, fmt.Sprintf("uid=%d,ou=people,%s", i, d.BaseDN))
		d.Put(claimstest.Entry{DN: members[i], Attributes: map[string][]string{"objectClass": {"person"}}})
	}
	d.Put(d.Group("crowd", members...))
	return d, members
}

func TestDirectoryPages(t *testing.T) {
	t.Parallel()
	d, members := crowd(t, claimstest.DirectoryOptions{AD: true}, 1100)
	c := asService(t, d)
	people := func() *ldap.SearchRequest {
		return request(d.BaseDN, ldap.ScopeWholeSubtree, "(objectClass=person)", "uid")
	}
	if answer, err := c.Search(people()); codeOf(err) != 4 || len(answer.Entries) != 1000 {
		t.Errorf("without pages: %v", err)
	}
	d.Forget()
	answer, err := c.SearchWithPaging(people(), 2000)
	if err != nil || len(answer.Entries) != len(members) || len(d.Searches()) != 2 {
		t.Errorf("%d entries in %d pages: %v", len(answer.Entries), len(d.Searches()), err)
	}
	if pages := d.Searches(); pages[0].PageSize != 2000 || pages[0].NextPage || !pages[1].NextPage {
		t.Errorf("noted %+v", pages)
	}
	d.Lie(func(k *knobs) { k.MaxPage = 300 })
	d.Forget()
	if answer, err := c.SearchWithPaging(people(), 2000); err != nil || len(answer.Entries) != len(members) || len(d.Searches()) != 4 {
		t.Errorf("small pages: %d, %v", len(d.Searches()), err)
	}
	d.Lie(func(k *knobs) { *k = knobs{PagesEndless: true} })
	paging := ldap.NewControlPaging(1000)
	for range 3 {
		one := people()
		one.Controls = []ldap.Control{paging}
		answer, err := c.Search(one)
		if err != nil || len(answer.Entries) != 1000 {
			t.Fatalf("a page: %v", err)
		}
		back, _ := ldap.FindControl(answer.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if back == nil || len(back.Cookie) == 0 {
			t.Fatal("the pages ended")
		}
		paging.SetCookie(back.Cookie)
	}
	// One that knows nothing of pages answers everything.
	whole, _ := crowd(t, claimstest.DirectoryOptions{NoPaging: true}, 1050)
	if answer, err := asService(t, whole).Search(people()); err != nil || len(answer.Entries) != 1050 {
		t.Errorf("no pages: %v", err)
	}
}

func TestDirectoryRanges(t *testing.T) {
	t.Parallel()
	d, members := crowd(t, claimstest.DirectoryOptions{AD: true}, 1700)
	c := asService(t, d)
	get := func(attribute string) (name string, values []string) {
		t.Helper()
		e := mustSearch(t, c, request(d.GroupDN("crowd"), ldap.ScopeBaseObject, "(objectClass=*)", attribute))[0]
		for _, a := range e.Attributes {
			if len(a.Values) > 0 || name == "" {
				name, values = a.Name, a.Values
			}
		}
		return name, values
	}
	whole := func(step int) (all []string, reads int) {
		t.Helper()
		name, values := get("member")
		for reads = 1; reads < 20; reads++ {
			all = append(all, values...)
			if name == "" || strings.HasSuffix(name, "-*") {
				return all, reads
			}
			name, values = get(fmt.Sprintf("member;range=%d-*", reads*step))
		}
		return all, reads
	}
	if name, values := get("member"); name != "member;range=0-1499" || len(values) != 1500 {
		t.Errorf("first %s with %d", name, len(values))
	}
	if name, values := get("member;range=10-19"); name != "member;range=10-19" || !slices.Equal(values, members[10:20]) {
		t.Errorf("a part: %s with %d", name, len(values))
	}
	if all, reads := whole(1500); reads != 2 || !slices.Equal(all, members) {
		t.Errorf("%d of %d in %d reads", len(all), len(members), reads)
	}
	d.Lie(func(k *knobs) { k.RangeStep = 500 })
	if all, reads := whole(500); reads != 4 || !slices.Equal(all, members) {
		t.Errorf("%d of %d in %d reads", len(all), len(members), reads)
	}
	d.Lie(func(k *knobs) { k.RangeLie = "endless" })
	if _, reads := whole(500); reads != 20 {
		t.Errorf("it ended after %d", reads)
	}
	d.Lie(func(k *knobs) { k.RangeLie = "back" })
	if name, values := get("member;range=500-*"); name != "member;range=0-499" || !slices.Equal(values, members[:500]) {
		t.Errorf("back: %s with %d", name, len(values))
	}
	d.Lie(func(k *knobs) { k.RangeLie = "hole" })
	if name, values := get("member;range=500-*"); name != "member;range=501-1000" || !slices.Equal(values, members[501:1001]) {
		t.Errorf("hole: %s with %d", name, len(values))
	}
	d.Lie(func(k *knobs) { k.RangeLie = "silent" })
	if name, values := get("member;range=500-*"); name != "" {
		t.Errorf("silent: %s with %d", name, len(values))
	}
}

func TestDirectorySendsEntriesForEver(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	c := asService(t, d)
	d.Lie(func(k *knobs) { k.EntriesEndless = true })
	c.SetTimeout(0) // it would end the search as a whole
	ctx, stop := context.WithCancel(t.Context())
	answers := c.SearchAsync(ctx, request(d.BaseDN, ldap.ScopeWholeSubtree, "(uid=alice)"), 0)
	for i := range 1000 {
		if !answers.Next() || answers.Entry() == nil {
			t.Fatalf("it ended after %d: %v", i, answers.Err())
		}
	}
	stop()
	c.Close()
}

// None of them gets a client in, or found, but for those that it reads laxly.
func TestDirectorySendsRubbish(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	for _, m := range claimstest.MalformedAnswers() {
		t.Run(m.Name, func(t *testing.T) {
			for _, lied := range []string{"bind", "search"} {
				d.Lie(func(k *knobs) {
					k.Raw = func(kind string, id int64) []byte {
						if kind == lied {
							return m.Bytes(kind, id)
						}
						return nil
					}
					k.CloseAfterRaw = true
				})
				c := dial(t, d, d.URL)
				c.SetTimeout(200 * time.Millisecond)
				err := c.Bind(d.ServiceDN, d.ServicePassword)
				if lied == "search" {
					if err != nil {
						t.Fatal(err)
					}
					_, err = c.Search(request(d.BaseDN, ldap.ScopeWholeSubtree, "(uid=alice)"))
				}
				if lax := m.Lax && lied == "bind"; lax != (err == nil) {
					t.Errorf("%s: %v", lied, err)
				}
			}
		})
	}
	d.Forget()
	d.Honest()
	asService(t, d)
	if len(d.Operations()) != 1 {
		t.Errorf("noted %+v", d.Operations())
	}
}

// Under load, and while it changes, it stays itself: for the race detector.
func TestDirectoryForManyAtOnce(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	failed := make(chan error, 8)
	for i := range cap(failed) {
		c := asService(t, d)
		go func() {
			var err error
			for range 20 {
				d.Put(d.Group(fmt.Sprintf("g%d", i), d.PersonDN("alice")))
				if _, e := c.Search(request(d.BaseDN, ldap.ScopeWholeSubtree, "(memberOf="+d.GroupDN("dev")+")", "memberOf")); e != nil {
					err = e
				}
			}
			failed <- err
		}()
	}
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	got := mustSearch(t, asService(t, d), request(d.PersonDN("alice"), ldap.ScopeBaseObject, "(objectClass=*)", "memberOf"))[0].GetAttributeValues("memberOf")
	if len(got) != 9 {
		t.Errorf("memberOf %q", got)
	}
}
