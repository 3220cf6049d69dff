package claims

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-ldap/ldap/v3"
	"pgregory.net/rapid"
)

func TestGUIDTextIsOneToOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "raw")
		text, err := guidText(raw)
		if err != nil || len(text) != 36 || strings.ToLower(text) != text {
			t.Fatalf("%x is %q, %v", raw, text, err)
		}
		back, err := guidBytes(text)
		if err != nil || !bytes.Equal(back, raw) {
			t.Fatalf("%q is %x, %v; was %x", text, back, err, raw)
		}
		// By the letter of [MS-DTYP] 2.3.4.2: Data1 to Data3 are numbers, least
		// byte first; Data4 are bytes.
		hex := strings.ReplaceAll(text, "-", "")
		for i, at := range []int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15} {
			if want := fmt.Sprintf("%02x", raw[at]); hex[2*i:2*i+2] != want {
				t.Fatalf("%x is %q", raw, text)
			}
		}
	})
	for _, text := range []string{
		"", "33221100-5544-7766-8899-AABBCCDDEEFF", "3322110055447766-8899-aabbccddeeff", "{33221100-5544-7766-8899-aabbccddeeff}",
		"33221100-5544-7766-8899-aabbccddeef", "33221100-5544-7766-8899-aabbccddeef*", "33221100-5544-7766-88-99aabbccddeeff",
	} {
		if raw, err := guidBytes(text); err == nil {
			t.Errorf("%q is %x", text, raw)
		}
	}
}

// LD-01: whatever the names, the filter is the configured one with values in
// it, and reads back as them.
func TestFilterHoldsTypedNamesAsValues(t *testing.T) {
	t.Parallel()
	text := rapid.OneOf(rapid.StringMatching(`[a-c()*\\&|!={}:. \x00-]{1,12}`), rapid.StringN(1, 40, -1), rapid.Just("{user}"))
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(text, 1, 2).Draw(t, "names")
		got := userFilter("(&(objectClass=person)(uid={user}))", names)
		p, err := ldap.CompileFilter(got)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if len(names) == 2 {
			if p.Tag != ldap.FilterOr || len(p.Children) != 2 {
				t.Fatalf("%q is no OR of two", got)
			}
		}
		for i, name := range names {
			and := p
			if len(names) == 2 {
				and = p.Children[i]
			}
			if and.Tag != ldap.FilterAnd || len(and.Children) != 2 {
				t.Fatalf("%q is no AND of two", got)
			}
			if eq := and.Children[1]; eq.Tag != ldap.FilterEqualityMatch || eq.Children[0].Data.String() != "uid" || eq.Children[1].Data.String() != name {
				t.Fatalf("%q does not compare uid with %q", got, name)
			}
		}
	})
}

// LD-01: a subject is a value of one attribute and nothing else.
func TestSubjectFilterHoldsOneValue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		subject := rapid.StringN(1, 40, -1).Draw(t, "subject")
		f, err := subjectFilter("employeeNumber", subject)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ldap.CompileFilter(f)
		if err != nil || p.Tag != ldap.FilterEqualityMatch || p.Children[1].Data.String() != subject {
			t.Fatalf("%q: %v", f, err)
		}
		raw := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "raw")
		guid, _ := guidText(raw)
		f, err = subjectFilter("objectguid", guid)
		if err != nil {
			t.Fatal(err)
		}
		p, err = ldap.CompileFilter(f)
		if err != nil || p.Tag != ldap.FilterEqualityMatch || p.Children[1].Data.String() != string(raw) {
			t.Fatalf("%q: %v", f, err)
		}
	})
	if f, err := subjectFilter("uid", ""); err == nil {
		t.Errorf("nobody is %q", f)
	}
}

func TestPoolClosesWhatLiesIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		wire := &ldapWire{Conn: ours}
		wire.left.Store(1)
		c := &ldapConn{stream: wire, wire: wire, server: &ldapServer{}}
		c.start()
		p := newLDAPPool()
		p.give(c)
		time.Sleep(idleConn - time.Second)
		if got := p.take(); got != c || !c.reused {
			t.Fatalf("took %v", got)
		}
		time.Sleep(2 * idleConn) // in use, it does not grow old
		if c.dead() {
			t.Fatal("closed while it was used")
		}
		p.give(c)
		time.Sleep(idleConn + time.Second)
		if got := p.take(); got != nil || !c.dead() {
			t.Fatalf("took %v, dead %v", got, c.dead())
		}
	})
}

func TestDirectoryAnswersAreBounded(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	defer ours.Close()
	wire := &ldapWire{Conn: ours}
	wire.left.Store(3)
	go func() { _, _ = theirs.Write([]byte("abcd")) }()
	var b [2]byte
	read := ""
	for range 2 {
		n, err := wire.Read(b[:])
		if err != nil {
			t.Fatal(err)
		}
		read += string(b[:n])
	}
	if n, err := wire.Read(b[:]); err == nil {
		t.Errorf("read %q and then %d bytes more", read, n)
	}
}
