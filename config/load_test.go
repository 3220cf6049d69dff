package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// wantFaults checks that each fault is there, in order, and no other.
func wantFaults(t *testing.T, err error, want ...string) {
	t.Helper()
	faults, ok := err.(Faults)
	if !ok && err != nil {
		t.Fatalf("the error is %T", err)
	}
	if len(faults) != len(want) {
		t.Errorf("%d faults, want %d", len(faults), len(want))
	}
	for i := range min(len(faults), len(want)) {
		f := faults[i]
		if got := fmt.Sprintf("%d:%d: %s: %s", f.Line, f.Column, f.Key, f.Msg); !strings.HasPrefix(got, want[i]) {
			t.Errorf("fault %d is %s\nwant %s", i, got, want[i])
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestOneLoadTellsFaultsOfEveryKind(t *testing.T) {
	t.Parallel()
	_, err := loadText(t, `listen: ":4180"
listen: ":4181"
public_url: portal
upstrem: http://127.0.0.1
session: {keys: ["${env:CONFIG_TEST_UNSET}", short]}
sources:
  - {name: idp, oidc: {issuer: "https://idp.example.com", client_id: 5}}
store: {postgres: x}
rules:
  - {source: nobody, claim: g, regexp: "(", group: a}
  - {source: idp, claim: g, dn: "=", group: a, when: "("}
routes:
  - {path: /x, groups: [""]}
  - {path: /y, groups: []}
trusted_proxies: [10.0.0.1/8]
`)
	wantFaults(t, err,
		"1:1: upstream: is missing",
		"2:1: listen: stands twice",
		"3:13: public_url: is not an absolute URL",
		"4:1: upstrem: unknown key (did you mean upstream?)",
		"5:18: session.keys[0]: the environment variable",
		"5:46: session.keys[1]: a secret under 32 bytes",
		"7:70: sources[0].oidc.client_id: a number where text is wanted",
		"8:19: store.postgres: is neither an address, postgres://USER:PASSWORD@HOST/DATABASE, nor pairs like host=HOST dbname=DATABASE",
		"10:14: rules[0].source: there is no source",
		"10:40: rules[0].regexp: error parsing regexp",
		"11:33: rules[1].dn: not a distinguished name",
		"11:54: rules[1].when: column",
		"13:25: routes[0].groups[0]: an empty entry",
		"14:24: routes[1].groups: a route nobody can pass",
		"15:19: trusted_proxies[0]: 10.0.0.1/8 has bits set",
	)
}

func TestAFaultIsOneLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.yaml")
	text := minimal + "\"a\\nb: c\": 1\nrules:\n  - claim: g\n    group: a\n    regexp: |\n      a(\n      b\n  - claim: g\n    value: x\n    group: a\n    when: |\n      a +\n      b\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if err == nil {
		t.Fatal("no fault")
	}
	line := regexp.MustCompile(`^` + regexp.QuoteMeta(path) + `:\d+:\d+: [^:]`)
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 3 {
		t.Errorf("%d lines, want 3", len(lines))
	}
	for _, l := range lines {
		if !line.MatchString(l) {
			t.Errorf("not FILE:LINE:COLUMN: %q", l)
		}
	}
}

func TestLineEndsAndMarksOfOtherSystemsChangeNothing(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(string) string{
		"as it is":    func(s string) string { return s },
		"CR LF":       func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"byte order":  func(s string) string { return "\ufeff" + s },
		"no last end": func(s string) string { return strings.TrimSuffix(s, "\n") },
		"document":    func(s string) string { return "---\n" + s + "...\n" },
	} {
		_, err := loadText(t, edit(minimal))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := loadText(t, "\ufeff"+strings.ReplaceAll("lisen: x\n"+minimal, "\n", "\r\n"))
	wantFaults(t, err, "1:1: lisen: unknown key (did you mean listen?)")
	_, err = loadText(t, minimal+"headers: {user: é, email: [x]}\n")
	wantFaults(t, err, "5:17: headers.user: is not the name", "5:27: headers.email: a list")
}

func TestWhatIsNoTextIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"invalid UTF-8": {minimal + "prefix: /\xff\n", "5:10: : a byte that is no UTF-8"},
		"UTF-16":        {"\xff\xfep\x00r\x00", "1:1: : a byte that is no UTF-8"},
		"NUL":           {minimal + "prefix: \"/\x00\"\n", "5:11: : a byte that is no UTF-8"},
		"escape":        {minimal + "# \x1b[31m\n", "5:3: : a byte that is no UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := loadText(t, tt.text)
			wantFaults(t, err, tt.want)
		})
	}
}

func TestAFileThatCannotBeReadIsAFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "none.yaml"))
	wantFaults(t, err, "1:1: : cannot be read: no such file")
	_, err = Load(dir)
	wantFaults(t, err, "1:1: : cannot be read: not a regular file")

	big := filepath.Join(dir, "big.yaml")
	fill := strings.Repeat("# "+strings.Repeat("x", 61)+"\n", maxFile/64+1)
	if err := os.WriteFile(big, []byte(minimal+fill), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load(big)
	wantFaults(t, err, "1:1: : cannot be read: larger than 4 MiB")
	if err := os.WriteFile(big, []byte(minimal+fill[:maxFile-64*1024]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err != nil {
		t.Errorf("a file just under the bound: %v", err)
	}
}

// A hostile or broken file may cost neither the stack nor the day.
func TestNestingAndAliasesAreBounded(t *testing.T) {
	t.Parallel()
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	wide := "routes:\n  - {path: /0, groups: &g ["
	for i := range 1000 {
		wide += fmt.Sprintf("g%d, ", i)
	}
	wide += "last]}\n"
	for i := range 1000 {
		wide += fmt.Sprintf("  - {path: /%d, groups: *g}\n", i+1)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"brackets":      {strings.Repeat("[", 1<<20), "nested deeper"},
		"braces":        {strings.Repeat("{a: ", 1<<18), "nested deeper"},
		"dashes":        {strings.Repeat("- ", 1<<20), "nested deeper"},
		"questions":     {strings.Repeat("? ", 1<<19), "nested deeper"},
		"tags":          {"a: " + strings.Repeat("!x ", 1<<19), "nested deeper"},
		"tags by line":  {"a:\n" + strings.Repeat(" !x\n", 1<<18), "nested deeper"},
		"anchors":       {"a: " + strings.Repeat("&x ", 1<<19), "nested deeper"},
		"indentation":   {indented(1500), "unknown key"},
		"bomb":          {minimal + bomb, "unknown key"},
		"bomb in place": {minimal + bomb + "sync: {default_groups: *a9}\n", "a list where text is wanted"},
		"wide":          {minimal + wide, "aliases unfold"},
		"plain list":    {minimal + "rules:\n" + strings.Repeat("-\n", 1<<12), "nothing stands here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			_, err := loadText(t, tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.300v", err)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func indented(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func TestAliasesWorkAsInYAML(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, minimal+`rules:
  - {source: idp, claim: &c groups, value: a, group: &g "team"}
  - {source: idp, claim: *c, value: b, group: *g}
routes:
  - {path: /a, groups: &list [team, other]}
  - {path: /b, groups: *list}
`)
	if r := cfg.Rules[1]; r.Claim != "groups" || r.Group != "team" {
		t.Errorf("the rule is %+v", r)
	}
	if !slices.Equal(cfg.Routes[1].Groups, []string{"team", "other"}) {
		t.Errorf("the route's groups are %v", cfg.Routes[1].Groups)
	}
}

func TestManyFaultsAreBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(minimal)
	for i := range 5000 {
		fmt.Fprintf(&b, "unknown_%d: 1\n", i)
	}
	_, err := loadText(t, b.String())
	faults := err.(Faults)
	if len(faults) != maxFaults || !strings.HasPrefix(faults[maxFaults-1].Msg, "there are more faults") {
		t.Errorf("%d faults, the last is %v", len(faults), faults[len(faults)-1])
	}
}

func TestTenThousandRulesLoad(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(minimal + "rules:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  - {source: idp, claim: groups, value: v%d, group: g%d}\n", i, i)
	}
	cfg := mustLoad(t, b.String())
	if len(cfg.Rules) != 10_000 || cfg.Rules[9_999].Location != "groupgate.yaml:10005" {
		t.Errorf("%d rules, the last at %s", len(cfg.Rules), cfg.Rules[len(cfg.Rules)-1].Location)
	}
}

// certificate writes a self-signed pair.
func certificate(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		var buf bytes.Buffer
		if err := pem.Encode(&buf, block); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, buf.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestACertificateMustFitItsKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := certificate(t, dir, "a")
	_, other := certificate(t, dir, "b")
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("canary-in-a-key-file"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(cert, key string) (*Config, error) {
		return loadText(t, fmt.Sprintf("%stls: {cert_file: %s, key_file: %s}\nroutes: [{host: a.example.com, tls: {cert_file: %s, key_file: %s}}]\n",
			minimal, cert, key, cert, key))
	}
	cfg, err := with(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{cert, key}; !slices.Equal(cfg.Files()[1:], want) && !slices.Equal(cfg.Files()[:2], want) {
		t.Errorf("files are %v", cfg.Files())
	}
	_, err = with(cert, other)
	wantFaults(t, err, "5:18: tls.cert_file: the pair cannot be used: private key does not match public key", "6:49: routes[0].tls.cert_file: the pair")
	for _, pair := range [][2]string{{garbage, key}, {cert, garbage}, {cert, filepath.Join(dir, "none")}, {filepath.Join(dir, "none"), key}} {
		_, err := with(pair[0], pair[1])
		if faults, _ := err.(Faults); len(faults) != 2 || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v: %v", pair, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(files, "example.yaml") {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add("a: |\r\n  x\r\n\r\n")
	f.Add("\"\\u2028\": [\u2028]\n- x")
	f.Fuzz(func(t *testing.T, text string) {
		// Files and variables of this machine are none of the fuzzer's business.
		if strings.Contains(text, "_file") || strings.Contains(text, "${") {
			return
		}
		cfg, err := load("fuzz.yaml", text, newExpander())
		if (cfg == nil) == (err == nil) {
			t.Fatal("neither a configuration nor faults, or both")
		}
		if err == nil {
			if cfg.PublicURL == "" || cfg.Upstream == "" || len(cfg.Sources) == 0 || cfg.compiled == nil {
				t.Fatalf("not fit to run: %+v", cfg)
			}
			return
		}
		lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
		for _, fault := range err.(Faults) {
			if fault.Line < 1 || fault.Line > len(lines) {
				t.Fatalf("no such line: %v", fault)
			}
			if fault.Column < 1 || fault.Column > len([]rune(lines[fault.Line-1]))+1 {
				t.Fatalf("no such column: %v", fault)
			}
			if strings.ContainsAny(fault.String(), "\n\r") || fault.Msg == "" {
				t.Fatalf("not one line: %q", fault.String())
			}
		}
	})
}
