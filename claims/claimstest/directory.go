package claimstest

import (
	"crypto/x509"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
)

// Entry is one entry of the directory. The values of an attribute may be any
// bytes.
type Entry struct {
	DN         string
	Attributes map[string][]string
	// Password lets the entry bind. Without one nobody is let in.
	Password string
	Account  Account
}

// Account is what stands against somebody whose password is right. The entry
// gets the attributes by which that is told, unless it has them; see each. An
// Active Directory says so when the person binds, too. Another server lets the
// person in, as many do; it is locked accounts alone that it refuses.
type Account string

// The states of an account, with Active Directory's attributes and sub-code,
// and those of another server.
const (
	AccountOpen            Account = ""
	AccountDisabled        Account = "disabled"         // userAccountControl, 533; nsAccountLock
	AccountExpired         Account = "expired"          // accountExpires, 701; shadowExpire
	AccountLocked          Account = "locked"           // lockoutTime and the computed attribute, 775; pwdAccountLockedTime
	AccountPasswordExpired Account = "password-expired" // the computed attribute, 532; nothing
	AccountMustChange      Account = "must-change"      // pwdLastSet, 773; nothing
	AccountHours           Account = "hours"            // nothing, 530; nothing
	AccountWorkstation     Account = "workstation"      // nothing, 531; nothing
)

// DirectoryOptions is what a directory is made of.
type DirectoryOptions struct {
	AD      bool    // play Active Directory; else a plain LDAPv3 server
	BaseDN  string  // default dc=example,dc=com
	NetBIOS string  // of the domain; default EXAMPLE
	Entries []Entry // beside the base, the service account, and what AD has of itself
	// Anonymous lets everybody search. Else only who has bound may.
	Anonymous bool
	// NoMemberOf leaves memberOf to what the entries have themselves. Else it is
	// kept from the groups' member, as Active Directory and OpenLDAP's overlay
	// do.
	NoMemberOf bool
	NoPaging   bool // neither offered nor known
}

// Directory is an LDAP server on loopback, with knobs for every lie a hostile
// one could tell. Everything of it may be changed while it runs.
type Directory struct {
	URL    string // ldap://, with StartTLS
	URLS   string // ldaps://
	CAFile string // PEM, of who signed the server's certificate
	CAPEM  []byte

	BaseDN, Domain             string // Domain is BaseDN as a DNS name
	NetBIOS                    string
	ServiceDN, ServicePassword string // may read everything

	opts  DirectoryOptions
	certs *certificates

	mu         sync.Mutex
	knobs      DirectoryKnobs
	entries    map[string]*stored // by key
	order      []*stored          // as they were put
	groups     map[string][]*stored
	nextRID    uint32
	operations []Operation
	accepted   int
	open       map[net.Conn]struct{}
	listeners  []net.Listener // none: offline
	addresses  [2]string

	ended sync.WaitGroup
}

// stored is an entry with what is looked for prepared. It never changes: an
// entry that is changed is stored anew.
type stored struct {
	Entry
	key    string
	values map[string][]value // by lower-case name
	names  map[string]string  // of the attributes as they are spelled
}

type value struct{ raw, prepared string }

// StartDirectory serves a directory on two free loopback ports until the test
// ends.
func StartDirectory(tb TB, opts DirectoryOptions) *Directory {
	tb.Helper()
	if opts.BaseDN == "" {
		opts.BaseDN = "dc=example,dc=com"
	}
	if opts.NetBIOS == "" {
		opts.NetBIOS = "EXAMPLE"
	}
	certs, err := newCertificates()
	if err != nil {
		tb.Fatalf("certificates: %v", err)
	}
	d := &Directory{
		BaseDN: opts.BaseDN, Domain: dnsName(opts.BaseDN), NetBIOS: opts.NetBIOS,
		ServiceDN: "cn=groupgate,ou=services," + opts.BaseDN, ServicePassword: "a-service-password-for-tests-only",
		CAPEM: certs.caPEM, opts: opts, certs: certs,
		entries: map[string]*stored{}, open: map[net.Conn]struct{}{}, nextRID: 1100,
		addresses: [2]string{"127.0.0.1:0", "127.0.0.1:0"},
	}
	d.CAFile, err = certs.writeCA()
	if err != nil {
		tb.Fatalf("certificates: %v", err)
	}
	tb.Cleanup(certs.removeCA)
	d.Put(d.furniture()...)
	d.Put(opts.Entries...)
	if err := d.listen(); err != nil {
		tb.Fatalf("listen: %v", err)
	}
	d.URL, d.URLS = "ldap://"+d.addresses[0], "ldaps://"+d.addresses[1]
	tb.Cleanup(func() {
		_ = d.SetOffline(true)
		d.ended.Wait()
	})
	return d
}

func dnsName(dn string) string {
	steps, _ := parseDN(dn) // what is none has no steps
	var labels []string
	for _, step := range steps {
		if step[0].attribute == "dc" {
			labels = append(labels, step[0].value)
		}
	}
	return strings.Join(labels, ".")
}

// Roots trusts the directory's certificate.
func (d *Directory) Roots() *x509.CertPool { return d.certs.roots }

// Put adds entries, in place of those of the same names. What lies between
// them and the base is made too.
func (d *Directory) Put(entries ...Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range entries {
		d.put(e)
	}
	d.groups = nil
}

func (d *Directory) put(e Entry) {
	s := &stored{Entry: e, key: keyOf(e.DN), values: map[string][]value{}, names: map[string]string{}}
	s.Attributes = maps.Clone(e.Attributes)
	old := d.entries[s.key]
	d.complete(&s.Entry, old)
	for name, values := range s.Attributes {
		lower := strings.ToLower(name)
		s.names[lower] = name
		for _, v := range values {
			s.values[lower] = append(s.values[lower], value{v, prepareAs(lower, v)})
		}
	}
	d.entries[s.key] = s
	if old != nil {
		d.order[slices.Index(d.order, old)] = s
		return
	}
	if i := strings.Index(s.key, ","); i >= 0 && below(parentOf(s.key), keyOf(d.BaseDN)) && d.entries[parentOf(s.key)] == nil {
		steps := splitDN(e.DN, ',')
		d.put(Entry{DN: strings.TrimLeft(strings.Join(steps[1:], ","), " "), Attributes: map[string][]string{"objectClass": {"top", "organizationalUnit"}}})
	}
	d.order = append(d.order, s)
}

// Remove takes entries away; groups still name them.
func (d *Directory) Remove(dns ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dn := range dns {
		if old := d.entries[keyOf(dn)]; old != nil {
			delete(d.entries, old.key)
			d.order = slices.DeleteFunc(d.order, func(s *stored) bool { return s == old })
		}
	}
	d.groups = nil
}

// Entry is a copy of the entry of that name, with the attributes that the
// directory made; false when there is none. memberOf is not in it.
func (d *Directory) Entry(dn string) (Entry, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.entries[keyOf(dn)]
	if s == nil {
		return Entry{}, false
	}
	e := s.Entry
	e.Attributes = maps.Clone(e.Attributes)
	return e, true
}

// Change puts an entry again after change made another of it. It says whether
// there is one. Changing the DN renames it: it keeps its identity, and the
// groups keep the old name.
func (d *Directory) Change(dn string, change func(*Entry)) bool {
	e, found := d.Entry(dn)
	if !found {
		return false
	}
	state := e.Account
	change(&e)
	if e.Account != state { // the attributes tell of the old one
		for _, name := range accountAttributes {
			delete(e.Attributes, name)
		}
	}
	if keyOf(e.DN) != keyOf(dn) {
		d.Remove(dn)
	}
	delete(e.Attributes, "distinguishedName")
	d.Put(e)
	return true
}

// valuesOf is what an entry has of an attribute. The directory is locked.
func (d *Directory) valuesOf(e *stored, name string) []value {
	lower, _, _ := strings.Cut(strings.ToLower(name), ";")
	values := e.values[lower]
	if lower != "memberof" || d.opts.NoMemberOf {
		return values
	}
	d.indexGroups()
	held := map[string]bool{}
	for _, v := range values {
		held[v.prepared] = true
	}
	values = slices.Clip(values)
	for _, g := range d.groups[e.key] {
		if !held[g.key] {
			held[g.key] = true
			values = append(values, value{g.DN, g.key})
		}
	}
	return values
}

// indexGroups finds the groups by their members again after a change.
func (d *Directory) indexGroups() {
	if d.groups != nil {
		return
	}
	d.groups = map[string][]*stored{}
	for _, g := range d.order {
		for _, attribute := range []string{"member", "uniquemember"} {
			for _, m := range g.values[attribute] {
				d.groups[m.prepared] = append(d.groups[m.prepared], g)
			}
		}
	}
}

func (d *Directory) groupsOfKey(key string) (keys []string) {
	d.indexGroups()
	for _, g := range d.groups[key] {
		keys = append(keys, g.key)
	}
	return keys
}

func (d *Directory) membersOfKey(key string) (keys []string) {
	if e := d.entries[key]; e != nil {
		for _, m := range e.values["member"] {
			keys = append(keys, m.prepared)
		}
	}
	return keys
}

var (
	dnAttributes = []string{
		"member", "uniquemember", "memberof", "distinguishedname", "entrydn", "ncname", "manager", "owner", "seealso",
		"defaultnamingcontext", "configurationnamingcontext", "namingcontexts",
	}
	binaryAttributes = []string{"objectguid", "objectsid"}
)

// prepareAs makes a value of an attribute ready to be compared.
func prepareAs(name, raw string) string {
	name, _, _ = strings.Cut(strings.ToLower(name), ";")
	switch {
	case slices.Contains(dnAttributes, name):
		return keyOf(raw)
	case slices.Contains(binaryAttributes, name):
		return raw
	}
	return prepare(raw)
}
