package config

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/groupgate/groupgate/claims"
)

// schema is what the test reads of a JSON Schema.
type schema struct {
	Type                 any                `json:"type"`
	Enum                 []any              `json:"enum"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties json.RawMessage    `json:"additionalProperties"`
	Items                *schema            `json:"items"`
	AnyOf                []*schema          `json:"anyOf"`
	OneOf                []*schema          `json:"oneOf"`
	Required             []string           `json:"required"`
	Default              any                `json:"default"`
	Version              string             `json:"$schema"`
}

func readSchema(t *testing.T) *schema {
	t.Helper()
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// fits reports whether a value has only keys and types that the schema knows.
func (s *schema) fits(v any, path string, fault func(string)) {
	if options := append(s.AnyOf, s.OneOf...); len(options) > 0 {
		for _, o := range options {
			ok := true
			o.fits(v, path, func(string) { ok = false })
			if ok {
				return
			}
		}
		fault(path + ": fits none")
		return
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Type != "object" {
			fault(path + ": a mapping")
			return
		}
		for _, r := range s.Required {
			if _, ok := v[r]; !ok {
				fault(path + ": lacks " + r)
			}
		}
		for k, e := range v {
			p := s.Properties[k]
			if p == nil && len(s.AdditionalProperties) > 0 && string(s.AdditionalProperties) != "false" {
				p = &schema{Type: "string"}
			}
			if p == nil {
				fault(path + "." + k + ": not known")
				continue
			}
			p.fits(e, path+"."+k, fault)
		}
	case []any:
		if s.Type != "array" {
			fault(path + ": a list")
			return
		}
		for _, e := range v {
			s.Items.fits(e, path+"[]", fault)
		}
	default:
		want := "null"
		switch v.(type) {
		case string:
			want = "string"
		case bool:
			want = "boolean"
		case float64:
			want = "integer"
			if s.Type == "number" { // any number is one of those
				want = "number"
			}
		}
		if s.Type != want {
			fault(path + ": a " + want)
		}
		if s.Enum != nil && !slices.Contains(s.Enum, v) {
			fault(path + ": none of the words")
		}
	}
}

// document reads YAML as an editor would see it: as JSON values.
func document(t *testing.T, text string) any {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTheSchemaKnowsTheExample(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := readSchema(t)
	s.fits(document(t, string(data)), "", func(msg string) { t.Error(msg) })
	s.fits(document(t, minimal), "", func(msg string) { t.Error(msg) })
	if s.Version != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("the draft is %s", s.Version)
	}
}

func TestTheSchemaRefusesWhatLoadRefuses(t *testing.T) {
	t.Parallel()
	s := readSchema(t)
	for _, text := range []string{
		"lisen: x\n",
		"session: {idle: 5}\n",
		"session: {keys: x}\n",
		"sync: {enabled: \"true\"}\n",
		"sync: {guard: {max_removed_users: true}}\n",
		"headers: {groups_format: csv}\n",
		"headers: {claims: {X-A: 5}}\n",
		"rules: [{value: x}]\n",
		"rules: [{claim: x, ID: x}]\n",
		"groups: [{name: a}]\n",
		"trusted_proxies: [10]\n",
		"log: {level: loud}\n",
		"tracing: {sample: all}\n",
		"routes: [{path: /a, basic: [corp]}]\n",
	} {
		found := false
		s.fits(document(t, minimal+text), "", func(string) { found = true })
		if !found {
			t.Errorf("the schema takes %q", text)
		}
		if _, err := loadText(t, minimal+text); err == nil {
			t.Errorf("Load takes %q", text)
		}
	}
}

func TestTheSchemaSaysDefaults(t *testing.T) {
	t.Parallel()
	s := readSchema(t)
	if d := s.Properties["session"].Properties["lifetime"].Default; d != "12h" {
		t.Errorf("session.lifetime: %v", d)
	}
	if d := s.Properties["headers"].Properties["max_bytes"].Default; d != 8192.0 {
		t.Errorf("headers.max_bytes: %v", d)
	}
	source := s.Properties["sources"].Items
	if p := source.Properties["saml"].Properties; p["sign_requests"].Default != true || p["metadata_refresh"].Default != "1h" || p["subject"].Default != "nameid" {
		t.Errorf("defaults of saml: %v, %v, %v", p["sign_requests"].Default, p["metadata_refresh"].Default, p["subject"].Default)
	}
	if s.Properties["sources"].Items.Properties["oidc"].AdditionalProperties == nil {
		t.Error("sources[].oidc takes any key")
	}
	if p := source.Properties["ldap"].Properties; p["group_search"].Properties["claim"].Default != "memberOf" || p["user_filter"].Default != claims.DefaultLDAP.UserFilter {
		t.Errorf("defaults of ldap: %v, %v", p["group_search"].Properties["claim"].Default, p["user_filter"].Default)
	}
	if d := source.Properties["local"].Properties["min_password_length"].Default; d != 12.0 {
		t.Errorf("local.min_password_length: %v", d)
	}
	if p := s.Properties["targets"].Items.Properties["kaltura"]; p.Properties["partner_id"].Type != "integer" || !slices.Equal(p.Required, []string{"url", "partner_id", "admin_secret"}) {
		t.Errorf("targets[].kaltura is %+v", p)
	}
	if p := s.Properties["admin"].Properties["groups"]; p.Type != "array" || p.Items.Type != "string" {
		t.Errorf("admin.groups is %+v", p)
	}
}
