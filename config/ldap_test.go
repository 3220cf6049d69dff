package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/groupgate/groupgate/claims"
)

// withSource is minimal with another source in place of its own.
func withSource(entry string) string {
	before, _, _ := strings.Cut(minimal, "sources:")
	return before + "sources:\n  - " + entry + "\n"
}

func TestLDAPDefaults(t *testing.T) {
	t.Parallel()
	got := mustLoad(t, withSource(`{name: corp, ldap: {url: ldaps://dc.example.com, base_dn: "DC=example,DC=com"}}`)).Source("corp")
	want := &claims.Config{
		Name: "corp", Label: "corp",
		LDAP: &claims.LDAPConfig{
			URL: claims.URLs{"ldaps://dc.example.com"}, BaseDN: "DC=example,DC=com", UserFilter: claims.DefaultLDAP.UserFilter,
		},
		Groups:   claims.GroupClaims{Claims: []string{"memberOf"}, WhenAbsent: claims.Clear},
		Identity: claims.Names{User: "preferred_username", Email: "email", Name: "name"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// What is written holds, a section that was begun keeps the rest of its
	// defaults, and a claim that the search makes is a group claim by itself.
	got = mustLoad(t, withSource(`{name: corp, label: Work, ldap: {url: [ldap://a.example.com, "ldap://127.0.0.1:389"], starttls: true, base_dn: "DC=x", subject: uidNumber,
      bind_dn: 'CORP\svc', bind_password: secret, user_filter: "(cn={user})", domains: [CORP], nested_groups: true, group_search: {claim: inGroups}},
      groups: {when_absent: keep}, identity: {user: uid}}`)).Source("corp")
	want = &claims.Config{
		Name: "corp", Label: "Work",
		LDAP: &claims.LDAPConfig{
			URL: claims.URLs{"ldap://a.example.com", "ldap://127.0.0.1:389"}, StartTLS: true, BaseDN: "DC=x", Subject: "uidNumber",
			BindDN: `CORP\svc`, BindPassword: "secret", UserFilter: "(cn={user})", Domains: []string{"CORP"}, NestedGroups: true,
			GroupSearch: &claims.GroupSearch{Filter: claims.DefaultGroupSearch.Filter, Claim: "inGroups"},
		},
		Groups:   claims.GroupClaims{Claims: []string{"memberOf", "inGroups"}, WhenAbsent: claims.Keep},
		Identity: claims.Names{User: "uid", Email: "email", Name: "name"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = mustLoad(t, withSource(`{name: corp, ldap: {url: ldaps://a, base_dn: "DC=x", group_search: {}}, groups: {claims: []}}`)).Source("corp")
	if g := got.Groups.Claims; g == nil || len(g) != 0 || got.LDAP.GroupSearch.Claim != "memberOf" {
		t.Errorf("group claims %q, of the search %q", g, got.LDAP.GroupSearch.Claim)
	}
	if claims.DefaultGroupSearch.Claim != "memberOf" || claims.DefaultLDAP.URL != nil {
		t.Error("the defaults were changed")
	}
}

// Nothing states the groups of local users, and their names do not follow what
// other sources call theirs.
func TestLocalDefaults(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, withSource(`{name: local, local: {}}`)+"identity: {user: upn, email: mail}\n")
	want := &claims.Config{
		Name: "local", Label: "local", Local: &claims.LocalConfig{MinPasswordLength: 12},
		Groups:   claims.GroupClaims{Claims: []string{}, WhenAbsent: claims.Keep},
		Identity: claims.Names{User: "preferred_username", Email: "email", Name: "name"},
	}
	if diff := cmp.Diff(want, cfg.Source("local")); diff != "" {
		t.Error(diff)
	}
	for n, ok := range map[int]bool{7: false, 8: true, 256: true, 257: false} {
		_, err := loadText(t, withSource(fmt.Sprintf(`{name: local, local: {min_password_length: %d}}`, n)))
		if (err == nil) != ok {
			t.Errorf("%d characters: %v", n, err)
		}
	}
}

// Sources that share their people may be of any kind.
func TestLocalAndLDAPMayBeLinked(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, minimal+`  - {name: corp, ldap: {url: ldaps://a, base_dn: DC=x}}
  - {name: local, local: {}}
identity: {link: [idp, corp, local]}
`)
	if got := cfg.Identity.Link; !slices.Equal(got, []string{"idp", "corp", "local"}) {
		t.Errorf("linked %q", got)
	}
}

// LD-05, LD-06: nothing in a file can send passwords in the clear or leave the
// server's certificate unchecked.
func TestNoDirectoryInTheClear(t *testing.T) {
	t.Parallel()
	with := func(keys string) error {
		_, err := loadText(t, withSource(`{name: corp, ldap: {base_dn: DC=x, `+keys+`}}`))
		return err
	}
	for keys, ok := range map[string]bool{
		`url: ldaps://dc.example.com`:                                         true,
		`url: ldap://dc.example.com, starttls: true`:                          true,
		`url: ldap://127.0.0.1`:                                               true,
		`url: ldap://localhost:389`:                                           true,
		`url: "ldap://[::1]"`:                                                 true,
		`url: ldap://dc.example.com`:                                          false,
		`url: ldap://dc.example.com, starttls: false`:                         false,
		`url: ldap://10.0.0.1`:                                                false,
		`url: ldap://127.0.0.1.example.com`:                                   false,
		`url: ldap://localhost.example.com`:                                   false,
		`url: LDAP://dc.example.com`:                                          false,
		`url: [ldaps://dc.example.com, ldap://dc.example.com]`:                false,
		`url: ldaps://dc.example.com, insecure: true`:                         false,
		`url: ldaps://dc.example.com, insecure_skip_verify: true`:             false,
		`url: ldaps://dc.example.com, tls: {verify: false}`:                   false,
		`url: "http://dc.example.com"`:                                        false,
		`url: ldaps://dc.example.com, starttls: true`:                         false,
		`url: [ldap://127.0.0.1, ldap://dc.example.com], starttls: true`:      true,
		`url: [ldap://127.0.0.1, ldap://dc.example.com]`:                      false,
		`url: "ldaps://dc.example.com/DC=example,DC=com?uid?sub?(uid=alice)"`: false,
	} {
		if err := with(keys); (err == nil) != ok {
			t.Errorf("%s: %v", keys, err)
		}
	}
}

func TestFileOfAuthorities(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := certificate(t, dir, "ca")
	other, _ := certificate(t, dir, "other")
	read := func(file string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for what, c := range map[string]struct{ text, want string }{
		"one":              {read(cert), ""},
		"two with remarks": {"# ours\n" + read(cert) + "# theirs\n" + read(other), ""},
		"none":             {"canary", "holds no certificate (PEM)"},
		"empty":            {"", "holds no certificate (PEM)"},
		"a key with it":    {read(cert) + read(key), "holds something else beside certificates"},
		"a broken one":     {read(cert) + block("CERTIFICATE", []byte("canary"), nil), "holds a certificate that cannot be read"},
	} {
		file := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := loadText(t, withSource(fmt.Sprintf(`{name: corp, ldap: {url: ldaps://a, base_dn: DC=x, ca_file: %q}}`, file)))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case c.want == "":
			// It must be read again when it changes.
			if !slices.Contains(cfg.Files(), file) {
				t.Errorf("%s: %s is not among %q", what, file, cfg.Files())
			}
		case err == nil || !strings.Contains(err.Error(), "sources[0].ldap.ca_file: "+c.want) || strings.Contains(err.Error(), "canary"):
			t.Errorf("%s: %v, want %s", what, err, c.want)
		}
	}
	if files := mustLoad(t, withSource(`{name: corp, ldap: {url: ldaps://a, base_dn: DC=x, ca_file: }}`)).Files(); len(files) != 1 {
		t.Errorf("files %q", files)
	}
}

// A secret that slipped into another key is not repeated.
func TestFaultsOfLDAPRepeatNothingFromOutside(t *testing.T) {
	t.Setenv("CONFIG_TEST_LDAP", "canary{x}(")
	_, err := loadText(t, withSource(`{name: corp, ldap: {url: "${env:CONFIG_TEST_LDAP}", base_dn: "${env:CONFIG_TEST_LDAP}", bind_dn: "${env:CONFIG_TEST_LDAP}",
      user_filter: "${env:CONFIG_TEST_LDAP}", subject: "${env:CONFIG_TEST_LDAP}", ca_file: "${env:CONFIG_TEST_LDAP}", domains: ["a@${env:CONFIG_TEST_LDAP}"],
      group_search: {base_dn: "${env:CONFIG_TEST_LDAP}", filter: "${env:CONFIG_TEST_LDAP}", claim: "${env:CONFIG_TEST_LDAP}", value: "${env:CONFIG_TEST_LDAP}"}},
      groups: {claims: ["${env:CONFIG_TEST_LDAP}"]}}`))
	faults, _ := err.(Faults)
	if len(faults) != 13 || strings.Contains(err.Error(), "canary") {
		t.Errorf("%d faults: %v", len(faults), err)
	}
}

// The parser takes a colon between brackets for the end of a key.
func TestAddressThatNeedsQuotes(t *testing.T) {
	t.Parallel()
	const source = `{name: corp, ldap: {base_dn: "DC=x", url: [%sldaps://dc1.example.com:636%[1]s]}}`
	mustLoad(t, withSource(fmt.Sprintf(source, `"`)))
	if _, err := loadText(t, withSource(fmt.Sprintf(source, ""))); err == nil || !strings.Contains(err.Error(), "needs quotes here") {
		t.Error(err)
	}
}
