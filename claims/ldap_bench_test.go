package claims_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/deploy/testenv"
)

// A login and what it cannot do without take turns at one server, over ldaps: a
// search on a connection that is there, and a bind on one that is made for it.
// "ratio" is the one's time by the other's, in the same run.
func BenchmarkLDAPLogin(b *testing.B) {
	b.Run("fake", func(b *testing.B) {
		d := claimstest.StartDirectory(b, claimstest.DirectoryOptions{})
		d.Put(d.Person("alice", alicePassword), d.Group("dev", d.PersonDN("alice")))
		besideBare(b, claims.LDAPConfig{
			URL: claims.URLs{d.URLS}, BindDN: d.ServiceDN, BindPassword: d.ServicePassword, BaseDN: d.BaseDN, CAFile: d.CAFile,
		})
	})
	for _, n := range []int{1, 20, 200} {
		b.Run(fmt.Sprintf("OpenLDAP/groups=%d", n), func(b *testing.B) { // GROUPGATE_E2E=1
			s := testenv.OpenLDAP(b, "", testenv.OpenLDAPOptions{})
			alice := s.AddPerson(b, "alice", alicePassword)
			for i := range n {
				s.AddGroup(b, fmt.Sprintf("team-%04d-engineering", i), alice)
			}
			besideBare(b, claims.LDAPConfig{
				URL: claims.URLs{s.URLS}, BindDN: s.ServiceDN, BindPassword: s.ServicePassword, BaseDN: s.BaseDN, CAFile: s.CAFile,
			})
		})
	}
}

func besideBare(b *testing.B, cfg claims.LDAPConfig) {
	cfg.UserFilter = claims.DefaultLDAP.UserFilter
	src, err := claims.NewLDAP(claims.LDAPOptions{Name: "corp", Config: cfg})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { src.Close() })
	bare := newBare(b, cfg)
	login := func() {
		if _, _, err := src.CheckPassword(context.Background(), claims.Credentials{User: "alice", Password: alicePassword}); err != nil {
			b.Fatal(err)
		}
	}
	login()
	var ours, theirs time.Duration
	for b.Loop() {
		began := time.Now()
		login()
		between := time.Now()
		bare()
		ours, theirs = ours+between.Sub(began), theirs+time.Since(between)
	}
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N), "us/login")
	b.ReportMetric(float64(theirs.Microseconds())/float64(b.N), "us/bare")
	b.ReportMetric(0, "ns/op") // of both together it says nothing
}

// newBare is the same by the library alone.
func newBare(b *testing.B, cfg claims.LDAPConfig) func() {
	pem, err := os.ReadFile(cfg.CAFile)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	dial := func(dn, password string) *ldap.Conn {
		c, err := ldap.DialURL(cfg.URL[0], ldap.DialWithTLSConfig(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}))
		if err != nil {
			b.Fatal(err)
		}
		c.SetTimeout(5 * time.Second)
		if err := c.Bind(dn, password); err != nil {
			b.Fatal(err)
		}
		return c
	}
	service := dial(cfg.BindDN, cfg.BindPassword)
	b.Cleanup(func() { service.Close() })
	return func() {
		found, err := service.Search(&ldap.SearchRequest{
			BaseDN: cfg.BaseDN, Scope: ldap.ScopeWholeSubtree, SizeLimit: 2,
			Filter:     "(&(objectClass=person)(|(sAMAccountName=alice)(userPrincipalName=alice)(uid=alice)))",
			Attributes: []string{"uid", "cn", "displayName", "mail", "memberOf", "entryUUID"},
		})
		if err != nil || len(found.Entries) != 1 || len(found.Entries[0].GetAttributeValues("memberOf")) == 0 {
			b.Fatal(found, err)
		}
		dial(found.Entries[0].DN, alicePassword).Close()
	}
}
