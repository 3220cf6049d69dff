package admin

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/groupgate/groupgate/groups"
)

func (s *Server) rulePages() []consoleRoute {
	return []consoleRoute{{pattern: "/rules", make: s.rulesPage}}
}

// rulesData is the page of all rules, or of those of one group.
type rulesData struct {
	Group, Query, Source string // what is asked for
	Sources              []SourceStatus
	Rows                 []ruleRow
	Filtered             bool // there may be rules that are not wanted here
	SyncOff              bool
	First, Next          string
	Asked                ruleDraft // what the address wants the dialog to begin with
}

// ruleRow is one rule as the table shows it.
type ruleRow struct {
	rule
	// Match is how values are compared: exact, dn, regexp or any.
	Match string
	Text  string // what they are compared with
	// Fixed: the group is the one that is written, and not made of the value.
	Fixed bool
	Raw   string // the rule for the script, as the API shows it
}

// ruleDraft opens the dialog by an address: "make a rule of it".
type ruleDraft struct {
	New                         bool
	Source, Claim, Value, Group string
}

func (s *Server) rulesPage(x *exchange) (*view, error) {
	p, err := x.page("rule table")
	if err != nil {
		return nil, err
	}
	d := rulesData{Group: p.q.Get("group"), Query: p.q.Get("query"), Source: p.q.Get("source"), SyncOff: !s.dir.SyncEnabled()}
	for _, src := range s.sources() {
		if src.Kind != "local" { // no rule grants a local user anything
			src.Label = cmp.Or(src.Label, src.Name)
			d.Sources = append(d.Sources, src)
		}
	}
	if p.q.Has("new") {
		d.Asked = ruleDraft{true, p.q.Get("source"), p.q.Get("claim"), p.q.Get("value"), d.Group}
		d.Source = "" // of the draft, not of the table
	}
	d.Filtered = d.Query != "" || d.Source != ""
	found := tableOf(p, s.dir.Rules(), d.wants)
	d.Rows = make([]ruleRow, len(found.Items))
	for i, r := range found.Items {
		if d.Rows[i], err = rowOf(r); err != nil {
			return nil, err
		}
	}
	here := func(after string) string {
		return (&frame{}).With("group", d.Group, "query", d.Query, "source", d.Source, "limit", p.q.Get("limit"), "after", after)
	}
	if p.after != "" {
		d.First = here("")
	}
	if found.Next != "" {
		d.Next = here(found.Next)
	}
	return &view{template: "rules", title: "rules.title", section: "rules", scripts: []string{"combo.js", "rules.js"}, data: d}, nil
}

// tableOf is a page of the wanted rules by group. The cursor is what they are
// ordered by: rules come and go.
func tableOf(p *page, all []groups.Rule, wanted func(*groups.Rule) bool) list[groups.Rule] {
	key := func(r groups.Rule) string { return strings.Join([]string{r.Group, r.Source, r.Claim, r.ID}, "\x1f") }
	var rest []groups.Rule
	for i := range all {
		if wanted(&all[i]) && (p.after == "" || key(all[i]) > p.after) {
			rest = append(rest, all[i])
		}
	}
	slices.SortFunc(rest, func(a, b groups.Rule) int { return cmp.Compare(key(a), key(b)) })
	return cut(p, rest[:min(len(rest), p.limit+1)], key)
}

func rowOf(r groups.Rule) (ruleRow, error) {
	row := ruleRow{rule: ruleOf(r), Match: "exact", Text: r.Value, Fixed: !r.Any && !madeOfValue(&r)}
	switch {
	case r.Any:
		row.Match, row.Text = "any", ""
	case r.DN != "":
		row.Match, row.Text = "dn", r.DN
	case r.Regexp != "":
		row.Match, row.Text = "regexp", r.Regexp
	}
	raw, err := json.Marshal(row.rule)
	row.Raw = string(raw)
	return row, err
}

// madeOfValue reports whether the group's name is a template.
func madeOfValue(r *groups.Rule) bool { return r.Regexp != "" && strings.Contains(r.Group, "$") }

// wants reports whether a rule belongs into the table.
func (d *rulesData) wants(r *groups.Rule) bool {
	if d.Source != "" && r.Source != "" && r.Source != d.Source || d.Group != "" && !mayGrant(r, d.Group) {
		return false
	}
	query := strings.ToLower(d.Query)
	for _, text := range []string{r.Group, r.Source, r.Claim, r.Value, r.DN, r.Regexp, r.When, r.ID, r.Location} {
		if strings.Contains(strings.ToLower(text), query) {
			return true
		}
	}
	return false
}

// mayGrant reports whether a rule can put people into a group: it names the
// group, or makes names of values and none of them is ruled out.
func mayGrant(r *groups.Rule, group string) bool {
	if r.Any || r.Group == group {
		return true
	}
	before, _, _ := strings.Cut(r.Group, "$")
	return madeOfValue(r) && strings.HasPrefix(group, before)
}
