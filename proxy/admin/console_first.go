package admin

import (
	"fmt"
	"html"
	"html/template"
	"regexp"
	"strconv"
	"strings"
)

// The first steps of an administrator, with the demo. FIRST-MAPPING.md says the
// same in English; a test holds that, and another one follows it in a browser.

func (s *Server) helpPages() []consoleRoute {
	return []consoleRoute{{pattern: "/help/first-mapping", make: func(*exchange) (*view, error) {
		return &view{template: "first", title: "first.title", section: "help", data: firstSteps()}, nil
	}}}
}

// Help is the entry of the navigation that leads to them.
func (f *frame) Help() navItem {
	return navItem{f.Path("help", "first-mapping"), f.T("first.help"), f.Section == "help"}
}

// Kinds of parts of a step. Only "do" and "see" have a text.
const (
	partDo     = "do"
	partRun    = "run"
	partFields = "fields"
	partSee    = "see"
)

type firstStep struct {
	Number int
	Parts  []firstPart
}

type firstPart struct {
	Kind   string
	Key    string // of its text
	Run    string // a command
	Fields []firstField
}

type firstField struct{ Label, Value string } // Label is the key of a text

// firstSteps lists the parts of each step; texts are numbered within a step.
func firstSteps() []firstStep {
	shape := []struct {
		kinds  string
		run    string
		fields []firstField
	}{
		{kinds: "do run see do", run: "make demo"},
		{kinds: "do see"},
		{kinds: "do fields do see", fields: []firstField{{"login.token", "TOKEN"}}},
		{kinds: "do see"},
		{kinds: "do fields do see", fields: []firstField{{"rules.f_source", "Demo provider (demo)"}, {"rules.f_claim", "groups"}}},
		{kinds: "do fields see", fields: []firstField{{"rules.f_group", "wiki"}}},
		{kinds: "do see"},
		{kinds: "do see do see"},
		{kinds: "do see do see"},
		{kinds: "do see do see do see"},
		{kinds: "do"},
	}
	steps := make([]firstStep, len(shape))
	for i, sh := range shape {
		steps[i].Number = i + 1
		texts := 0
		for kind := range strings.FieldsSeq(sh.kinds) {
			p := firstPart{Kind: kind, Run: sh.run, Fields: sh.fields}
			if kind == partDo || kind == partSee {
				texts++
				p.Key = "first." + strconv.Itoa(i+1) + "." + strconv.Itoa(texts)
			}
			steps[i].Parts = append(steps[i].Parts, p)
		}
	}
	return steps
}

// Title is the heading of a step.
func (s firstStep) Title(f *frame) string {
	return fmt.Sprintf("%d. %s", s.Number, f.T("first."+strconv.Itoa(s.Number)+".title"))
}

var (
	otherText = regexp.MustCompile(`\{([a-z._]+)((?: [^ {}]+)*)\}`)
	bold      = regexp.MustCompile(`\*\*(.+?)\*\*`)
	inCode    = regexp.MustCompile("`(.+?)`")
)

// Marked is a text with **bold** words and `code`. {key} in it is the text of
// that key, as the console shows it, and {key a b} the same with values: so that
// no language names a button by other words than those that stand on it.
func (f *frame) Marked(key string) template.HTML {
	text := otherText.ReplaceAllStringFunc(f.T(key), func(found string) string {
		m := otherText.FindStringSubmatch(found)
		var values []any
		for v := range strings.FieldsSeq(m[2]) {
			values = append(values, v)
		}
		return f.T(m[1], values...)
	})
	text = bold.ReplaceAllString(html.EscapeString(text), "<b>$1</b>")
	return trusted(inCode.ReplaceAllString(text, "<code>$1</code>"))
}
