package testenv

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// OpenLDAPOptions is what an OpenLDAP is made of.
type OpenLDAPOptions struct {
	NoMemberOf bool // without the overlay that keeps memberOf
	// SizeLimit is how many entries a search may have; 0: any number.
	SizeLimit int
	// MaxFailures is after how many wrong passwords an account is locked; 0:
	// never.
	MaxFailures int
}

const openLDAPBase = "dc=example,dc=com"

// OpenLDAP starts slapd with what the LDIF has, until the test ends: the
// overlays memberof, refint and ppolicy, StartTLS and ldaps. Below
// dc=example,dc=com there are ou=people, ou=groups, ou=services, and the service
// account. It takes a moment, so every test has its own.
func OpenLDAP(tb testing.TB, ldif string, opts OpenLDAPOptions) *Server {
	tb.Helper()
	wanted(tb, "slapd", "ldap-utils")
	dir, err := os.MkdirTemp("", "groupgate-slapd-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	s, err := newOpenLDAP(dir, opts)
	if err != nil {
		tb.Fatalf("OpenLDAP: %v", err)
	}
	tb.Cleanup(func() { s.process.stop() }) // the last one, after Start
	s.Apply(tb, openLDAPFurniture(s, opts))
	if strings.TrimSpace(ldif) != "" {
		s.Apply(tb, ldif)
	}
	return s
}

func newOpenLDAP(dir string, opts OpenLDAPOptions) (*Server, error) {
	s := &Server{
		CAFile: filepath.Join(dir, "ca.pem"), BaseDN: openLDAPBase, Domain: "example.com",
		ServiceDN: "cn=groupgate,ou=services," + openLDAPBase, ServicePassword: "a-service-password-for-tests-only",
		AdminDN: "cn=admin," + openLDAPBase, AdminPassword: "an-admin-password-for-tests-only",
	}
	if err := certificate(dir, net.IPv4(127, 0, 0, 1)); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "slapd.conf"), []byte(slapdConf(s, dir, opts)), 0o600); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		return nil, err
	}
	args := []string{"-f", filepath.Join(dir, "slapd.conf"), "-d", "0"}
	if os.Geteuid() == 0 { // it does not stay root
		if err := giveAway(dir, "openldap"); err != nil {
			return nil, err
		}
		args = append(args, "-u", "openldap", "-g", "openldap")
	}
	slapd, err := exec.LookPath("slapd")
	if err != nil {
		slapd = "/usr/sbin/slapd" // where people's PATH does not look
	}
	// Somebody else may take a port between us and slapd.
	for try := 0; ; try++ {
		ports, err := freePorts(2)
		if err != nil {
			return nil, err
		}
		s.URL, s.URLS = fmt.Sprintf("ldap://127.0.0.1:%d", ports[0]), fmt.Sprintf("ldaps://127.0.0.1:%d", ports[1])
		s.command = append([]string{slapd}, append(args, "-h", s.URL+" "+s.URLS)...)
		if err = s.launch(); err == nil {
			return s, nil
		}
		if try == 2 {
			return nil, err
		}
	}
}

// launch starts slapd at its addresses and waits for it.
func (s *Server) launch() error {
	p, err := start(s.command[0], s.command[1:]...)
	if err != nil {
		return err
	}
	s.process = p
	if err = p.until(func() error { return s.answers(s.AdminDN, s.AdminPassword) }); err != nil {
		p.stop()
	}
	return err
}

// Stop ends an OpenLDAP. It keeps its content for Start.
func (s *Server) Stop() { s.process.stop() }

// Start starts an OpenLDAP again that was stopped, at the same addresses.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	if err := s.launch(); err != nil {
		tb.Fatalf("OpenLDAP, again: %v", err)
	}
}

// giveAway makes somebody the owner of a folder and all in it.
func giveAway(dir, name string) error {
	who, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(who.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(who.Gid)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
}

func slapdConf(s *Server, dir string, opts OpenLDAPOptions) string {
	limit := "unlimited"
	if opts.SizeLimit > 0 {
		limit = strconv.Itoa(opts.SizeLimit)
	}
	memberOf := "overlay memberof\nmemberof-group-oc groupOfNames\nmemberof-refint TRUE\n"
	if opts.NoMemberOf {
		memberOf = ""
	}
	return strings.NewReplacer("DIR", dir, "SUFFIX", s.BaseDN, "ADMIN", s.AdminDN, "SECRET", s.AdminPassword, "SERVICE", s.ServiceDN,
		"LIMIT", limit, "OVERLAY_MEMBEROF\n", memberOf).Replace(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
pidfile DIR/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload refint
moduleload ppolicy
TLSCACertificateFile DIR/ca.pem
TLSCertificateFile DIR/server.pem
TLSCertificateKeyFile DIR/server.key
sizelimit LIMIT
database mdb
suffix "SUFFIX"
rootdn "ADMIN"
rootpw SECRET
directory DIR/db
maxsize 268435456
dbnosync
index objectClass,uid,member,entryUUID eq
access to attrs=userPassword by self write by anonymous auth by * none
access to * by dn.exact="SERVICE" read by self read by * none
OVERLAY_MEMBEROF
overlay refint
refint_attributes member memberOf
overlay ppolicy
ppolicy_default "cn=default,ou=policies,SUFFIX"
ppolicy_hash_cleartext
`)
}

func openLDAPFurniture(s *Server, opts OpenLDAPOptions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "dn: %s\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n", s.BaseDN)
	for _, ou := range []string{"people", "groups", "services", "policies"} {
		fmt.Fprintf(&b, "dn: ou=%s,%s\nobjectClass: organizationalUnit\nou: %s\n\n", ou, s.BaseDN, ou)
	}
	// Without pwdLockout it would let in an account that Lock has locked, too.
	fmt.Fprintf(&b, "dn: cn=default,ou=policies,%s\nobjectClass: device\nobjectClass: pwdPolicy\ncn: default\npwdAttribute: userPassword\npwdLockout: TRUE\npwdMaxFailure: %d\n\n",
		s.BaseDN, opts.MaxFailures)
	fmt.Fprintf(&b, "dn: %s\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\ncn: groupgate\nuserPassword: %s\n", s.ServiceDN, s.ServicePassword)
	return b.String()
}
