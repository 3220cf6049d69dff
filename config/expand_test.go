package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const canary = "canary-8c1f4d0e-must-never-be-printed"

// SC-09: one line end of a file is dropped, and nothing else.
func TestReferencesAreReplacedInsideText(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("CONFIG_TEST_A", "alpha")
	t.Setenv("CONFIG_TEST_EMPTY", "")
	t.Setenv("CONFIG_TEST_NESTED", "${env:CONFIG_TEST_A}")
	for _, tt := range []struct{ in, want string }{
		{"plain", "plain"},
		{"${env:CONFIG_TEST_A}", "alpha"},
		{"x${env:CONFIG_TEST_A}y${env:CONFIG_TEST_A}z", "xalphayalphaz"},
		{"${env:CONFIG_TEST_EMPTY}", ""},
		{"${env:CONFIG_TEST_NESTED}", "${env:CONFIG_TEST_A}"}, // what is put in is not read again
		{"${file:" + write("lf", "secret\n") + "}", "secret"},
		{"${file:" + write("crlf", "secret\r\n") + "}", "secret"},
		{"${file:" + write("two", "secret\n\n") + "}", "secret\n"},
		{"${file:" + write("cr", "secret\r") + "}", "secret\r"},
		{"${file:" + write("blanks", " secret \n") + "}", " secret "},
		{"${file:" + write("none", "") + "}", ""},
		{"<${file:" + write("a:b", "colon") + "}>", "<colon>"},
		{"$1 ${1} ${name} $$ ${ENV:X} $env:X ${", "$1 ${1} ${name} $$ ${ENV:X} $env:X ${"},
	} {
		got, _, err := newExpander().expand(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("%q: got %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

// SC-09: unset is a fault, never an empty secret.
func TestReferencesThatLeadNowhereAreFaults(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ in, want string }{
		{"${env:CONFIG_TEST_UNSET}", `the environment variable "CONFIG_TEST_UNSET" is not set`},
		{"${env:}", "does not say which"},
		{"${file:}", "does not say which"},
		{"${file:" + filepath.Join(dir, "none") + "}", "no such file"},
		{"${file:" + dir + "}", "not a regular file"},
		{"x ${env:CONFIG_TEST_A", "${env: without a closing }"},
		{"${file:a ${env:b", "${file: without a closing }"},
	} {
		if out, _, err := newExpander().expand(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %q, %v; want %q", tt.in, out, err, tt.want)
		}
	}
}

// Whatever is wrong with a value from outside the file, it is not shown.
func TestASecretIsNeverPrinted(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(canary+"(\\ \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONFIG_TEST_CANARY", canary+"[(\\ ")
	t.Setenv("CONFIG_TEST_NETWORK", "192.0.2.77/24")
	for _, ref := range []string{"${env:CONFIG_TEST_CANARY}", "${file:" + secret + "}"} {
		text := strings.ReplaceAll(`listen: "REF"
public_url: "REF"
tls: {cert_file: "REF", key_file: "REF"}
prefix: "REF"
upstream: "REF"
session: {lifetime: "REF", keys: ["REF"]}
sources:
  - name: "REF"
    oidc: {issuer: "REF", client_id: "REF", client_secret: "REF", scopes: ["REF"], preset: "REF"}
    require: {email_domains: ["REF"]}
    groups: {claims: ["/REF~", "/REF~"], when_absent: "REF"}
identity: {user: "/REF~", link: ["REF-", "REF-"]}
sync: {group_names: "REF", default_groups: ["REF", "REF"], guard: {max_removed_users: "REF"}}
rules:
  - {source: "REF-", claim: "/REF~", regexp: "REF", group: "$2REF", when: "REF"}
  - {source: "REF", claim: c, dn: "REF", group: "g"}
groups: [{name: "REF", control: "REF"}]
headers: {user: "REF", preset: "REF", groups_format: "REF", only: ["REF", "REF"], claims: {X-A: "/REF~"}}
routes: [{host: "REF", path: "REF", access: "REF", groups: ["REF", "REF"], upstream: "REF"}]
admin: {listen: "REF", token: "REF"}
trusted_proxies: ["REF", "${env:CONFIG_TEST_NETWORK}"]
log: {level: "REF", format: "REF"}
`, "REF", ref)
		_, err := loadText(t, text)
		faults, _ := err.(Faults)
		if len(faults) < 35 {
			t.Errorf("only %d faults:\n%v", len(faults), err)
		}
		if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "192.0.2") {
			t.Errorf("a value from outside is shown:\n%v", err)
		}
	}
	// The control: what stands in the file is shown.
	_, err := loadText(t, minimal+"log: {level: "+canary+"}\n")
	if !strings.Contains(err.Error(), canary) {
		t.Errorf("not shown: %v", err)
	}
}

// SC-09: empty or too short.
func TestASecretIsNotEmptyAfterExpansion(t *testing.T) {
	t.Setenv("CONFIG_TEST_EMPTY", "")
	const keys = `session: {keys: ["${env:CONFIG_TEST_KEY}"]}
admin: {token: "${env:CONFIG_TEST_EMPTY}"}
`
	t.Setenv("CONFIG_TEST_KEY", "")
	_, err := loadText(t, minimal+keys)
	wantFaults(t, err, "5:18: session.keys[0]: the secret is empty", "6:16: admin.token: the secret is empty")
	t.Setenv("CONFIG_TEST_KEY", strings.Repeat("k", 31))
	t.Setenv("CONFIG_TEST_EMPTY", "token")
	_, err = loadText(t, minimal+keys)
	wantFaults(t, err, "5:18: session.keys[0]: a secret under 32 bytes")
	t.Setenv("CONFIG_TEST_KEY", strings.Repeat("k", 32))
	if cfg := mustLoad(t, minimal+keys); cfg.Session.Keys[0] != strings.Repeat("k", 32) || cfg.Admin.Token != "token" {
		t.Error("the secrets did not arrive")
	}
}

// SC-09: a secret's file is followed.
func TestFilesListsWhatAReloadDependsOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("k", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := mustLoad(t, minimal+`session: {keys: ["${file:`+key+`}", "${file:`+key+`}"]}`+"\n")
	want := []string{cfg.Path(), key}
	slices.Sort(want)
	if got := cfg.Files(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
