package testenv_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/groupgate/groupgate/deploy/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// connect opens a connection by ldaps and one by StartTLS, and binds both.
func connect(t *testing.T, s *testenv.Server, dn, password string) []*ldap.Conn {
	t.Helper()
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no certificates in the file")
	}
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: roots, ServerName: at.Hostname(), MinVersion: tls.VersionTLS12}
	secure, err := ldap.DialURL(s.URLS, ldap.DialWithTLSConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { secure.Close() })
	started, err := ldap.DialURL(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { started.Close() })
	if err := started.StartTLS(config); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*ldap.Conn{secure, started} {
		if err := c.Bind(dn, password); err != nil {
			t.Fatalf("bind as %s: %v", dn, err)
		}
	}
	return []*ldap.Conn{secure, started}
}

func names(t *testing.T, c *ldap.Conn, base, filter string) (all []string) {
	t.Helper()
	r, err := c.Search(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, filter, []string{"1.1"}, nil))
	if err != nil {
		t.Fatalf("%s: %v", filter, err)
	}
	for _, e := range r.Entries {
		all = append(all, strings.ToLower(e.DN))
	}
	slices.Sort(all)
	return all
}

func values(t *testing.T, c *ldap.Conn, dn, attribute string) []string {
	t.Helper()
	r, err := c.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{attribute}, nil))
	if err != nil || len(r.Entries) != 1 {
		t.Fatalf("%s: %v", dn, err)
	}
	return append([]string(nil), r.Entries[0].GetEqualFoldAttributeValues(attribute)...) // nil when there are none
}

// bindsAs says how a bind ends: empty, or the words of the server.
func bindsAs(t *testing.T, c *ldap.Conn, dn, password string) string {
	t.Helper()
	if err := c.Bind(dn, password); err != nil {
		return err.Error()
	}
	return ""
}

func lower(all ...string) []string {
	for i := range all {
		all[i] = strings.ToLower(all[i])
	}
	slices.Sort(all)
	return all
}

func TestOpenLDAP(t *testing.T) {
	t.Parallel()
	s := testenv.OpenLDAP(t, "dn: uid=carol,ou=people,dc=example,dc=com\nobjectClass: inetOrgPerson\nuid: carol\ncn: Carol\nsn: Example\nuserPassword: x\n", testenv.OpenLDAPOptions{})
	alice := s.AddPerson(t, "alice", "the password of alice")
	dev := s.AddGroup(t, "dev", alice, s.PersonDN("carol"))
	all := s.AddGroup(t, "all", dev)
	c := connect(t, s, s.ServiceDN, s.ServicePassword)[0]
	if got := lower(values(t, c, alice, "memberOf")...); !slices.Equal(got, lower(dev)) {
		t.Errorf("memberOf is %q", got)
	}
	if got := values(t, c, dev, "memberOf"); !slices.Equal(lower(got...), lower(all)) {
		t.Errorf("memberOf of the group is %q", got)
	}
	if got := names(t, c, s.BaseDN, "(uid=carol)"); len(got) != 1 {
		t.Errorf("carol of the LDIF: %q", got)
	}
	if got := names(t, c, s.BaseDN, "(member:1.2.840.113556.1.4.1941:="+alice+")"); got != nil {
		t.Errorf("it follows chains: %q", got)
	}
	s.RemoveMember(t, dev, alice)
	s.Delete(t, all)
	if got := append(values(t, c, alice, "memberOf"), values(t, c, dev, "memberOf")...); len(got) != 0 {
		t.Errorf("memberOf is still %q", got)
	}
	person := connect(t, s, alice, "the password of alice")[1]
	if got := values(t, person, alice, "uid"); !slices.Equal(got, []string{"alice"}) {
		t.Errorf("of herself she reads %q", got)
	}
	if _, err := person.Search(ldap.NewSearchRequest(s.PersonDN("carol"), ldap.ScopeBaseObject, 0, 0, 0, false, "(uid=carol)", nil, nil)); err == nil {
		t.Error("she reads of others")
	}
	if err := person.UnauthenticatedBind(""); err != nil {
		t.Fatal(err)
	}
	if _, err := person.Search(ldap.NewSearchRequest(s.BaseDN, ldap.ScopeWholeSubtree, 0, 0, 0, false, "(uid=carol)", nil, nil)); err == nil {
		t.Error("anybody may search")
	}
	if got := bindsAs(t, person, alice, "another password"); !strings.Contains(got, "Code 49") {
		t.Errorf("wrong password: %s", got)
	}
	s.Lock(t, alice)
	if got := bindsAs(t, person, alice, "the password of alice"); !strings.Contains(got, "Code 49") {
		t.Errorf("locked: %s", got)
	}
	s.Enable(t, alice)
	s.Expire(t, alice)
	s.SetPassword(t, alice, "a new password")
	if got := bindsAs(t, person, alice, "a new password"); got != "" || len(values(t, c, alice, "shadowExpire")) != 1 {
		t.Errorf("open again: %s", got)
	}
}

func TestOpenLDAPByItsOptions(t *testing.T) {
	t.Parallel()
	s := testenv.OpenLDAP(t, "", testenv.OpenLDAPOptions{NoMemberOf: true, SizeLimit: 2, MaxFailures: 2})
	alice := s.AddPerson(t, "alice", "the password of alice")
	dev := s.AddGroup(t, "dev", alice)
	c := connect(t, s, s.ServiceDN, s.ServicePassword)[0]
	if got := values(t, c, alice, "memberOf"); got != nil {
		t.Errorf("memberOf is %q", got)
	}
	if got := names(t, c, s.BaseDN, "(member="+alice+")"); !slices.Equal(got, lower(dev)) {
		t.Errorf("groups by member: %q", got)
	}
	_, err := c.Search(ldap.NewSearchRequest(s.BaseDN, ldap.ScopeWholeSubtree, 0, 0, 0, false, "(objectClass=*)", nil, nil))
	if !ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		t.Errorf("over the limit: %v", err)
	}
	person := connect(t, s, alice, "the password of alice")[0]
	for range 2 {
		_ = bindsAs(t, person, alice, "wrong")
	}
	if got := bindsAs(t, person, alice, "the password of alice"); got == "" {
		t.Error("two wrong passwords lock nobody out")
	}
}

func TestOpenLDAPComesBack(t *testing.T) {
	t.Parallel()
	s := testenv.OpenLDAP(t, "", testenv.OpenLDAPOptions{})
	alice := s.AddPerson(t, "alice", "the password of alice")
	s.Set(t, alice, "description", " a blank comes first", "plain")
	s.Stop()
	if s.CanBind(alice, "the password of alice") {
		t.Error("it runs")
	}
	s.Start(t)
	if !s.CanBind(alice, "the password of alice") {
		t.Error("it does not run")
	}
	got := s.Values(t, alice, "description")
	if slices.Sort(got); !slices.Equal(got, []string{" a blank comes first", "plain"}) {
		t.Errorf("values %q", got)
	}
}

func TestSambaAD(t *testing.T) {
	t.Parallel()
	s := testenv.SambaAD(t)
	if again := testenv.SambaAD(t); again != s {
		t.Error("a second domain")
	}
	alice := s.AddPerson(t, "alice", "pw of alice")
	dev := s.AddGroup(t, "dev", alice)
	all := s.AddGroup(t, "all", dev)
	s.AddMember(t, dev, all) // a cycle
	c := connect(t, s, s.ServiceDN, s.ServicePassword)[0]
	if got := lower(values(t, c, alice, "memberOf")...); !slices.Equal(got, lower(dev)) {
		t.Errorf("memberOf is %q", got)
	}
	if got := names(t, c, s.BaseDN, "(member:1.2.840.113556.1.4.1941:="+alice+")"); !slices.Equal(got, lower(dev, all)) {
		t.Errorf("in chain: %q", got)
	}
	if got := values(t, c, alice, "primaryGroupID"); !slices.Equal(got, []string{"513"}) {
		t.Errorf("primary group %q", got)
	}
	person := connect(t, s, alice, "pw of alice")[1]
	for _, name := range []string{`EXAMPLE\alice`, "alice@" + s.Domain, "alice@" + strings.ToUpper(s.Domain)} {
		if got := bindsAs(t, person, name, "pw of alice"); got != "" {
			t.Errorf("as %s: %s", name, got)
		}
	}
	refused := func(why, password, data string) {
		t.Helper()
		if got := bindsAs(t, person, alice, password); !strings.Contains(got, "Code 49") || !strings.Contains(got, "data "+data) {
			t.Errorf("%s: %s", why, got)
		}
	}
	refused("wrong password", "pw of bob", "52e")
	s.Disable(t, alice)
	refused("disabled", "pw of alice", "533")
	s.Enable(t, alice)
	s.Expire(t, alice)
	refused("expired", "pw of alice", "701")
	s.Enable(t, alice)
	s.MustChange(t, alice)
	refused("must change", "pw of alice", "773")
	s.Enable(t, alice)
	s.Lock(t, alice)
	refused("locked", "pw of alice", "775")
	s.Enable(t, alice)
	s.SetPassword(t, alice, "x")
	if got := bindsAs(t, person, alice, "x"); got != "" {
		t.Errorf("open again, with another password: %s", got)
	}
	s.RemoveMember(t, dev, alice)
	if got := values(t, c, alice, "memberOf"); got != nil {
		t.Errorf("memberOf is still %q", got)
	}
}
