package admin_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// spec is openapi.json as far as tests read it.
type spec struct {
	Paths      map[string]map[string]operation
	Components struct {
		Schemas   map[string]*schema
		Responses map[string]response
	}
	raw string
}

type operation struct {
	Responses map[string]response
}

type response struct {
	Ref     string `json:"$ref"`
	Content map[string]struct{ Schema *schema }
}

type schema struct {
	Ref        string `json:"$ref"`
	Type       any
	Properties map[string]*schema
	Required   []string
	Items      *schema
	Enum       []string
	Additional json.RawMessage `json:"additionalProperties"`
}

func readSpec(t *testing.T) *spec {
	t.Helper()
	raw, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	s := spec{raw: string(raw)}
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// find is the described path that a request's path fits.
func (s *spec) find(path string) (pattern string, ops map[string]operation) {
	path = strings.ReplaceAll(path, "%3A", ":")
	for pattern, ops := range s.Paths {
		expr := regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(pattern), `[^/]+`)
		if regexp.MustCompile(`^` + expr + `$`).MatchString(path) {
			return pattern, ops
		}
	}
	return "", nil
}

// check holds an answer against the description: the status is one that is
// listed, the body has every required member and none that is not described.
func (s *spec) check(t *testing.T, method, path string, got answer) {
	t.Helper()
	_, ops := s.find(path)
	if got.status == 405 || ops == nil && got.status == 404 {
		return // said of all addresses at once
	}
	if method == "HEAD" {
		return
	}
	op, described := ops[strings.ToLower(method)]
	if !described {
		t.Errorf("openapi.json does not describe %s %s, which answered %d", method, path, got.status)
		return
	}
	res, listed := op.Responses[strconv.Itoa(got.status)]
	if !listed {
		t.Errorf("openapi.json does not list status %d of %s %s: %s", got.status, method, path, got.body)
		return
	}
	if res.Ref != "" {
		res = s.Components.Responses[strings.TrimPrefix(res.Ref, "#/components/responses/")]
	}
	if len(res.Content) == 0 {
		if len(got.body) > 0 {
			t.Errorf("%s %s %d: a body that is not described: %s", method, path, got.status, got.body)
		}
		return
	}
	content, right := res.Content[got.header.Get("Content-Type")]
	if !right {
		t.Errorf("%s %s %d: Content-Type %q is not described", method, path, got.status, got.header.Get("Content-Type"))
		return
	}
	if !strings.HasSuffix(got.header.Get("Content-Type"), "json") {
		return // a file
	}
	var v any
	if err := json.Unmarshal(got.body, &v); err != nil {
		t.Errorf("%s %s %d: %v", method, path, got.status, err)
		return
	}
	for _, fault := range s.validate("", content.Schema, v) {
		t.Errorf("%s %s %d: %s", method, path, got.status, fault)
	}
}

func (s *spec) validate(at string, sch *schema, v any) []string {
	if sch.Ref != "" {
		return s.validate(at, s.Components.Schemas[strings.TrimPrefix(sch.Ref, "#/components/schemas/")], v)
	}
	wrong := []string{fmt.Sprintf("%s: %T is not %v", at, v, sch.Type)}
	switch v := v.(type) {
	case string:
		if sch.Type != "string" || len(sch.Enum) > 0 && !slices.Contains(sch.Enum, v) {
			return wrong
		}
	case bool:
		if sch.Type != "boolean" {
			return wrong
		}
	case float64:
		if sch.Type != "integer" {
			return wrong
		}
	case nil:
		return wrong
	case []any:
		if sch.Type != "array" {
			return wrong
		}
		var out []string
		for i, e := range v {
			out = append(out, s.validate(fmt.Sprintf("%s[%d]", at, i), sch.Items, e)...)
		}
		return out
	case map[string]any:
		if sch.Type != "object" {
			return wrong
		}
		return s.object(at, sch, v)
	}
	return nil
}

func (s *spec) object(at string, sch *schema, v map[string]any) []string {
	var out []string
	for _, name := range sch.Required {
		if _, there := v[name]; !there {
			out = append(out, at+": "+name+" is missing")
		}
	}
	for name, member := range v {
		if known := sch.Properties[name]; known != nil {
			out = append(out, s.validate(at+"."+name, known, member)...)
			continue
		}
		var rest schema
		switch {
		case string(sch.Additional) == "true":
		case json.Unmarshal(sch.Additional, &rest) == nil:
			out = append(out, s.validate(at+"."+name, &rest, member)...)
		case sch.Properties != nil:
			out = append(out, at+"."+name+" is not described")
		}
	}
	return out
}

// Every address that is served is described, and every one that is described
// is served: an undescribed method answers 405 with exactly the described ones.
func TestDescriptionIsWhatIsServed(t *testing.T) {
	a := newAPI(t)
	served := map[string][]string{}
	for _, p := range a.h.Patterns() {
		method, pattern, _ := strings.Cut(p, " ")
		served[pattern] = append(served[pattern], strings.ToLower(method))
	}
	for pattern, ops := range a.spec.Paths {
		for method := range ops {
			if !slices.Contains(served[pattern], method) {
				t.Errorf("%s %s is described and not served", method, pattern)
			}
		}
		path := regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(pattern, "x")
		got := a.call("TRACE", path, "")
		var want []string
		for method := range ops {
			want = append(want, strings.ToUpper(method))
			if method == "get" {
				want = append(want, "HEAD")
			}
		}
		allow := strings.Split(got.header.Get("Allow"), ", ")
		slices.Sort(allow)
		slices.Sort(want)
		if got.status != 405 || !slices.Equal(allow, want) {
			t.Errorf("TRACE %s: %d, Allow %v, want 405 and %v", path, got.status, allow, want)
		}
	}
	for pattern, methods := range served {
		for _, method := range methods {
			if _, described := a.spec.Paths[pattern][method]; !described {
				t.Errorf("%s %s is served and not described", method, pattern)
			}
		}
	}
}

func TestDescriptionHoldsTogether(t *testing.T) {
	a := newAPI(t)
	got := a.call("GET", "/openapi.json", "")
	if got.status != 200 || string(got.body) != a.spec.raw {
		t.Fatalf("GET /openapi.json: %d, or not the file", got.status)
	}
	var doc map[string]any
	if err := json.Unmarshal(got.body, &doc); err != nil {
		t.Fatal(err)
	}
	if doc["openapi"] != "3.1.0" {
		t.Errorf("openapi is %v", doc["openapi"])
	}
	refs := regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(a.spec.raw, -1)
	if len(refs) == 0 {
		t.Fatal("no references found: the expression is wrong")
	}
	for _, ref := range refs {
		var at any = doc
		for step := range strings.SplitSeq(ref[1], "/") {
			m, _ := at.(map[string]any)
			at = m[step]
		}
		if at == nil {
			t.Errorf("#/%s leads nowhere", ref[1])
		}
	}
}
