package testenv

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const (
	sambaRealm = "AD.EXAMPLE.COM"
	sambaBase  = "DC=ad,DC=example,DC=com"
)

// theDomain is the one Samba of this test binary.
var theDomain struct {
	once   sync.Once
	server *Server
	err    error
}

// SambaAD is an Active Directory domain controller: the domain EXAMPLE, which
// is ad.example.com, with ldap, StartTLS and ldaps at a loopback address of its
// own. Making a domain takes seconds, so there is one for all tests of a
// package, which has [Main] in its TestMain: a test gives what it adds names of
// its own, and leaves the rest alone. Passwords may be any.
func SambaAD(tb testing.TB) *Server {
	tb.Helper()
	wanted(tb, "samba", "samba-ad-dc", "samba-ad-provision", "samba-dsdb-modules", "samba-vfs-modules", "ldap-utils")
	if os.Geteuid() != 0 {
		tb.Fatal("Samba is an Active Directory for root alone: its ports are below 1024")
	}
	theDomain.once.Do(func() { theDomain.server, theDomain.err = newSamba() })
	if theDomain.err != nil {
		tb.Fatalf("Samba: %v", theDomain.err)
	}
	return theDomain.server
}

func newSamba() (*Server, error) {
	dir, err := os.MkdirTemp("", "groupgate-samba-")
	if err != nil {
		return nil, err
	}
	if !atMainsEnd(func() { os.RemoveAll(dir) }) {
		os.RemoveAll(dir)
		return nil, errors.New("nobody would stop it: TestMain has to run testenv.Main")
	}
	address, mine, err := ownAddress()
	if err != nil {
		return nil, err
	}
	atMainsEnd(func() { mine.Close() })
	s := &Server{
		URL: "ldap://" + address, URLS: "ldaps://" + address, CAFile: filepath.Join(dir, "ca.pem"), AD: true,
		BaseDN: sambaBase, Domain: strings.ToLower(sambaRealm), NetBIOS: "EXAMPLE",
		ServiceDN: "CN=groupgate,CN=Users," + sambaBase, ServicePassword: "a-service-password-for-tests-only",
		AdminDN: "CN=Administrator,CN=Users," + sambaBase, AdminPassword: "Passw0rd.of-the-Administrator",
	}
	if err := certificate(dir, net.ParseIP(address)); err != nil {
		return nil, err
	}
	if err := provision(s, dir); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "dc", "etc", "smb.conf")
	if err := os.WriteFile(conf, []byte(sambaConf(dir, address)), 0o600); err != nil {
		return nil, err
	}
	if s.process, err = start("samba", "-F", "--no-process-group", "-s", conf, "--model=single", "--debug-stdout"); err != nil {
		return nil, err
	}
	atMainsEnd(s.process.stop)
	err = s.process.until(func() error { return s.answers(s.AdminDN, s.AdminPassword) })
	if err != nil {
		return nil, err
	}
	// A person's password may be any from here on, and the wrong ones lock
	// nobody out.
	return s, s.apply("dn: " + s.BaseDN + "\nchangetype: modify\nreplace: pwdProperties\npwdProperties: 0\n-\nreplace: minPwdLength\nminPwdLength: 0\n" +
		"-\nreplace: minPwdAge\nminPwdAge: 0\n-\nreplace: lockoutThreshold\nlockoutThreshold: 0\n\n" +
		"dn: OU=groups," + s.BaseDN + "\nchangetype: add\nobjectClass: organizationalUnit\n\n" +
		s.person("groupgate", s.ServicePassword))
}

// ownAddress is a loopback address that nobody else uses for this: Samba's
// ports are fixed. Who listens on another port of it has it.
func ownAddress() (string, net.Listener, error) {
	var err error
	for i := 88; i < 250; i++ {
		address := fmt.Sprintf("127.0.0.%d", i)
		var mine net.Listener
		if mine, err = net.Listen("tcp", address+":388"); err != nil {
			continue
		}
		var ldap net.Listener
		if ldap, err = net.Listen("tcp", address+":389"); err != nil {
			mine.Close()
			continue
		}
		ldap.Close()
		return address, mine, nil
	}
	return "", nil, fmt.Errorf("no loopback address is free: %w", err)
}

// provision makes the domain.
func provision(s *Server, dir string) error {
	empty := filepath.Join(dir, "empty.conf") // not the machine's
	if err := os.WriteFile(empty, []byte("[global]\n"), 0o600); err != nil {
		return err
	}
	_, err := run("", nil, "samba-tool", "domain", "provision", "--realm="+sambaRealm, "--domain="+s.NetBIOS, "--server-role=dc",
		"--dns-backend=NONE", "--adminpass="+s.AdminPassword, "--use-rfc2307", "--host-name=dc1", "--host-ip=127.0.0.1",
		"--targetdir="+filepath.Join(dir, "dc"), "--configfile="+empty, "--option=interfaces=lo", "--option=bind interfaces only=yes",
		"--option=ldb:nosync=true") // it lives as long as the tests
	return err
}

// sambaConf has it serve LDAP and nothing else, and write nowhere but there.
func sambaConf(dir, address string) string {
	return strings.NewReplacer("DIR", dir, "ADDRESS", address, "REALM", sambaRealm).Replace(`[global]
netbios name = DC1
realm = REALM
workgroup = EXAMPLE
server role = active directory domain controller
server services = ldap
dcerpc endpoint servers =
interfaces = ADDRESS/8
bind interfaces only = yes
ldap server require strong auth = no
private dir = DIR/dc/private
state directory = DIR/dc/state
cache directory = DIR/dc/cache
lock directory = DIR/dc
pid directory = DIR/dc
ncalrpc dir = DIR/dc/ncalrpc
binddns dir = DIR/dc/bind-dns
winbindd socket directory = DIR/dc/winbindd
ntp signd socket directory = DIR/dc/ntp
log level = 0
tls enabled = yes
tls cafile = DIR/ca.pem
tls certfile = DIR/server.pem
tls keyfile = DIR/server.key
idmap_ldb:use rfc2307 = yes
ldb:nosync = true
`)
}
