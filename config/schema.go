package config

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
)

// Schema is a JSON Schema (draft 2020-12) of the configuration file, made
// from the types that Load decodes into, for editors. It knows every key and
// its type; what Load checks beyond that is Load's.
func Schema() ([]byte, error) {
	r := &jsonschema.Reflector{
		Anonymous:                  true,
		DoNotReference:             true,
		ExpandedStruct:             true,
		RequiredFromJSONSchemaTags: true,
		FieldNameTag:               "yaml",
		Mapper:                     special,
		Namer:                      func(t reflect.Type) string { return t.PkgPath() + "." + t.Name() }, // there are two Configs
	}
	s := r.Reflect(Config{})
	s.Title = "groupgate configuration"
	annotate(s, reflect.ValueOf(*Default()), "")
	return json.MarshalIndent(s, "", "  ")
}

// special describes types whose spelling in YAML is not that of their kind.
func special(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string", Description: "a duration", Examples: []any{"5m", "1h30m"}}
	case reflect.TypeFor[netip.Prefix]():
		return &jsonschema.Schema{Type: "string", Description: "a network or an address", Examples: []any{"10.0.0.0/8"}}
	}
	return nil
}

// annotate adds to the schema of a struct what the types alone do not say:
// defaults, keys that have to be there, keys that may be left empty, and keys
// of parts that do not exist yet.
func annotate(s *jsonschema.Schema, v reflect.Value, path string) {
	s.Required = required(path)
	for _, f := range reflect.VisibleFields(v.Type()) {
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "" || key == "-" {
			continue
		}
		at := strings.TrimPrefix(path+"."+key, ".")
		p, ok := s.Properties.Get(key)
		if !ok {
			continue
		}
		describe(p, v.FieldByIndex(f.Index), at)
		if nullable(key) {
			p = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{p, {Type: "null"}}}
		}
		s.Properties.Set(key, p)
	}
}

func describe(s *jsonschema.Schema, v reflect.Value, path string) {
	if d, ok := v.Interface().(time.Duration); ok {
		if d > 0 {
			s.Default = short(d)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		describe(s, initial(v.Type().Elem()), path)
	case reflect.Slice:
		if s.Items != nil {
			describe(s.Items, reflect.Zero(v.Type().Elem()), path)
		}
	case reflect.Struct:
		if s.Properties != nil {
			annotate(s, v, path)
		}
	case reflect.String, reflect.Int, reflect.Float64, reflect.Bool:
		if !v.IsZero() {
			s.Default = v.Interface()
		}
	}
}

// short writes a duration as people do: 12h, not 12h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// required lists the keys that a section cannot do without.
func required(path string) []string {
	return slices.Clone(map[string][]string{
		"":                {"public_url", "upstream", "sources"},
		"sources":         {"name"},
		"sources.oidc":    {"issuer", "client_id"},
		"sources.ldap":    {"url", "base_dn"},
		"targets":         {"name"},
		"targets.scim":    {"url", "token"},
		"targets.webhook": {"url", "secret"},
		"targets.kaltura": {"url", "partner_id", "admin_secret"},
		"rules":           {"claim"},
		"groups":          {"name", "control"},
	}[path])
}
