package groups

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/claims"
)

// TestDNComparesByStructure: RFC 4514, contract section 7, GV-06.
func TestDNComparesByStructure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{`CN=Admins,OU=G,DC=x`, `CN=Admins,OU=G,DC=x`, true},
		{`CN=Admins,OU=G,DC=x`, `cn=admins, ou=g , dc=X`, true},
		{`CN=Smith\2C Bob,DC=x`, `CN=Smith\, Bob,DC=x`, true},
		{`CN=\41dmins,DC=x`, `CN=Admins,DC=x`, true},
		{`CN=\C4\8Capek,DC=x`, "CN=\u010capek,DC=x", true},
		{`CN=a\+b,DC=x`, `CN=a\2Bb,DC=x`, true},
		{`2.5.4.3=a,DC=x`, `CN=a,DC=x`, true},
		{`OID.2.5.4.11=a,DC=x`, `OU=a,DC=x`, true},
		{`OID.1.2.3=a,DC=x`, `1.2.3=a,DC=x`, true},
		{`0.9.2342.19200300.100.1.25=x`, `DC=x`, true},
		{`CN=a+UID=b,DC=x`, `UID=b+CN=a,DC=x`, true}, // order inside an RDN
		{`CN=a + UID=b,DC=x`, `uid=B+cn=A,dc=x`, true},
		{`CN=#0403486969,DC=x`, `CN=#0403486969,DC=X`, true},

		{`CN=a,OU=b,DC=x`, `OU=b,CN=a,DC=x`, false}, // order of RDNs
		{`CN=a+UID=b,DC=x`, `CN=a,UID=b,DC=x`, false},
		{`CN=a\+UID\=b,DC=x`, `CN=a+UID=b,DC=x`, false},
		{`CN=a\,DC\=x`, `CN=a,DC=x`, false},
		{`CN=admins,OU=Evil`, `CN=admins,OU=Real`, false}, // GV-07
		{`CN=admins`, `CN=admins,DC=x`, false},
		{`CN=admins,DC=x`, `OU=admins,DC=x`, false},
		{"CN=\u212Aadmin,DC=x", `CN=kadmin,DC=x`, false}, // Kelvin sign
		{"CN=admin\u017F,DC=x", `CN=admins,DC=x`, false}, // long s
		{"CN=\u00c9,DC=x", "CN=\u00e9,DC=x", false},      // letters outside ASCII are not folded
		{"CN=caf\u00e9", "CN=cafe\u0301", false},
		{`CN=a  b,DC=x`, `CN=a b,DC=x`, false}, // blanks inside a value count
		{`CN=a\20,DC=x`, `CN=a,DC=x`, false},   // so does an escaped one at its end
		{`CN=\20a,DC=x`, `CN=a,DC=x`, false},
		{`CN=a\",DC=x`, `CN=a\\\",DC=x`, false},
		{`CN=\FF,DC=x`, "CN=\uFFFD,DC=x", false},
	} {
		a, errA := canonicalDN(c.a)
		b, errB := canonicalDN(c.b)
		if errA != nil || errB != nil {
			t.Errorf("%s, %s: %v, %v", c.a, c.b, errA, errB)
			continue
		}
		if (a == b) != c.same {
			t.Errorf("%s and %s: same %v, want %v", c.a, c.b, a == b, c.same)
		}
		rules := ruleset(t, Rule{Source: "s", Claim: "memberOf", DN: c.a, Group: "g"})
		id := statement(t, "s", `{}`)
		id.Claims = claims.FromMap(map[string][]string{"memberOf": {c.b}})
		if got := granted(rules.Apply(id, keep())) == "g"; got != c.same {
			t.Errorf("rule %s, value %s: granted %v, want %v", c.a, c.b, got, c.same)
		}
	}
}

func TestDNRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", " ", "admins", "CN", "CN=a,", ",CN=a", "CN=a,,DC=x", "=a", `CN=a\`, `CN=\Z`, `CN=#04`, "CN=#zz", "CN=a+"} {
		if got, err := canonicalDN(s); err == nil {
			t.Errorf("%q is read as %s", s, got)
		}
	}
	if _, err := canonicalDN("CN=a"); err != nil {
		t.Errorf("control: %v", err)
	}
}

// TestDNLengthThatLies: a hex value may announce more than it holds; nothing
// is reserved for what is announced.
func TestDNLengthThatLies(t *testing.T) { // alone: it counts what the process allocates
	for _, s := range []string{`CN=#04847fffffff00`, `CN=#0488ffffffffffffffff00`, `CN=#30840fffffff0484`, `CN=#24800403`} {
		before := allocated()
		_, _ = canonicalDN(s)
		if grew := allocated() - before; grew > 1<<20 {
			t.Errorf("%s took %d bytes", s, grew)
		}
	}
}

// part is one attribute of a generated name.
type part struct{ kind, value string }

var dnKinds = map[string][]string{
	"cn": {"cn", "CN", "Cn", "2.5.4.3", "oid.2.5.4.3", "OID.2.5.4.3"},
	"ou": {"ou", "OU", "2.5.4.11"},
	"dc": {"dc", "DC", "0.9.2342.19200300.100.1.25"},
	"x":  {"x-y", "X-Y"},
}

func drawName(t *rapid.T) [][]part {
	value := rapid.StringOfN(rapid.RuneFrom([]rune("aAzZ09 ,+=\\\"#;<>\u00e9\u212a\u017f\x00/")), 1, 8, -1)
	kind := rapid.SampledFrom(sortedKeys(dnKinds))
	return rapid.SliceOfN(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) part {
		return part{kind.Draw(t, "kind"), value.Draw(t, "value")}
	}), 1, 3), 1, 4).Draw(t, "name")
}

// spell writes the name in one of its many spellings.
func spell(t *rapid.T, name [][]part) string {
	var rdns []string
	for _, rdn := range name {
		var parts []string
		for _, p := range rapid.Permutation(rdn).Draw(t, "order") {
			kind := rapid.SampledFrom(dnKinds[p.kind]).Draw(t, "spelling")
			parts = append(parts, kind+"="+spellValue(t, p.value))
		}
		rdns = append(rdns, strings.Join(parts, rapid.SampledFrom([]string{"+", " + "}).Draw(t, "plus")))
	}
	return strings.Join(rdns, rapid.SampledFrom([]string{",", ", ", " ,"}).Draw(t, "comma"))
}

func spellValue(t *rapid.T, value string) string {
	var b strings.Builder
	for i := range len(value) {
		c := value[i]
		edge := i == 0 || i == len(value)-1
		switch {
		case c >= 'a' && c <= 'z' && rapid.Bool().Draw(t, "upper"):
			b.WriteByte(c - 'a' + 'A')
		case c == 0 || c >= 0x80 || rapid.IntRange(0, 9).Draw(t, "hex") == 0:
			fmt.Fprintf(&b, `\%02X`, c)
		case strings.IndexByte(`,+"\<>;=`, c) >= 0, edge && (c == ' ' || c == '#'):
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// reference is the meaning of a name, written down without the code under
// test.
func reference(name [][]part) string {
	var rdns []string
	for _, rdn := range name {
		var parts []string
		for _, p := range rdn {
			folded := []byte(p.value)
			for i, c := range folded {
				if 'A' <= c && c <= 'Z' {
					folded[i] = c | 0x20
				}
			}
			parts = append(parts, fmt.Sprintf("%s=%x", p.kind, folded))
		}
		slices.Sort(parts)
		rdns = append(rdns, strings.Join(parts, "+"))
	}
	return strings.Join(rdns, ",")
}

func TestDNSpellingsOfOneNameAreEqual(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := drawName(t)
		one, two := spell(t, name), spell(t, name)
		a, err := canonicalDN(one)
		if err != nil {
			t.Fatalf("%q: %v", one, err)
		}
		b, err := canonicalDN(two)
		if err != nil {
			t.Fatalf("%q: %v", two, err)
		}
		if a != b {
			t.Fatalf("%q and %q are one name, but\n%s\n%s", one, two, a, b)
		}
	})
}

func TestDNDifferentNamesStayDifferent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x, y := drawName(t), drawName(t)
		if rapid.Bool().Draw(t, "near") {
			y = mutate(t, x)
		}
		a, errA := canonicalDN(spell(t, x))
		b, errB := canonicalDN(spell(t, y))
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if (a == b) != (reference(x) == reference(y)) {
			t.Fatalf("%v and %v: equal %v\n%s\n%s", x, y, a == b, a, b)
		}
	})
}

// mutate answers a name that is easily taken for x.
func mutate(t *rapid.T, x [][]part) [][]part {
	y := make([][]part, len(x))
	for i := range x {
		y[i] = slices.Clone(x[i])
	}
	switch rapid.IntRange(0, 4).Draw(t, "mutation") {
	case 0:
		slices.Reverse(y)
	case 1: // one RDN of two becomes two
		y = append([][]part{y[0][:1]}, append([][]part{y[0][1:]}, y[1:]...)...)
		y = slices.DeleteFunc(y, func(r []part) bool { return len(r) == 0 })
	case 2:
		y[0][0].value += " "
	case 3:
		y[0][0].value = strings.ReplaceAll(y[0][0].value, "\u212a", "k")
	case 4:
		y = append(y, []part{{"dc", "x"}})
	}
	return y
}

func FuzzDN(f *testing.F) {
	for _, s := range []string{
		`CN=Smith\2C Bob,OU=Test,DC=x`, `CN=a+UID=b,DC=x`, `CN=#0403486969`, `CN=#30840fffffff0484`, `2.5.4.3=a`,
		"CN=\u212aadmin,DC=x", `CN=\FF\,`, `cn=a;dc=b`, `CN=" a ",DC=x`, `=`, `CN=a\`, ` cn = a , dc = b `, `OID.1.2=x`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		begin := time.Now()
		canonical, err := canonicalDN(s)
		if took := time.Since(begin); took > time.Second {
			t.Fatalf("%d bytes took %v", len(s), took)
		}
		if err != nil {
			return
		}
		// ASCII case is no difference outside escapes in hex, which mean the
		// same byte in either case.
		if again, err := canonicalDN(upperASCII(s)); err != nil || again != canonical {
			t.Fatalf("%q in upper case is another name: %q, %q, %v", s, canonical, again, err)
		}
		if spaced, err := canonicalDN(" " + s); err != nil || spaced != canonical {
			t.Fatalf("%q with a blank before it is another name: %q, %q, %v", s, canonical, spaced, err)
		}
	})
}

func upperASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}
