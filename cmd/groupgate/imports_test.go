package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/groupgate/groupgate/"

// house says which packages of ours a package may import, and why no others.
// Imports run one way: cmd -> config -> proxy -> groups -> claims.
var house = map[string]struct {
	may []string
	why string
}{
	"claims":               {nil, "a statement about a person does not know what is made of it"},
	"claims/saml":          {[]string{"claims"}, "one kind of source, whose libraries nobody else needs; it knows no more of us than the others do"},
	"claims/claimstest":    {nil, "a provider that shared code with its client would share its faults"},
	"groups":               {[]string{"claims"}, "the directory is the same whoever asks: proxy, console, command line"},
	"groups/sqlstore":      {[]string{"claims", "groups"}, "a store knows the model it keeps, nothing that uses it"},
	"groups/outbound":      {[]string{"groups"}, "targets are spoken to in one way"},
	"groups/scim":          {[]string{"groups", "groups/outbound"}, "a wire format of its own"},
	"groups/kaltura":       {[]string{"groups", "groups/outbound"}, "a wire format of its own"},
	"groups/webhook":       {[]string{"groups", "groups/outbound"}, "a wire format of its own"},
	"groups/groupstest":    {[]string{"claims", "groups"}, "a suite that knew one store would not be one for all"},
	"proxy":                {[]string{"claims", "groups", "proxy/page"}, "settings are handed in: a proxy that read the file could not be tested without one"},
	"proxy/page":           {nil, "pages are words and style; what they say is handed in"},
	"proxy/admin":          {[]string{"claims", "groups", "proxy/page"}, "another listener for other people: a fault here must not be one of the front door, so it never imports proxy; which language a browser wants is one question everywhere"},
	"config":               {[]string{"claims", "groups", "groups/kaltura", "groups/scim", "groups/webhook", "proxy"}, "it composes the parts' own settings, and runs none of them"},
	"cmd/internal/app":     {[]string{"claims", "claims/saml", "config", "groups", "groups/kaltura", "groups/scim", "groups/sqlstore", "groups/webhook", "proxy", "proxy/admin"}, "the only place that knows every part"},
	"cmd/internal/migrate": {nil, "it reads text and writes text; whether that is a configuration of ours is check's to say"},
	"cmd/groupgate":        {[]string{"cmd/internal/app", "cmd/internal/migrate", "config"}, "verbs and exit statuses, nothing else"},
	"cmd/demo":             {[]string{"claims/claimstest", "cmd/internal/app"}, "groupgate as everybody runs it, between two servers of the demo's own"},
	"cmd/internal/e2e":     {nil, "tests alone: the program is a process to them"},
	"deploy/bench":         {[]string{"claims/claimstest", "deploy/testenv"}, "it measures the binary from outside"},
	"deploy/imagetest":     {nil, "tests alone: the image is a stranger's to them"},
	"deploy/kubetest":      {nil, "tests alone"},
	"deploy/sbom":          {nil, "it reads what the linker wrote into a program, whichever that is"},
	"deploy/testenv":       {nil, "it starts other people's servers, and knows nothing of ours"},
}

// foreign says who alone may import a library or a part of the standard
// library, and why.
var foreign = []struct {
	prefix string
	only   []string
	why    string
}{
	{"database/sql", []string{"groups/sqlstore"}, "one package speaks SQL"},
	{"modernc.org/", []string{"groups/sqlstore"}, "drivers are heavy, and register themselves"},
	{"github.com/jackc/", []string{"groups/sqlstore"}, "one package speaks SQL"},
	{"github.com/pressly/goose", []string{"groups/sqlstore"}, "migrations belong to the store"},
	{"github.com/spf13/cobra", []string{"cmd/groupgate"}, "flags are for the command line"},
	{"github.com/goccy/go-yaml", []string{"config"}, "YAML is the file's business; the parts have types"},
	{"github.com/fsnotify/", []string{"config"}, "only the configuration watches files"},
	{"cel.dev/", []string{"groups"}, "conditions are rules'"},
	{"github.com/coreos/go-oidc", []string{"claims"}, "sources alone speak to providers"},
	{"golang.org/x/oauth2", []string{"claims"}, "sources alone speak to providers"},
	{"github.com/crewjam/saml", []string{"claims/saml"}, "what it leaves out is made up for in one place"},
	{"github.com/russellhaering/goxmldsig", []string{"claims/saml", "claims/claimstest"}, "signatures of XML are checked in one place, and made by the provider of the tests"},
	{"github.com/beevik/etree", []string{"claims/saml", "claims/claimstest"}, "trees of XML do not leave the package that checked them"},
	{"golang.org/x/text", []string{"claims", "claims/claimstest", "proxy", "proxy/page"}, "pages are in languages; the directory of the tests takes spellings for one as real ones do; passwords and user names have one spelling"},
	{"golang.org/x/crypto", []string{"claims", "cmd/internal/app"}, "two parts of it are used, each in one place"},
	{"golang.org/x/crypto/argon2", []string{"claims"}, "passwords are hashed in one place"},
	{"golang.org/x/crypto/acme", []string{"cmd/internal/app"}, "the listener's certificates are the process's business"},
	{"golang.org/x/term", []string{"cmd/internal/app"}, "only commands have somebody at a terminal"},
	{"github.com/go-asn1-ber/", []string{"claims", "claims/claimstest"}, "messages of LDAP are bounded where they are read, and made by the directory of the tests"},
	{"github.com/prometheus/", []string{"cmd/internal/app"}, "parts count; one place publishes"},
	{"go.opentelemetry.io/", []string{"cmd/internal/app", "proxy"}, "who is in which group is no step of a request: sources and directory know nothing of spans"},
	{"go.opentelemetry.io/otel/sdk", []string{"cmd/internal/app"}, "the proxy says what happened; one place sends it"},
	{"go.opentelemetry.io/otel/exporters", []string{"cmd/internal/app"}, "the proxy says what happened; one place sends it"},
	{"github.com/go-logr/", []string{"cmd/internal/app"}, "it is there to keep OpenTelemetry's own log quiet"},
	{"k8s.io/", nil, "groupgate asks nothing of Kubernetes; its types are for tests"},
	{"sigs.k8s.io/", nil, "as k8s.io"},
	{"testing", []string{"groups/groupstest", "deploy/testenv", "deploy/bench"}, "its flags must not get into a program; the benchmark is none of ours, and starts the servers of the tests"},
	{"os/exec", []string{"deploy/bench", "deploy/testenv"}, "nothing of the program starts programs"},
	{"net/http/pprof", nil, "it registers itself on the default mux"},
	{"unsafe", nil, "nothing here is worth it"},
}

type goPackage struct {
	ImportPath, Dir, Name              string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports, Deps                      []string
}

func (p goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,GoFiles,TestGoFiles,XTestGoFiles,Imports,Deps", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestImportsRunOneWay(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		rule, known := house[p.name()]
		if !known {
			t.Errorf("%s is new: say in this table what it may import, and why no more", p.name())
			continue
		}
		for _, imported := range p.Imports {
			if own, ours := strings.CutPrefix(imported, module); ours && !slices.Contains(rule.may, own) {
				t.Errorf("%s imports %s: %s", p.name(), own, rule.why)
			}
			for _, f := range foreign {
				fits := imported == strings.TrimSuffix(f.prefix, "/") || strings.HasPrefix(imported, strings.TrimSuffix(f.prefix, "/")+"/")
				if fits && !slices.Contains(f.only, p.name()) {
					t.Errorf("%s imports %s: %s", p.name(), imported, f.why)
				}
			}
		}
	}
}

// What only tests and the demo need is not in the program.
func TestProgramHoldsNoTestServers(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.name() != "cmd/groupgate" {
			continue
		}
		for _, d := range p.Deps {
			if d == "testing" || d == "net/http/httptest" || strings.HasSuffix(d, "test") && strings.HasPrefix(d, module) {
				t.Errorf("the program links %s", d)
			}
		}
		if !slices.Contains(p.Deps, module+"groups/sqlstore") {
			t.Error("the program links no store: the list of dependencies is not what this test thinks")
		}
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		var with []string
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				with = append(with, name)
			}
		}
		if len(with) != 1 {
			t.Errorf("%s: package comments in %q; wanted in exactly one file", p.name(), with)
		}
	}
}

// Code that runs before main, wherever it stands, cannot be tested or turned
// off.
func TestNoInit(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s/%s has an init function", p.name(), name)
				}
			}
		}
	}
}

// S0-01: below these versions signatures of SAML messages can be wrapped
// (CVE-2026-33487). They come in with SAML, and may not come in older.
func TestFloorsOfSignatureLibraries(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range belowFloor(string(raw)) {
		t.Error(bad)
	}
	old := "require (\n\tgithub.com/russellhaering/goxmldsig v1.4.0\n\tgithub.com/beevik/etree v1.6.9 // indirect\n)\n"
	if got := belowFloor(old); len(got) != 2 {
		t.Errorf("old versions are not seen: %q", got)
	}
	fine := "require github.com/russellhaering/goxmldsig v1.6.1\nrequire github.com/beevik/etree v1.10.0\n"
	if got := belowFloor(fine); len(got) != 0 {
		t.Errorf("new versions are refused: %q", got)
	}
}

func belowFloor(goMod string) (bad []string) {
	for lib, floor := range map[string][3]int{"github.com/russellhaering/goxmldsig": {1, 6, 1}, "github.com/beevik/etree": {1, 7, 0}} {
		expr := regexp.MustCompile(`(?m)` + regexp.QuoteMeta(lib) + ` v(\d+)\.(\d+)\.(\d+)`)
		for _, m := range expr.FindAllStringSubmatch(goMod, -1) {
			var v [3]int
			for i := range v {
				v[i], _ = strconv.Atoi(m[i+1]) // digits
			}
			if slices.Compare(v[:], floor[:]) < 0 {
				bad = append(bad, fmt.Sprintf("%s is older than %v", m[0], floor))
			}
		}
	}
	return bad
}

func TestTopLevel(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{"LICENSE", "Makefile", "README.md", "claims", "cmd", "config", "deploy", "go.mod", "go.sum", "groups", "proxy"}
	var have []string
	for _, e := range entries {
		if e.Name()[0] != '.' && e.Name() != "bin" { // bin is what "make build" makes
			have = append(have, e.Name())
		}
	}
	if !slices.Equal(have, wanted) {
		t.Errorf("top level\n%q, wanted\n%q", have, wanted)
	}
	if info, err := os.Stat(filepath.Join(root(t), ".ci", "run")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf(".ci/run: %v", err)
	}
}

// Nothing speaks of the machine it was made on.
func TestNoPathsOfAMachine(t *testing.T) {
	t.Parallel()
	// Put together here, so that this file does not hold them.
	forbidden := regexp.MustCompile(`(^|[^\w.])/(` + strings.Join([]string{"ro" + "ot", "ho" + "me", "Us" + "ers", "wo" + "rk"}, "|") + `)/\w|T` + `ODO|FIX` + `ME|registry\.npm` + `js`)
	files := 0
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "node_modules", "bin"}, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > 4<<20 || d.Name() == ".git" { // a file in a linked work tree
			return err
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // somebody else's temporary file
			return nil
		}
		files++
		for i, line := range strings.Split(string(raw), "\n") {
			if m := forbidden.FindString(line); m != "" {
				t.Errorf("%s:%d holds %q", path, i+1, m)
			}
		}
		return err
	})
	if err != nil || files < 100 {
		t.Errorf("%d files, %v", files, err)
	}
	for _, sample := range []string{"see /ro" + "ot/x", "\"/ho" + "me/alice\"", "// TO" + "DO"} {
		if !forbidden.MatchString(sample) {
			t.Errorf("%q is not seen", sample)
		}
	}
}
