package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// minimal is the least a configuration says.
const minimal = `public_url: https://portal.example.com
upstream: http://127.0.0.1:8080
sources:
  - {name: idp, oidc: {issuer: "https://idp.example.com", client_id: portal}}
`

func loadText(t testing.TB, text string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "groupgate.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

func mustLoad(t testing.TB, text string) *Config {
	t.Helper()
	cfg, err := loadText(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestWhatIsLeftOutHasItsDefault(t *testing.T) {
	t.Parallel()
	got := mustLoad(t, minimal)
	want := &Config{
		Listen:    ":4180",
		PublicURL: "https://portal.example.com",
		Prefix:    "/_auth",
		Upstream:  "http://127.0.0.1:8080",
		Session:   proxy.SessionConfig{Lifetime: 12 * time.Hour, Idle: time.Hour, Refresh: 5 * time.Minute},
		Store:     StoreConfig{SQLite: "groupgate.db"},
		Sources: []claims.Config{{
			Name:     "idp",
			Label:    "idp",
			OIDC:     &claims.OIDCConfig{Issuer: "https://idp.example.com", ClientID: "portal", Scopes: []string{"openid", "profile", "email"}},
			Groups:   claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Keep},
			Identity: claims.Names{User: "preferred_username", Email: "email", Name: "name"},
		}},
		Identity: IdentityConfig{Names: claims.Names{User: "preferred_username", Email: "email", Name: "name"}},
		Sync:     groups.SyncConfig{Enabled: true, RemoveFromGroups: true, CreateNewGroups: true},
		Headers:  proxy.HeadersConfig{GroupsFormat: proxy.Comma, MaxBytes: 8192, OnOverflow: proxy.OverflowError},
		Admin:    AdminConfig{Listen: "127.0.0.1:4181"},
		Log:      LogConfig{Level: "info", Format: "json"},
		Tracing:  TracingConfig{Sample: 1},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
}

func TestAPresetFillsWhatTheSourceLeavesOut(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, `public_url: https://portal.example.com
upstream: http://127.0.0.1:8080
identity: {user: upn}
sources:
  - {name: a, oidc: {issuer: "https://a.example.com", client_id: x, preset: adfs}}
  - {name: b, oidc: {issuer: "https://b.example.com", client_id: x, preset: adfs}, groups: {claims: [/realm/roles], when_absent: deny}, identity: {name: cn}}
  - {name: c, oidc: {issuer: "https://c.example.com", client_id: x}, groups: {claims: []}}
`)
	for _, tt := range []struct {
		source string
		groups claims.GroupClaims
		names  claims.Names
	}{
		{"a", claims.GroupClaims{Claims: []string{"group"}, WhenAbsent: claims.Clear}, claims.Names{User: "upn", Email: "email", Name: "name"}},
		{"b", claims.GroupClaims{Claims: []string{"/realm/roles"}, WhenAbsent: claims.Deny}, claims.Names{User: "upn", Email: "email", Name: "cn"}},
		{"c", claims.GroupClaims{Claims: []string{}, WhenAbsent: claims.Keep}, claims.Names{User: "upn", Email: "email", Name: "name"}},
	} {
		s := cfg.Source(tt.source)
		if diff := cmp.Diff(tt.groups, s.Groups); diff != "" {
			t.Errorf("%s: %s", tt.source, diff)
		}
		if diff := cmp.Diff(tt.names, s.Identity); diff != "" {
			t.Errorf("%s: %s", tt.source, diff)
		}
	}
	if cfg.Source("nobody") != nil {
		t.Error("a source that is not there was found")
	}
	// The presets are shared; a configuration must not be able to change them.
	cfg.Source("a").Groups.Claims[0] = "changed"
	if claims.Presets["adfs"].Claims[0] != "group" {
		t.Error("the preset itself was handed out")
	}
}

func TestNeededIsEveryClaimThatAnythingReads(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, `public_url: https://portal.example.com
upstream: http://127.0.0.1:8080
sources:
  - {name: a, oidc: {issuer: "https://a.example.com", client_id: x}, require: {email_verified: true}}
  - {name: b, oidc: {issuer: "https://b.example.com", client_id: x}, groups: {claims: [roles]}, identity: {email: mail}}
rules:
  - {claim: everywhere, any: true}
  - {source: a, claim: only-a, value: v, group: g, when: 'has(claims.country)'}
headers: {claims: {X-Dept: /org/dept}}
`)
	for source, want := range map[string][]string{
		"a": {"/org/dept", "country", "email", "email_verified", "everywhere", "groups", "name", "only-a", "preferred_username"},
		"b": {"/org/dept", "everywhere", "mail", "name", "preferred_username", "roles"},
		"c": nil,
	} {
		if diff := cmp.Diff(want, cfg.Needed(source)); diff != "" {
			t.Errorf("%s: %s", source, diff)
		}
	}
}

func TestAnAddressHasOneSpelling(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://Portal.Example.com/":    "https://portal.example.com",
		"https://portal.example.com:443": "https://portal.example.com",
		"https://portal.example.com:444": "https://portal.example.com:444",
		"http://localhost:80/":           "http://localhost",
		"http://[::1]:8443":              "http://[::1]:8443",
		"http://127.8.0.1:443":           "http://127.8.0.1:443",
	} {
		cfg := mustLoad(t, strings.Replace(minimal, "https://portal.example.com", in, 1))
		if cfg.PublicURL != want {
			t.Errorf("%s: got %s, want %s", in, cfg.PublicURL, want)
		}
	}
}

func TestARuleKeepsItsIDWhileItMeansTheSame(t *testing.T) {
	t.Parallel()
	rules := func(lines ...string) []groups.Rule {
		return mustLoad(t, minimal+"rules:\n"+strings.Join(lines, "\n")+"\n").Rules
	}
	const a, b = `  - {claim: groups, value: x, group: y}`, `  - {claim: groups, value: xy, group: z}`
	one, two := rules(a, b), rules("  # moved", b, `  - {group: "y", value: 'x', claim: groups}`)
	if one[0].ID != two[1].ID || one[1].ID != two[0].ID {
		t.Errorf("ids follow the place, not the meaning: %v, %v", one, two)
	}
	if one[0].ID == one[1].ID || !strings.HasPrefix(one[0].ID, "f-") || len(one[0].ID) != 12 {
		t.Errorf("ids are %s and %s", one[0].ID, one[1].ID)
	}
	if one[0].Location != "groupgate.yaml:6" || two[1].Location != "groupgate.yaml:8" {
		t.Errorf("locations are %s and %s", one[0].Location, two[1].Location)
	}
	// Text that moves from one key to the next is another rule.
	if ruleID(groups.Rule{Value: "ab", DN: "c"}) == ruleID(groups.Rule{Value: "a", DN: "bc"}) {
		t.Error("two rules share an id")
	}
}

func TestRestartKeysNamesWhatCannotBeSwapped(t *testing.T) {
	t.Parallel()
	base := mustLoad(t, minimal)
	for _, tt := range []struct {
		yaml string
		want []string
	}{
		{"", nil},
		{"listen: :9\n", []string{"listen"}},
		{"store: {sqlite: other.db}\nlog: {format: console, level: debug}\n", []string{"store.sqlite", "log.format"}},
		{"admin: {listen: 127.0.0.1:9}\n", []string{"admin.listen"}},
		{"tracing: {endpoint: http://127.0.0.1:4318, sample: 0.5}\nprefix: /other\nsession: {idle: 5m}\nheaders: {preset: remote}\nadmin: {token: abc}\n", nil},
	} {
		if got := mustLoad(t, minimal+tt.yaml).RestartKeys(base); !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.yaml, got, tt.want)
		}
	}
	withTLS := *base
	withTLS.TLS.TLSConfig = proxy.TLSConfig{CertFile: "c", KeyFile: "k"}
	otherTLS := withTLS
	otherTLS.TLS.CertFile = "d"
	if got := withTLS.RestartKeys(base); !slices.Equal(got, []string{"tls"}) {
		t.Errorf("TLS turned on: %v", got)
	}
	if got := otherTLS.RestartKeys(&withTLS); got != nil {
		t.Errorf("another certificate: %v", got)
	}
}

func TestAWrittenGuardKeepsTheRestOfItsDefault(t *testing.T) {
	t.Parallel()
	for yaml, want := range map[string]*groups.GuardConfig{
		"":                    nil,
		"sync: {guard: {}}\n": {MaxRemovedUsers: groups.Amount{Percent: 25}, Window: time.Hour},
		"sync: {guard: {max_removed_users: 5}}\n":  {MaxRemovedUsers: groups.Amount{Users: 5}, Window: time.Hour},
		"sync: {guard: {max_removed_users: 7%}}\n": {MaxRemovedUsers: groups.Amount{Percent: 7}, Window: time.Hour},
		"sync: {guard: {window: 30m}}\n":           {MaxRemovedUsers: groups.Amount{Percent: 25}, Window: 30 * time.Minute},
	} {
		if diff := cmp.Diff(want, mustLoad(t, minimal+yaml).Sync.Guard); diff != "" {
			t.Errorf("%q: %s", yaml, diff)
		}
	}
}

func TestTrustedProxiesTakesNetworksAndAddresses(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, minimal+"trusted_proxies: [10.0.0.0/8, 192.0.2.1, \"2001:db8::/32\", \"::1\", \"::ffff:192.0.2.2\"]\n")
	var got []string
	for _, p := range cfg.TrustedProxies {
		got = append(got, p.String())
	}
	if want := []string{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128", "192.0.2.2/32"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheExampleLoadsAsItIs(t *testing.T) {
	t.Parallel()
	cfg, err := Load("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// What the example shows as a default is one.
	d := Default()
	for key, same := range map[string]bool{
		"listen":       cfg.Listen == d.Listen,
		"prefix":       cfg.Prefix == d.Prefix,
		"session":      cfg.Session.Lifetime == d.Session.Lifetime && cfg.Session.Idle == d.Session.Idle && cfg.Session.Refresh == d.Session.Refresh,
		"store":        cfg.Store == d.Store,
		"identity":     cfg.Identity.Names == d.Identity.Names,
		"guard":        *cfg.Sync.Guard == groups.DefaultGuard,
		"headers":      cfg.Headers.GroupsFormat == d.Headers.GroupsFormat && cfg.Headers.MaxBytes == d.Headers.MaxBytes && cfg.Headers.OnOverflow == d.Headers.OnOverflow,
		"header names": [4]string{cfg.Headers.User, cfg.Headers.Email, cfg.Headers.Name, cfg.Headers.Groups} == proxy.HeaderPreset("").Names(),
		"admin":        cfg.Admin.Listen == d.Admin.Listen && cfg.Admin.Token == "" && len(cfg.Admin.Groups) == 0,
		"log":          cfg.Log == d.Log,
		"tracing":      cfg.Tracing.Sample == d.Tracing.Sample,
		"sync":         cfg.Sync.Enabled && cfg.Sync.RemoveFromGroups && cfg.Sync.CreateNewGroups,
	} {
		if !same {
			t.Errorf("%s: the example shows something else than the default", key)
		}
	}
}

func TestTheExampleHoldsEveryKey(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	lexing.Lock() // see there
	err = yaml.Unmarshal([]byte(strings.ReplaceAll(string(data), "#instead ", "")), &doc)
	lexing.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	collect(doc, "", there)
	for _, key := range keysOf(reflect.TypeFor[Config](), "") {
		if !there[key] {
			t.Errorf("the example lacks %s", key)
		}
	}
}

// collect notes the paths of all keys, without indexes.
func collect(v any, path string, out map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			at := strings.TrimPrefix(path+"."+k, ".")
			out[at] = true
			collect(e, at, out)
		}
	case []any:
		for _, e := range v {
			collect(e, path, out)
		}
	}
}

func keysOf(t reflect.Type, path string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		keys = append(keys, at)
		keys = append(keys, keysOf(f.Type, at)...)
	}
	return keys
}

func TestKindsOfTargets(t *testing.T) {
	t.Parallel()
	cfg, err := loadText(t, minimal+`targets:
  - {name: wiki, scim: {url: "https://wiki.example.com/scim/v2", token: t}}
  - {name: hook, webhook: {url: "https://hooks.example.com/x", secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}
  - {name: video, kaltura: {url: "https://www.kaltura.com/api_v3", partner_id: 4711, admin_secret: s}}
`)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"scim", "webhook", "kaltura"} {
		if got := cfg.Targets[i].Kind(); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
	if k := cfg.Targets[2].Kaltura; k.PartnerID != 4711 || k.AdminSecret != "s" || k.URL != "https://www.kaltura.com/api_v3" {
		t.Errorf("%+v", k)
	}
}
