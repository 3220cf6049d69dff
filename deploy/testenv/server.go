package testenv

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// Server is a directory that runs. Its methods end the test when they fail.
type Server struct {
	URL    string // ldap://, with StartTLS
	URLS   string // ldaps://
	CAFile string
	AD     bool

	BaseDN, Domain             string // Domain is BaseDN as a DNS name
	NetBIOS                    string // of an Active Directory
	ServiceDN, ServicePassword string // may read everything
	AdminDN, AdminPassword     string // may do everything

	process *process
	command []string // of an OpenLDAP, to start it again
}

// Log is what the server wrote.
func (s *Server) Log() string { return s.process.said.String() }

// PID is the server's process.
func (s *Server) PID() int { return s.process.cmd.Process.Pid }

// PersonDN is where AddPerson puts somebody. The name is plain: no escapes.
func (s *Server) PersonDN(name string) string {
	if s.AD {
		return "CN=" + name + ",CN=Users," + s.BaseDN
	}
	return "uid=" + name + ",ou=people," + s.BaseDN
}

// GroupDN is where AddGroup puts a group. The name is plain: no escapes.
func (s *Server) GroupDN(name string) string {
	return "CN=" + name + ",OU=groups," + s.BaseDN
}

// Apply does what LDIF says, as the administrator. A record without a
// changetype is added.
func (s *Server) Apply(tb testing.TB, ldif string) {
	tb.Helper()
	if err := s.apply(ldif); err != nil {
		tb.Fatal(err)
	}
}

func (s *Server) apply(ldif string) error {
	_, err := s.tool(ldif, s.AdminDN, s.AdminPassword, "ldapmodify", "-a")
	return err
}

// tool runs one of OpenLDAP's commands, over TLS.
func (s *Server) tool(input, dn, password, name string, args ...string) (string, error) {
	return run(input, []string{"LDAPTLS_CACERT=" + s.CAFile, "LDAPTLS_REQCERT=demand"}, name,
		append([]string{"-x", "-H", s.URLS, "-D", dn, "-w", password}, args...)...)
}

// CanBind says whether the server takes a password.
func (s *Server) CanBind(dn, password string) bool {
	return s.answers(dn, password) == nil
}

// answers asks for no more than that the server takes the password.
func (s *Server) answers(dn, password string) error {
	_, err := s.tool("", dn, password, "ldapsearch", "-s", "base", "-b", "", "1.1")
	return err
}

// AddPerson adds somebody, and answers the name of the entry.
func (s *Server) AddPerson(tb testing.TB, name, password string) (dn string) {
	tb.Helper()
	s.Apply(tb, s.person(name, password))
	return s.PersonDN(name)
}

func (s *Server) person(name, password string) string {
	about := fmt.Sprintf("cn: %s\nsn: Example\ndisplayName: %s Example\nmail: %s@%s\n", name, strings.ToUpper(name[:1])+name[1:], name, s.Domain)
	if s.AD {
		return fmt.Sprintf("dn: %s\nobjectClass: user\nsAMAccountName: %s\nuserPrincipalName: %s@%s\nuserAccountControl: 512\nunicodePwd:: %s\n%s",
			s.PersonDN(name), name, name, s.Domain, unicodePassword(password), about)
	}
	return fmt.Sprintf("dn: %s\nobjectClass: inetOrgPerson\nobjectClass: shadowAccount\nuid: %s\nuserPassword:: %s\n%s",
		s.PersonDN(name), name, base64.StdEncoding.EncodeToString([]byte(password)), about)
}

// unicodePassword is a password as Active Directory takes it: in quotes, in
// UTF-16.
func unicodePassword(password string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(`"` + password + `"`)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// AddGroup adds a group, and answers its name. Of OpenLDAP it must have
// members (groupOfNames, RFC 4519 3.5); when there are none it has the
// administrator.
func (s *Server) AddGroup(tb testing.TB, name string, memberDNs ...string) (dn string) {
	tb.Helper()
	dn = s.GroupDN(name)
	record := "dn: " + dn + "\ncn: " + name + "\n"
	if s.AD {
		record += "objectClass: group\nsAMAccountName: " + name + "\n"
	} else {
		record += "objectClass: groupOfNames\n"
		if len(memberDNs) == 0 {
			memberDNs = []string{s.AdminDN}
		}
	}
	for _, m := range memberDNs {
		record += "member: " + m + "\n"
	}
	s.Apply(tb, record)
	return dn
}

// AddMember puts somebody, or another group, into a group.
func (s *Server) AddMember(tb testing.TB, groupDN, memberDN string) {
	tb.Helper()
	s.Apply(tb, "dn: "+groupDN+"\nchangetype: modify\nadd: member\nmember: "+memberDN+"\n")
}

// RemoveMember takes somebody, or another group, out of a group.
func (s *Server) RemoveMember(tb testing.TB, groupDN, memberDN string) {
	tb.Helper()
	s.Apply(tb, "dn: "+groupDN+"\nchangetype: modify\ndelete: member\nmember: "+memberDN+"\n")
}

// Delete removes an entry.
func (s *Server) Delete(tb testing.TB, dn string) {
	tb.Helper()
	s.Apply(tb, "dn: "+dn+"\nchangetype: delete\n")
}

// Set replaces an attribute of an entry; no value removes it.
func (s *Server) Set(tb testing.TB, dn, attribute string, values ...string) {
	tb.Helper()
	change := "dn: " + dn + "\nchangetype: modify\nreplace: " + attribute + "\n"
	for _, v := range values {
		change += attribute + ":: " + base64.StdEncoding.EncodeToString([]byte(v)) + "\n"
	}
	s.Apply(tb, change)
}

// Values are what an entry has of an attribute, as it is stored.
func (s *Server) Values(tb testing.TB, dn, attribute string) (all []string) {
	tb.Helper()
	out, err := s.tool("", s.AdminDN, s.AdminPassword, "ldapsearch", "-LLL", "-o", "ldif-wrap=no", "-s", "base", "-b", dn, attribute)
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !strings.EqualFold(name, attribute) {
			continue
		}
		encoded, binary := strings.CutPrefix(value, ":")
		value = strings.TrimPrefix(value, " ")
		if binary {
			raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
			if err != nil {
				tb.Fatalf("%s: %v", attribute, err)
			}
			value = string(raw)
		}
		all = append(all, value)
	}
	return all
}

// SetPassword gives somebody another password.
func (s *Server) SetPassword(tb testing.TB, dn, password string) {
	tb.Helper()
	if s.AD {
		s.Apply(tb, "dn: "+dn+"\nchangetype: modify\nreplace: unicodePwd\nunicodePwd:: "+unicodePassword(password)+"\n")
		return
	}
	s.Set(tb, dn, "userPassword", password)
}

// Disable takes an account out of use. OpenLDAP has no such state: its
// password policy locks the account until an administrator opens it.
func (s *Server) Disable(tb testing.TB, dn string) {
	tb.Helper()
	if s.AD {
		s.Set(tb, dn, "userAccountControl", "514")
		return
	}
	s.Set(tb, dn, "pwdAccountLockedTime", "000001010000Z")
}

// Enable undoes Disable, Expire, Lock and MustChange.
func (s *Server) Enable(tb testing.TB, dn string) {
	tb.Helper()
	if s.AD {
		s.Set(tb, dn, "userAccountControl", "512")
		s.Set(tb, dn, "accountExpires", "0")
		s.Set(tb, dn, "lockoutTime", "0")
		s.Set(tb, dn, "pwdLastSet", "-1")
		return
	}
	s.Set(tb, dn, "pwdAccountLockedTime")
	s.Set(tb, dn, "shadowExpire")
}

// Expire lets an account expire yesterday. OpenLDAP notes it, and lets the
// person bind.
func (s *Server) Expire(tb testing.TB, dn string) {
	tb.Helper()
	yesterday := time.Now().Add(-24 * time.Hour).Unix()
	if s.AD {
		s.Set(tb, dn, "accountExpires", fmt.Sprint((yesterday+11644473600)*10_000_000)) // since 1601, in 100 ns
		return
	}
	s.Set(tb, dn, "shadowExpire", fmt.Sprint(yesterday/86400))
}

// Lock has somebody type wrong passwords until the account is locked.
func (s *Server) Lock(tb testing.TB, dn string) {
	tb.Helper()
	if !s.AD {
		s.Set(tb, dn, "pwdAccountLockedTime", time.Now().UTC().Format("20060102150405Z"))
		return
	}
	const tries = 3
	s.Set(tb, s.BaseDN, "lockoutThreshold", fmt.Sprint(tries))
	defer s.Set(tb, s.BaseDN, "lockoutThreshold", "0")
	for range tries {
		if s.CanBind(dn, "a wrong password") {
			tb.Fatal("a wrong password is right")
		}
	}
}

// MustChange has an Active Directory want another password of somebody.
func (s *Server) MustChange(tb testing.TB, dn string) {
	tb.Helper()
	if !s.AD {
		tb.Fatal("OpenLDAP tells of that to who asks for its password policy alone")
	}
	s.Set(tb, dn, "pwdLastSet", "0")
}
