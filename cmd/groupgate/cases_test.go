package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// caseTables says which cases stand in which file, and how many there are of
// each kind: ids are PX-01, PX-02 and so on.
var caseTables = map[string]map[string]int{
	"proxy/README.md":  {"S0": 10, "PX": 22, "RT": 13, "RD": 9, "CK": 15, "SC": 28},
	"claims/README.md": {"OI": 30, "SM": 28, "LD": 18, "GV": 13, "GS": 25},
}

// conformance is the relying-party modules of the OpenID conformance suite,
// each "oidcc-client-test" and one of these; a row each in claims/README.md.
const conformance = `
	invalid-iss missing-sub invalid-aud missing-iat kid-absent-single-jwks kid-absent-multiple-jwks idtoken-sig-rs256 idtoken-sig-none
	invalid-sig-rs256 userinfo-invalid-sub nonce-invalid scope-userinfo-claims client-secret-basic
	discovery-openid-config discovery-jwks-uri-keys discovery-issuer-mismatch signing-key-rotation signing-key-rotation-just-before-signing
	discovery-webfinger-acct discovery-webfinger-url nonce
	missing-aud invalid-sig-hs256 invalid-sig-es256 invalid-athash missing-athash invalid-chash missing-chash aggregated-claims distributed-claims
	userinfo-signed userinfo-bearer-header userinfo-bearer-body form-post-error mtls-endpoint-aliases request-uri-signed-rs256 request-uri-signed-none
	dynamic-registration
	refresh-token refresh-token-invalid-issuer refresh-token-invalid-sub
	rp-init-logout rp-init-logout-no-state rp-init-logout-other-state
	rp-backchannel-rpinitlogout rp-backchannel-rpinitlogout-alg-none rp-backchannel-rpinitlogout-wrong-alg rp-backchannel-rpinitlogout-wrong-aud
	rp-backchannel-rpinitlogout-wrong-iss rp-backchannel-rpinitlogout-no-event rp-backchannel-rpinitlogout-wrong-event rp-backchannel-rpinitlogout-with-nonce
	rp-frontchannel-opinitlogout rp-frontchannel-rpinitlogout session-management 3rd-party-init-login`

var (
	rowID   = regexp.MustCompile(`^\| ((?:S0|PX|RT|RD|CK|SC|OI|SM|LD|GV|GS)-\d+|oidcc-client-test[\w-]*) \|`)
	caseID  = regexp.MustCompile(`\b(?:S0|PX|RT|RD|CK|SC|OI|SM|LD|GV|GS)-\d\d\b`)
	testRef = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)\\w+)(?:/([^`]+))?`")
	because = regexp.MustCompile(`^(does not apply|with [A-Z]?[a-zA-Z]+[a-zA-Z, ]*): \S+ \S+ \S+`)
)

// caseRow is one line of a table.
type caseRow struct {
	where, id, words, test string
}

// rowsOf reads the tables of a file: lines "| id | case | test |".
func rowsOf(name, text string) (rows []caseRow, faults []string) {
	for i, line := range strings.Split(text, "\n") {
		if !rowID.MatchString(line) {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), " |"), " | ")
		at := fmt.Sprintf("%s:%d", name, i+1)
		if len(cells) != 3 {
			faults = append(faults, fmt.Sprintf("%s: %d cells, wanted id, case and test", at, len(cells)))
			continue
		}
		rows = append(rows, caseRow{at, cells[0], cells[1], cells[2]})
	}
	return rows, faults
}

// wantedIDs is every id that one file must have.
func wantedIDs(name string) []string {
	var ids []string
	for kind, n := range caseTables[name] {
		for i := range n {
			ids = append(ids, fmt.Sprintf("%s-%02d", kind, i+1))
		}
	}
	if name == "claims/README.md" {
		ids = append(ids, "oidcc-client-test")
		for _, m := range strings.Fields(conformance) {
			ids = append(ids, "oidcc-client-test-"+m)
		}
	}
	slices.Sort(ids)
	return ids
}

// testSource is a test function, and what of its file belongs to no test:
// helpers and tables that it may share.
type testSource struct{ body, shared string }

// testsOf reads every test of the module: by folder and name.
func testsOf(t *testing.T) (tests map[string]testSource, mentioned map[string]string) {
	t.Helper()
	tests, mentioned = map[string]testSource{}, map[string]string{}
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root(t), path)
		if err != nil {
			return err
		}
		for _, id := range caseID.FindAllString(string(raw), -1) {
			mentioned[id] = rel
		}
		return addTests(tests, filepath.ToSlash(filepath.Dir(rel)), rel, raw)
	})
	if err != nil || len(tests) < 300 {
		t.Fatalf("%d tests, %v", len(tests), err)
	}
	return tests, mentioned
}

// addTests adds the tests of one file.
func addTests(tests map[string]testSource, dir, name string, raw []byte) error {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, raw, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	bodies, shared, last := map[string]string{}, "", 0
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") && !strings.HasPrefix(fn.Name.Name, "Fuzz") {
			continue
		}
		from, to := set.Position(fn.Pos()).Offset, set.Position(fn.End()).Offset
		if fn.Doc != nil {
			from = set.Position(fn.Doc.Pos()).Offset
		}
		bodies[fn.Name.Name] = string(raw[from:to])
		shared += string(raw[last:from])
		last = to
	}
	shared += string(raw[last:])
	for fn, body := range bodies {
		tests[dir+"."+fn] = testSource{body, shared}
	}
	return nil
}

// checkRow holds one row against the tests there are.
func checkRow(row caseRow, tests map[string]testSource) (faults []string) {
	say := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s: %s: %s", row.where, row.id, fmt.Sprintf(format, args...)))
	}
	if len(strings.Fields(row.words)) < 2 {
		say("no words about the case")
	}
	refs := testRef.FindAllStringSubmatch(row.test, -1)
	if row.test == "open" {
		say("is open: there is no test")
		return faults
	}
	if len(refs) == 0 && !because.MatchString(row.test) {
		say("neither a test nor a reason: %q", row.test)
	}
	if strings.Count(row.test, "`") != 2*len(refs) {
		say("%q names something that is no test", row.test)
	}
	for _, ref := range refs {
		name, sub := ref[1]+"."+ref[2], ref[3]
		src, there := tests[name]
		switch {
		case !there:
			say("there is no %s", name)
		case sub != "" && !strings.Contains(src.body+src.shared, strconv.Quote(sub)):
			say("%s has no %q", name, sub)
		case sub != "" && strings.HasPrefix(row.id, "oidcc-"): // the part's name says what it is
		case !regexp.MustCompile(`(^|[^\w-])` + row.id + `($|[^\w-])`).MatchString(src.body + src.shared):
			say("%s does not name it", name)
		}
	}
	return faults
}

// Each case of the security catalogue stands once in the table of its part,
// with a test that is there and names it, or with the reason why there is none.
func TestEverySecurityCaseHasATestOrAReason(t *testing.T) {
	t.Parallel()
	tests, mentioned := testsOf(t)
	known := map[string]bool{}
	for name := range caseTables {
		raw, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		rows, faults := rowsOf(name, string(raw))
		var ids []string
		for _, row := range rows {
			ids = append(ids, row.id)
			known[row.id] = true
			faults = append(faults, checkRow(row, tests)...)
		}
		slices.Sort(ids)
		faults = append(faults, unlike(name, ids, wantedIDs(name))...)
		for _, f := range faults {
			t.Error(f)
		}
	}
	for id, file := range mentioned {
		if !known[id] {
			t.Errorf("%s names %s, which no table has", file, id)
		}
	}
}

// unlike says what two sorted lists do not share, and what one has twice.
func unlike(name string, have, want []string) (faults []string) {
	for i, id := range have {
		if i > 0 && have[i-1] == id {
			faults = append(faults, fmt.Sprintf("%s: %s stands twice", name, id))
		}
		if !slices.Contains(want, id) {
			faults = append(faults, fmt.Sprintf("%s: %s is not one of its cases", name, id))
		}
	}
	for _, id := range want {
		if !slices.Contains(have, id) {
			faults = append(faults, fmt.Sprintf("%s: %s is missing", name, id))
		}
	}
	return faults
}

// The check above is worth what it refuses.
func TestCaseTablesCanFail(t *testing.T) {
	t.Parallel()
	tests := map[string]testSource{}
	source := "package x\n\n// PX-01.\nfunc TestOne() { run(\"a part\") }\n\nfunc TestTwo() {}\n\n// RD-03 is in all.\nvar all = 1\n"
	if err := addTests(tests, "proxy", "x_test.go", []byte(source)); err != nil {
		t.Fatal(err)
	}
	for row, fault := range map[string]string{
		"| PX-01 | some words | `proxy.TestOne` |":                          "",
		"| PX-01 | some words | `proxy.TestOne/a part` |":                   "",
		"| RD-03 | some words | `proxy.TestOne`, `proxy.TestTwo` |":         "",
		"| PX-01 | some words | `proxy.TestOne`; the rest with SAML |":      "",
		"| PX-01 | some words | does not apply: there is no such thing |":   "",
		"| PX-01 | some words | with LDAP: no directory is asked yet |":     "",
		"| oidcc-client-test-nonce | some words | `proxy.TestTwo/a part` |": "has no",
		"| oidcc-client-test-nonce | some words | `proxy.TestOne/a part` |": "",
		"| PX-01 | some words | `proxy.TestThree` |":                        "there is no proxy.TestThree",
		"| PX-01 | some words | `claims.TestOne` |":                         "there is no claims.TestOne",
		"| PX-01 | some words | `proxy.TestOne/another part` |":             "has no",
		"| PX-01 | some words | `proxy.TestTwo` |":                          "does not name it",
		"| PX-02 | some words | `proxy.TestOne` |":                          "does not name it",
		"| PX-01 | some words | `proxy.TestOne`, `TestTwo` |":               "is no test",
		"| PX-01 | some words | open |":                                     "is open",
		"| PX-01 | some words |  |":                                         "neither",
		"| PX-01 | some words | does not apply |":                           "neither",
		"| PX-01 | some words | with LDAP |":                                "neither",
		"| PX-01 |  | `proxy.TestOne` |":                                    "no words",
		"| PX-01 | some words | proxy.TestOne |":                            "neither",
		"| PX-01 | some words | or more | `proxy.TestOne` |":                "4 cells",
	} {
		rows, faults := rowsOf("x.md", row)
		for _, r := range rows {
			faults = append(faults, checkRow(r, tests)...)
		}
		got := strings.Join(faults, "; ")
		if (got != "") != (fault != "") || !strings.Contains(got, fault) {
			t.Errorf("%s\n\t%q, want %q in it", row, got, fault)
		}
	}
	if got := unlike("x.md", []string{"PX-01", "PX-01", "ZZ-01"}, []string{"PX-01", "PX-02"}); len(got) != 3 {
		t.Errorf("lists: %q", got)
	}
	if n := len(wantedIDs("claims/README.md")); n != 30+28+18+13+25+57 {
		t.Errorf("%d ids are wanted of claims", n)
	}
}

// SC-24: below this the standard library has known holes in what a proxy
// reads.
func TestToolchainFloor(t *testing.T) {
	t.Parallel()
	for version, ok := range map[string]bool{
		runtime.Version(): true, "go1.26.6": true, "go1.26.10": true, "go1.27": true, "go1.27.1": true, "go1.26.5": false, "go1.26": false, "go1.25.13": false,
	} {
		if got := atLeast(version, 1, 26, 6); got != ok {
			t.Errorf("%s is at least 1.26.6: %v", version, got)
		}
	}
}

func atLeast(version string, floor ...int) bool {
	have := make([]int, len(floor))
	for i, p := range strings.SplitN(strings.TrimPrefix(version, "go"), ".", len(floor)) {
		p, _, _ = strings.Cut(p, " ") // what a build adds to its name
		have[i], _ = strconv.Atoi(p)
	}
	return slices.Compare(have, floor) >= 0
}
