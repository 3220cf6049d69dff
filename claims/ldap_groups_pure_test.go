package claims

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"
	"pgregory.net/rapid"
)

func TestRangeNames(t *testing.T) { // LD-09
	t.Parallel()
	for _, c := range []struct {
		in, name string
		r        valueRange
		ranged   bool
	}{
		{"memberOf", "memberOf", valueRange{}, false},
		{"memberOf;range=0-1499", "memberOf", valueRange{0, 1499}, true},
		{"memberOf;Range=1500-*", "memberOf", valueRange{1500, -1}, true},
		{"memberOf;x-opt;range=5-5", "memberOf;x-opt", valueRange{5, 5}, true},
		{"memberOf;range=5-4", "memberOf;range=5-4", valueRange{}, false},
		{"memberOf;range=-1-4", "memberOf;range=-1-4", valueRange{}, false},
		{"memberOf;range=01-4", "memberOf;range=01-4", valueRange{}, false},
		{"memberOf;range=+0-4", "memberOf;range=+0-4", valueRange{}, false},
		{"memberOf;range=0-", "memberOf;range=0-", valueRange{}, false},
		{"memberOf;range=0", "memberOf;range=0", valueRange{}, false},
		{"memberOf;range=0-99999999999999999999", "memberOf;range=0-99999999999999999999", valueRange{}, false},
		{"range=0-4", "range=0-4", valueRange{}, false},
	} {
		name, r, ranged := parseRange(c.in)
		if name != c.name || ranged != c.ranged || ranged && r != c.r {
			t.Errorf("%s: %q %v %v, want %q %v %v", c.in, name, r, ranged, c.name, c.r, c.ranged)
		}
	}
}

func TestPartsOfAttributesAreNotTheWhole(t *testing.T) { // LD-09
	t.Parallel()
	type attrs map[string][]string
	for name, c := range map[string]struct {
		attrs attrs
		from  int
		want  []string
		next  int
		fails bool
	}{
		"whole":                  {attrs: attrs{"memberOf": {"a", "b"}}, want: []string{"a", "b"}},
		"other case":             {attrs: attrs{"MEMBEROF": {"a"}}, want: []string{"a"}},
		"absent":                 {attrs: attrs{"member": {"a"}}},
		"first part":             {attrs: attrs{"memberOf": nil, "memberOf;range=0-1": {"a", "b"}}, want: []string{"a", "b"}, next: 2},
		"last part":              {attrs: attrs{"memberOf;range=2-*": {"c"}}, from: 2, want: []string{"c"}},
		"only part":              {attrs: attrs{"memberOf;range=0-*": {"a"}}, want: []string{"a"}},
		"fewer than it says":     {attrs: attrs{"memberOf;range=0-2": {"a", "b"}}, fails: true},
		"more than it says":      {attrs: attrs{"memberOf;range=0-0": {"a", "b"}}, fails: true},
		"another part":           {attrs: attrs{"memberOf;range=1-*": {"b"}}, fails: true},
		"the first again":        {attrs: attrs{"memberOf;range=0-1": {"a", "b"}}, from: 2, fails: true},
		"the whole for a part":   {attrs: attrs{"memberOf": {"a", "b", "c"}}, from: 2, fails: true},
		"whole and part at once": {attrs: attrs{"memberOf": {"a"}, "memberOf;range=0-0": {"b"}}, fails: true},
	} {
		values, found, next, err := attributeValues(ldap.NewEntry("cn=x", c.attrs), memberOf, c.from)
		if (err != nil) != c.fails || err != nil && !errors.Is(err, errPartial) {
			t.Errorf("%s: %v", name, err)
		} else if !slices.Equal(values, c.want) || next != c.next || found != (c.want != nil) {
			t.Errorf("%s: %q %v next %d, want %q next %d", name, values, found, next, c.want, c.next)
		}
	}
}

func TestPrimaryGroupsIdentifier(t *testing.T) { // LD-09
	t.Parallel()
	// S-1-5-21-1-2-4294967295-1104, and the same with 513.
	const head = "010500000000000515000000" + "01000000" + "02000000" + "ffffffff"
	account, _ := hex.DecodeString(head + "50040000")
	want := head + "01020000"
	got, err := primarySID(account, "513")
	if err != nil || hex.EncodeToString(got) != want {
		t.Fatalf("%x, %v, want %s", got, err, want)
	}
	if hex.EncodeToString(account) != head+"50040000" {
		t.Error("the account's own identifier changed")
	}
	if f := escapeBytes([]byte{0, '*', '(', 0xff}); f != `\00\2a\28\ff` {
		t.Error(f)
	}
	for name, c := range map[string]struct {
		sid   []byte
		group string
	}{
		"empty":             {nil, "513"},
		"another revision":  {append([]byte{2}, account[1:]...), "513"},
		"cut off":           {account[:len(account)-1], "513"},
		"too long":          {append(slices.Clone(account), 0), "513"},
		"one part only":     {append([]byte{1, 1, 0, 0, 0, 0, 0, 5}, 1, 0, 0, 0), "513"},
		"group of no digit": {account, "users"},
		"negative group":    {account, "-1"},
		"group too large":   {account, "4294967296"},
	} {
		if got, err := primarySID(c.sid, c.group); err == nil {
			t.Errorf("%s: %x", name, got)
		}
	}
}

func TestFilterOfTheGroupSearch(t *testing.T) {
	t.Parallel()
	const dn = `cn=Smith\, Bob (x)*{uid},dc=example`
	const escaped = `cn=Smith\5c, Bob \28x\29\2a{uid},dc=example`
	has := map[string][]string{"uid": {"bob"}, "mail": {"b@x", "c)(x=*"}}
	for in, want := range map[string]string{
		DefaultGroupSearch.Filter:            `(|(member=` + escaped + `)(uniqueMember=` + escaped + `))`,
		`(memberUid={uid})`:                  `(memberUid=bob)`,
		`(&(a=b)(m={mail}))`:                 `(&(a=b)(|(m=b@x)(m=c\29\28x=\2a)))`,
		`(|(member={dn})(memberUid={gone}))`: `(|(member=` + escaped + `)` + nothing + `)`,
		`(x=u:{uid};{mail})`:                 `(|(x=u:bob;b@x)(x=u:bob;c\29\28x=\2a))`,
		`(member:1.2.3:={dn})`:               `(member:1.2.3:=` + escaped + `)`,
		`(a={not a name})`:                   `(a={not a name})`,
	} {
		got := fillFilter(in, dn, func(name string) []string { return has[name] })
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", in, got, want)
		}
		if _, err := ldap.CompileFilter(got); err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
	if got := placeholders(`(|(a={dn})(b={uid})(c={mail})(d={uid}))`); !slices.Equal(got, []string{"uid", "mail"}) {
		t.Error(got)
	}
}

// Whatever a directory holds, it stays a value: the filled filter has as many
// items as the unfilled one.
func TestNoValueLeavesItsItem(t *testing.T) { // LD-01
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[()*\\&|!={}uid dn,]*`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		dn, uid := text.Draw(t, "dn"), text.Draw(t, "uid")
		got := fillFilter("(&(member={dn})(memberUid={uid}))", dn, func(string) []string { return []string{uid} })
		p, err := ldap.CompileFilter(got)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if len(p.Children) != 2 || p.Children[0].Children[1].Data.String() != dn || p.Children[1].Children[1].Data.String() != uid {
			t.Fatalf("%q is not the two items", got)
		}
	})
}

func TestNamesOfGroupsAreComparedByStructure(t *testing.T) {
	t.Parallel()
	if a, b := groupKey(`CN=Smith\2C Bob,DC=x`), groupKey(`cn=Smith\, Bob, dc=X`); a != b {
		t.Errorf("%q and %q", a, b)
	}
	for _, pair := range [][2]string{
		{"engineering", "Engineering"}, {`T`, `TT`}, {`\3dcn=x`, `=cn="x"`}, {"cn=a,cn=b", `cn=a\,cn\=b`},
	} {
		if a, b := groupKey(pair[0]), groupKey(pair[1]); a == b {
			t.Errorf("%q and %q are both %q", pair[0], pair[1], a)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.StringMatching(`\\?[a-zA-Z=]{1,3}=[ -~]{0,6}(,[a-z]{2}=[a-z]{0,3})?`).Draw(t, "a")
		if canonical, err := CanonicalDN(a); err == nil && strings.HasPrefix(canonical, textKey) {
			t.Fatalf("%q is %q, as a text that is no name would be", a, canonical)
		}
	})
}
