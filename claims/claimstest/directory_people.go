package claimstest

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// accountAttributes are those by which a directory tells of an account's state.
var accountAttributes = []string{
	"userAccountControl", "msDS-User-Account-Control-Computed", "accountExpires", "lockoutTime", "pwdLastSet",
	"nsAccountLock", "shadowExpire", "pwdAccountLockedTime",
}

// domainSID is that of the Active Directory.
const domainSID = "S-1-5-21-1004336348-1177238915-682003330"

// PersonDN is where [Directory.Person] puts somebody.
func (d *Directory) PersonDN(name string) string {
	if d.opts.AD {
		return "CN=" + escapeRDN(name) + ",CN=Users," + d.BaseDN
	}
	return "uid=" + escapeRDN(name) + ",ou=people," + d.BaseDN
}

// GroupDN is where [Directory.Group] puts a group.
func (d *Directory) GroupDN(name string) string {
	return "cn=" + escapeRDN(name) + ",ou=groups," + d.BaseDN
}

// Person is an entry of the directory's kind, for Put.
func (d *Directory) Person(name, password string) Entry {
	e := Entry{DN: d.PersonDN(name), Password: password, Attributes: map[string][]string{
		"cn": {name}, "sn": {"Example"}, "displayName": {strings.ToUpper(name[:1]) + name[1:] + " Example"},
		"mail": {name + "@" + d.Domain},
	}}
	if d.opts.AD {
		e.Attributes["objectClass"] = []string{"top", "person", "organizationalPerson", "user"}
		e.Attributes["sAMAccountName"] = []string{name}
		e.Attributes["userPrincipalName"] = []string{name + "@" + d.Domain}
		return e
	}
	e.Attributes["objectClass"] = []string{"top", "person", "organizationalPerson", "inetOrgPerson"}
	e.Attributes["uid"] = []string{name}
	return e
}

// Group is an entry of the directory's kind, for Put. Its members are names.
func (d *Directory) Group(name string, memberDNs ...string) Entry {
	e := Entry{DN: d.GroupDN(name), Attributes: map[string][]string{"cn": {name}, "objectClass": {"top", "groupOfNames"}}}
	if len(memberDNs) > 0 {
		e.Attributes["member"] = memberDNs
	}
	if d.opts.AD {
		e.Attributes["objectClass"] = []string{"top", "group"}
		e.Attributes["sAMAccountName"] = []string{name}
	}
	return e
}

// Subject is what tells an entry apart for good, as text: objectGUID of an
// Active Directory, else entryUUID; empty when there is no such entry.
func (d *Directory) Subject(dn string) string {
	e, _ := d.Entry(dn)
	if !d.opts.AD {
		return strings.Join(e.Attributes["entryUUID"], "")
	}
	raw := strings.Join(e.Attributes["objectGUID"], "")
	if len(raw) != 16 {
		return ""
	}
	b := []byte(raw)
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return uuidText(b)
}

func uuidText(b []byte) string {
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// sidBytes is a security identifier of the domain, as it is stored.
func sidBytes(rid uint32) string {
	parts := strings.Split(strings.TrimPrefix(domainSID, "S-1-5-"), "-")
	b := []byte{1, byte(len(parts) + 1), 0, 0, 0, 0, 0, 5}
	for _, p := range parts {
		n, _ := strconv.ParseUint(p, 10, 32) // of the constant above
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return string(binary.LittleEndian.AppendUint32(b, rid))
}

// furniture is what the directory has before anybody put something there.
func (d *Directory) furniture() []Entry {
	all := []Entry{
		{DN: d.BaseDN, Attributes: map[string][]string{"objectClass": {"top", "domain"}}},
		{DN: d.ServiceDN, Password: d.ServicePassword, Attributes: map[string][]string{
			"objectClass": {"top", "applicationProcess"}, "cn": {"groupgate"},
		}},
	}
	if !d.opts.AD {
		return all
	}
	return append(all, Entry{DN: "CN=Users," + d.BaseDN, Attributes: map[string][]string{"objectClass": {"top", "container"}}},
		Entry{DN: "CN=Domain Users,CN=Users," + d.BaseDN, Attributes: map[string][]string{
			"objectClass": {"top", "group"}, "sAMAccountName": {"Domain Users"}, "objectSid": {sidBytes(513)},
		}},
		Entry{DN: d.partitions(), Attributes: map[string][]string{"objectClass": {"top", "crossRefContainer"}}},
		Entry{DN: "CN=" + d.NetBIOS + "," + d.partitions(), Attributes: map[string][]string{
			"objectClass": {"top", "crossRef"}, "nCName": {d.BaseDN}, "nETBIOSName": {d.NetBIOS}, "dnsRoot": {d.Domain},
		}},
		Entry{DN: "CN=Enterprise Configuration," + d.partitions(), Attributes: map[string][]string{
			"objectClass": {"top", "crossRef"}, "nCName": {d.configuration()}, "dnsRoot": {d.Domain},
		}})
}

func (d *Directory) configuration() string { return "CN=Configuration," + d.BaseDN }
func (d *Directory) partitions() string    { return "CN=Partitions," + d.configuration() }

// complete gives an entry the attributes that a directory makes by itself. The
// identity of one of the same name stays.
func (d *Directory) complete(e *Entry, old *stored) {
	if e.Attributes == nil {
		e.Attributes = map[string][]string{}
	}
	set := func(name string, values ...string) {
		for have := range e.Attributes {
			if strings.EqualFold(have, name) {
				return
			}
		}
		e.Attributes[name] = values
	}
	if old != nil {
		for _, name := range []string{"objectGUID", "objectSid", "entryUUID"} {
			if values := old.Attributes[name]; values != nil {
				set(name, values...)
			}
		}
	}
	if steps, err := parseDN(e.DN); err == nil && len(steps) > 0 {
		for _, a := range steps[0] {
			set(a.attribute, a.value)
		}
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		panic(err)
	}
	if !d.opts.AD {
		set("entryUUID", uuidText(id))
		maps.Copy(e.Attributes, missing(e.Attributes, plainState(e.Account)))
		return
	}
	set("objectGUID", string(id))
	set("distinguishedName", e.DN)
	classes := e.Attributes["objectClass"]
	if !slices.Contains(classes, "user") && !slices.Contains(classes, "group") {
		return
	}
	set("objectSid", sidBytes(d.nextRID))
	d.nextRID++
	if slices.Contains(classes, "user") {
		set("primaryGroupID", "513")
		maps.Copy(e.Attributes, missing(e.Attributes, adState(e.Account)))
	}
}

func missing(have, wanted map[string][]string) map[string][]string {
	maps.DeleteFunc(wanted, func(name string, _ []string) bool {
		_, there := have[name]
		return there
	})
	return wanted
}

func adState(state Account) map[string][]string {
	a := map[string][]string{
		"userAccountControl": {"512"}, "msDS-User-Account-Control-Computed": {"0"}, "accountExpires": {"9223372036854775807"},
		"lockoutTime": {"0"}, "pwdLastSet": {fileTime(time.Now().Add(-time.Hour))},
	}
	switch state {
	case AccountDisabled:
		a["userAccountControl"] = []string{"514"}
	case AccountExpired:
		a["accountExpires"] = []string{fileTime(time.Now().Add(-time.Hour))}
	case AccountLocked:
		a["lockoutTime"] = []string{fileTime(time.Now().Add(-time.Minute))}
		a["msDS-User-Account-Control-Computed"] = []string{"16"}
	case AccountPasswordExpired:
		a["msDS-User-Account-Control-Computed"] = []string{"8388608"}
	case AccountMustChange:
		a["pwdLastSet"] = []string{"0"}
		a["msDS-User-Account-Control-Computed"] = []string{"8388608"}
	}
	return a
}

func plainState(state Account) map[string][]string {
	switch state {
	case AccountDisabled:
		return map[string][]string{"nsAccountLock": {"TRUE"}}
	case AccountExpired:
		return map[string][]string{"shadowExpire": {strconv.FormatInt(time.Now().Unix()/86400-1, 10)}}
	case AccountLocked:
		return map[string][]string{"pwdAccountLockedTime": {time.Now().UTC().Format("20060102150405Z")}}
	}
	return nil
}

// fileTime counts 100 ns since 1601.
func fileTime(t time.Time) string {
	return strconv.FormatInt((t.Unix()+11644473600)*10_000_000, 10)
}

// adSubCode is how Active Directory says why somebody with the right password
// may not sign in.
func adSubCode(state Account) string {
	return map[Account]string{
		AccountDisabled: "533", AccountExpired: "701", AccountLocked: "775", AccountPasswordExpired: "532",
		AccountMustChange: "773", AccountHours: "530", AccountWorkstation: "531",
	}[state]
}

func escapeRDN(s string) string {
	for _, c := range `\,+"<>;=#` {
		s = strings.ReplaceAll(s, string(c), `\`+string(c))
	}
	if strings.HasPrefix(s, " ") {
		s = `\` + s
	}
	if blank, ends := strings.CutSuffix(s, " "); ends {
		s = blank + `\20`
	}
	return s
}
