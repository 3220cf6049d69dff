package claimstest_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/groupgate/groupgate/claims/claimstest"
)

func trustingTLS(d *claimstest.Directory) *tls.Config {
	return &tls.Config{RootCAs: d.Roots(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
}

// dial connects until the test ends.
func dial(t *testing.T, d *claimstest.Directory, url string) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL(url, ldap.DialWithTLSConfig(trustingTLS(d)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetTimeout(5 * time.Second)
	return c
}

// asService is bound as the service account, over TLS.
func asService(t *testing.T, d *claimstest.Directory) *ldap.Conn {
	t.Helper()
	c := dial(t, d, d.URLS)
	if err := c.Bind(d.ServiceDN, d.ServicePassword); err != nil {
		t.Fatal(err)
	}
	return c
}

func request(base string, scope int, filter string, attributes ...string) *ldap.SearchRequest {
	return ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, 0, false, filter, attributes, nil)
}

func mustSearch(t *testing.T, c *ldap.Conn, r *ldap.SearchRequest) []*ldap.Entry {
	t.Helper()
	answer, err := c.Search(r)
	if err != nil {
		t.Fatalf("%s: %v", r.Filter, err)
	}
	return answer.Entries
}

// found are the names below the base that fit, in the order they came.
func found(t *testing.T, c *ldap.Conn, d *claimstest.Directory, filter string) (all []string) {
	t.Helper()
	for _, e := range mustSearch(t, c, request(d.BaseDN, ldap.ScopeWholeSubtree, filter, "1.1")) {
		all = append(all, e.DN)
	}
	return all
}

func codeOf(err error) uint16 {
	if e, is := err.(*ldap.Error); is { //nolint:errorlint // it is not wrapped here
		return e.ResultCode
	}
	return 0xffff
}

// team is a directory with alice in dev, dev in all, and bob in nothing.
func team(t *testing.T, opts claimstest.DirectoryOptions) *claimstest.Directory {
	t.Helper()
	d := claimstest.StartDirectory(t, opts)
	d.Put(d.Person("alice", "the password of alice"), d.Person("bob", "the password of bob"),
		d.Group("dev", d.PersonDN("alice")), d.Group("all", d.GroupDN("dev")))
	return d
}

func TestDirectoryBindsOverEveryTransport(t *testing.T) {
	t.Parallel()
	for _, ad := range []bool{true, false} {
		d := team(t, claimstest.DirectoryOptions{AD: ad})
		ca, err := os.ReadFile(d.CAFile)
		if pool := x509.NewCertPool(); err != nil || !pool.AppendCertsFromPEM(ca) || !pool.Equal(d.Roots()) {
			t.Errorf("the file of certificates: %v", err)
		}
		plain, secure, started := dial(t, d, d.URL), dial(t, d, d.URLS), dial(t, d, d.URL)
		if err := started.StartTLS(trustingTLS(d)); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*ldap.Conn{plain, secure, started} {
			if err := c.Bind(d.PersonDN("alice"), "the password of bob"); codeOf(err) != 49 {
				t.Errorf("wrong password: %v", err)
			}
			if err := c.Bind(d.PersonDN("carol"), "the password of bob"); codeOf(err) != 49 {
				t.Errorf("nobody: %v", err)
			}
			if err := c.Bind(strings.ToUpper(d.PersonDN("alice")), "the password of alice"); err != nil {
				t.Errorf("right password: %v", err)
			}
		}
		var overTLS []bool
		for _, o := range d.Binds() {
			if !strings.EqualFold(o.DN, d.PersonDN("alice")) && o.DN != d.PersonDN("carol") || o.Password == "" {
				t.Errorf("noted %+v", o)
			}
			overTLS = append(overTLS, o.TLS)
		}
		if want := []bool{false, false, false, true, true, true, true, true, true}; !slices.Equal(overTLS, want) {
			t.Errorf("over TLS: %v", overTLS)
		}
		if open, ever := d.Connections(); open != 3 || ever != 3 {
			t.Errorf("%d connections, %d ever", open, ever)
		}
	}
}

func TestDirectoryLetsInWithoutAPassword(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	c := dial(t, d, d.URLS)
	// What a careless program takes for a login (RFC 4513 5.1.2).
	if err := c.UnauthenticatedBind(d.PersonDN("alice")); err != nil {
		t.Errorf("without a password: %v", err)
	}
	everybody := request(d.BaseDN, ldap.ScopeWholeSubtree, "(objectClass=*)")
	if _, err := c.Search(everybody); codeOf(err) != 50 {
		t.Errorf("nobody may search: %v", err)
	}
	mustSearch(t, asService(t, d), everybody)
	open := team(t, claimstest.DirectoryOptions{Anonymous: true})
	mustSearch(t, dial(t, open, open.URLS), request(open.BaseDN, ldap.ScopeWholeSubtree, "(objectClass=*)"))
}

func TestDirectoryFilters(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{AD: true})
	d.Put(d.Person("Smith, Bob", "x"), claimstest.Entry{DN: d.GroupDN("odd"), Attributes: map[string][]string{
		"member": {`CN=Smith\2C Bob, cn=users,` + strings.ToUpper(d.BaseDN)}, "info": {"Ends * with (this)"}, "n": {"7"},
	}})
	c := asService(t, d)
	alice, bob := d.PersonDN("alice"), d.PersonDN("bob")
	odd, smith := d.GroupDN("odd"), d.PersonDN("Smith, Bob")
	for filter, want := range map[string][]string{
		"(sAMAccountName=alice)":                              {alice},
		"(SAMACCOUNTNAME= ALICE )":                            {alice},
		"(sAMAccountName=ａｌｉｃｅ)":                              {alice},
		"(sAMAccountName=alic)":                               nil,
		"(sAMAccountName=al*c*)":                              {alice},
		"(sAMAccountName=*l*c*)":                              {alice},
		"(sAMAccountName=*c*l*)":                              nil,
		"(sAMAccountName=*ob)":                                {bob, smith},
		"(|(sAMAccountName=alice)(sAMAccountName=bob))":       {alice, bob},
		"(&(sAMAccountName=alice)(sAMAccountName=bob))":       nil,
		"(&(objectClass=user)(!(memberOf=*)))":                {bob},
		"(&(objectClass=user)(!(sAMAccountName=bob)))":        {alice, smith},
		`(member=cn=Smith\5c, Bob,CN=Users,` + d.BaseDN + ")": {odd},
		"(memberOf=" + strings.ToUpper(odd) + ")":             {smith},
		`(info=ends \2a with*\28this\29)`:                     {odd},
		"(n>=7)":                                              {odd},
		"(n<=6)":                                              nil,
		"(userAccountControl:1.2.840.113556.1.4.803:=512)":    {alice, bob, smith},
		"(!(userAccountControl:9.9.9:=512))":                  nil,
		"(nothing=*)":                                         nil,
	} {
		if got := found(t, c, d, filter); !slices.Equal(got, want) {
			t.Errorf("%s: %q, wanted %q", filter, got, want)
		}
	}
	queries := d.Searches()
	if last := queries[len(queries)-1]; last.Scope != 2 || last.Base != d.BaseDN || last.Filter[0] != '(' || !slices.Equal(last.Attributes, []string{"1.1"}) {
		t.Errorf("noted %+v", last)
	}
	for _, q := range queries {
		if _, err := ldap.CompileFilter(q.Filter); err != nil {
			t.Errorf("noted as %q: %v", q.Filter, err)
		}
	}
}

func TestDirectoryScopes(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{})
	c := asService(t, d)
	for _, one := range []struct {
		base  string
		scope int
		want  []string
	}{
		{d.PersonDN("alice"), ldap.ScopeBaseObject, []string{d.PersonDN("alice")}},
		{"OU=People, " + d.BaseDN, ldap.ScopeSingleLevel, []string{d.PersonDN("alice"), d.PersonDN("bob")}},
		{"ou=people," + d.BaseDN, ldap.ScopeWholeSubtree, []string{"ou=people," + d.BaseDN, d.PersonDN("alice"), d.PersonDN("bob")}},
	} {
		var got []string
		for _, e := range mustSearch(t, c, request(one.base, one.scope, "(objectClass=*)")) {
			got = append(got, e.DN)
		}
		if !slices.Equal(got, one.want) {
			t.Errorf("%s, scope %d: %q", one.base, one.scope, got)
		}
	}
	if _, err := c.Search(request("ou=nowhere,"+d.BaseDN, ldap.ScopeBaseObject, "(objectClass=*)")); codeOf(err) != 32 {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := c.Search(request("no name", ldap.ScopeBaseObject, "(objectClass=*)")); codeOf(err) != 34 {
		t.Errorf("not a name: %v", err)
	}
}

func TestDirectoryAttributes(t *testing.T) {
	t.Parallel()
	plain, ad := team(t, claimstest.DirectoryOptions{}), team(t, claimstest.DirectoryOptions{AD: true})
	get := func(d *claimstest.Directory, attributes ...string) (names []string) {
		t.Helper()
		for _, a := range mustSearch(t, asService(t, d), request(d.PersonDN("alice"), ldap.ScopeBaseObject, "(objectClass=*)", attributes...))[0].Attributes {
			names = append(names, a.Name)
		}
		return names
	}
	if got := get(plain, "UID", "memberof"); !slices.Equal(got, []string{"memberOf", "uid"}) {
		t.Errorf("by name: %q", got)
	}
	if got := get(plain); slices.Contains(got, "memberOf") || slices.Contains(got, "entryUUID") || !slices.Contains(got, "mail") {
		t.Errorf("the usual ones: %q", got)
	}
	if got := get(plain, "*", "+"); !slices.Contains(got, "memberOf") || !slices.Contains(got, "entryUUID") || !slices.Contains(got, "mail") {
		t.Errorf("all: %q", got)
	}
	if got := get(plain, "1.1"); len(got) != 0 {
		t.Errorf("none: %q", got)
	}
	computed := "msDS-User-Account-Control-Computed"
	if got := get(ad); !slices.Contains(got, "memberOf") || !slices.Contains(got, "objectGUID") || slices.Contains(got, computed) {
		t.Errorf("Active Directory's usual ones: %q", got)
	}
	if got := get(ad, computed); !slices.Equal(got, []string{computed}) {
		t.Errorf("a computed one: %q", got)
	}
}

func TestDirectoryKeepsIdentity(t *testing.T) {
	t.Parallel()
	for _, ad := range []bool{true, false} {
		d := team(t, claimstest.DirectoryOptions{AD: ad})
		subject := d.Subject(d.PersonDN("alice"))
		if len(subject) != 36 || subject == d.Subject(d.PersonDN("bob")) {
			t.Fatalf("subject %q", subject)
		}
		d.Change(d.PersonDN("alice"), func(e *claimstest.Entry) { e.DN = d.PersonDN("alicia") })
		if got := d.Subject(d.PersonDN("alicia")); got != subject || d.Subject(d.PersonDN("alice")) != "" {
			t.Errorf("renamed: %q, was %q", got, subject)
		}
		d.Put(d.Person("alicia", "another password"))
		if got := d.Subject(d.PersonDN("alicia")); got != subject {
			t.Errorf("put again: %q, was %q", got, subject)
		}
		d.Remove(d.PersonDN("alicia"))
		d.Put(d.Person("alicia", "x"))
		if got := d.Subject(d.PersonDN("alicia")); got == subject {
			t.Error("somebody new is somebody old")
		}
	}
	// The text form of objectGUID, on an example.
	d := claimstest.StartDirectory(t, claimstest.DirectoryOptions{AD: true})
	e := d.Person("alice", "x")
	e.Attributes["objectGUID"] = []string{"\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff"}
	d.Put(e)
	if got := d.Subject(e.DN); got != "00112233-4455-6677-8899-aabbccddeeff" {
		t.Errorf("objectGUID as text: %s", got)
	}
}

func TestDirectoryPlaysActiveDirectory(t *testing.T) {
	t.Parallel()
	d := team(t, claimstest.DirectoryOptions{AD: true, BaseDN: "dc=corp,dc=example,dc=com", NetBIOS: "CORP"})
	c := dial(t, d, d.URLS)
	for _, name := range []string{d.PersonDN("alice"), "alice@corp.example.com", `corp\Alice`} {
		if err := c.Bind(name, "the password of alice"); err != nil {
			t.Errorf("bind as %s: %v", name, err)
		}
	}
	if err := c.Bind(`OTHER\alice`, "the password of alice"); codeOf(err) != 49 || !strings.Contains(err.Error(), "data 525") {
		t.Errorf("another domain: %v", err)
	}
	c = asService(t, d)
	alice := ldap.EscapeFilter(d.PersonDN("alice"))
	const rule = ":1.2.840.113556.1.4.1941:="
	if got := found(t, c, d, "(member"+rule+alice+")"); !slices.Equal(got, []string{d.GroupDN("dev"), d.GroupDN("all")}) {
		t.Errorf("in chain: %q", got)
	}
	if got := found(t, c, d, "(memberOf"+rule+d.GroupDN("all")+")"); !slices.Equal(got, []string{d.PersonDN("alice"), d.GroupDN("dev")}) {
		t.Errorf("in chain, down: %q", got)
	}
	d.Put(d.Group("dev", d.PersonDN("alice"), d.GroupDN("all")))
	if got := found(t, c, d, "(member"+rule+alice+")"); len(got) != 2 {
		t.Errorf("with a cycle: %q", got)
	}
	d.Lie(func(k *claimstest.DirectoryKnobs) { k.InChainEmpty = true })
	if got := found(t, c, d, "(member"+rule+alice+")"); got != nil {
		t.Errorf("the rule that finds nothing: %q", got)
	}
	root := mustSearch(t, c, request("", ldap.ScopeBaseObject, "(objectClass=*)"))[0]
	if !slices.Contains(root.GetAttributeValues("supportedCapabilities"), "1.2.840.113556.1.4.800") || root.GetAttributeValue("defaultNamingContext") != d.BaseDN {
		t.Errorf("root %v", root)
	}
	partitions := "CN=Partitions," + root.GetAttributeValue("configurationNamingContext")
	refs := mustSearch(t, c, request(partitions, ldap.ScopeSingleLevel, "(nCName="+d.BaseDN+")", "nETBIOSName", "dnsRoot"))
	if len(refs) != 1 || refs[0].GetAttributeValue("nETBIOSName") != "CORP" || refs[0].GetAttributeValue("dnsRoot") != "corp.example.com" {
		t.Errorf("partitions %v", refs)
	}
	if got := found(t, c, d, "(objectClass=crossRef)"); got != nil {
		t.Errorf("the configuration is a tree of its own: %q", got)
	}
	person := mustSearch(t, c, request(d.PersonDN("alice"), ldap.ScopeBaseObject, "(objectClass=*)", "objectSid", "primaryGroupID"))[0]
	sid := person.GetRawAttributeValue("objectSid")
	sid = binary.LittleEndian.AppendUint32(slices.Clone(sid[:len(sid)-4]), 513)
	if got := found(t, c, d, "(objectSid="+ldap.EscapeFilter(string(sid))+")"); len(got) != 1 || !strings.HasPrefix(got[0], "CN=Domain Users,") {
		t.Errorf("primary group %s: %q", person.GetAttributeValue("primaryGroupID"), got)
	}
	// A plain one does not know the rule, and says success.
	plain := team(t, claimstest.DirectoryOptions{})
	if got := found(t, asService(t, plain), plain, "(member"+rule+plain.PersonDN("alice")+")"); got != nil {
		t.Errorf("a plain one: %q", got)
	}
}

func TestDirectoryAccounts(t *testing.T) {
	t.Parallel()
	for state, code := range map[claimstest.Account]string{
		claimstest.AccountOpen: "", claimstest.AccountDisabled: "533", claimstest.AccountExpired: "701", claimstest.AccountLocked: "775",
		claimstest.AccountPasswordExpired: "532", claimstest.AccountMustChange: "773", claimstest.AccountHours: "530", claimstest.AccountWorkstation: "531",
	} {
		ad, plain := team(t, claimstest.DirectoryOptions{AD: true}), team(t, claimstest.DirectoryOptions{})
		for _, d := range []*claimstest.Directory{ad, plain} {
			if !d.Change(d.PersonDN("alice"), func(e *claimstest.Entry) { e.Account = state }) {
				t.Fatal("no alice")
			}
		}
		err := dial(t, ad, ad.URLS).Bind(ad.PersonDN("alice"), "the password of alice")
		if code == "" && err != nil || code != "" && (codeOf(err) != 49 || !strings.Contains(err.Error(), "data "+code+",")) {
			t.Errorf("%s: %v", state, err)
		}
		err = dial(t, plain, plain.URLS).Bind(plain.PersonDN("alice"), "the password of alice")
		if locked := state == claimstest.AccountLocked; locked != (codeOf(err) == 49) || !locked && err != nil {
			t.Errorf("%s, plain: %v", state, err)
		}
		told := func(d *claimstest.Directory) bool {
			e, _ := d.Entry(d.PersonDN("alice"))
			fresh, _ := d.Entry(d.PersonDN("bob"))
			for _, name := range []string{"userAccountControl", "accountExpires", "lockoutTime", "msDS-User-Account-Control-Computed", "nsAccountLock", "shadowExpire", "pwdAccountLockedTime"} {
				if !slices.Equal(e.Attributes[name], fresh.Attributes[name]) {
					return true
				}
			}
			return false
		}
		quiet := []claimstest.Account{claimstest.AccountOpen, claimstest.AccountHours, claimstest.AccountWorkstation}
		if got := told(ad); got == slices.Contains(quiet, state) {
			t.Errorf("%s: the entry tells: %v", state, got)
		}
		quiet = append(quiet, claimstest.AccountPasswordExpired, claimstest.AccountMustChange)
		if got := told(plain); got == slices.Contains(quiet, state) {
			t.Errorf("%s: the plain entry tells: %v", state, got)
		}
	}
}
