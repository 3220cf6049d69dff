package admin

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/groupgate/groupgate/groups"
)

func (s *Server) groupPages() []consoleRoute {
	return []consoleRoute{
		{pattern: "/groups", make: s.groupsPage},
		{pattern: "/groups/{name}", make: s.groupPage},
	}
}

// groupsData is a page of the list of groups.
type groupsData struct {
	Query       string
	Control     groups.Control // that is asked for; empty: both
	ByMembers   bool
	Groups      []listedGroup
	First, Next string
}

// Filtered reports whether something was looked for.
func (d *groupsData) Filtered() bool { return d.Query != "" || d.Control != "" }

type listedGroup struct {
	groups.Group
	Changed time.Time
	Rules   int
}

// Sort is the query of the same list in an order.
func (d *groupsData) Sort(f *frame, by string) string {
	return f.With("query", d.Query, "control", string(d.Control), "sort", by)
}

const byMembers = "members" // of the parameter "sort"

// findGroups answers a page of the groups that are asked for, as the API and
// the console list them.
func (s *Server) findGroups(x *exchange) (*page, groups.GroupQuery, list[groups.Group], error) {
	none := list[groups.Group]{}
	p, by, err := x.sorted("groups", byMembers)
	if err != nil {
		return nil, groups.GroupQuery{}, none, err
	}
	q := groups.GroupQuery{
		Query: p.q.Get("query"), Control: groups.Control(p.q.Get("control")), ByMembers: by == byMembers, After: p.after, Limit: p.limit + 1,
	}
	if q.Control != "" && controlFaults(q.Control) != nil {
		return nil, q, none, badRequest("control is sso or manual.")
	}
	if q.ByMembers && p.after != "" {
		members, name, _ := strings.Cut(p.after, ":")
		if q.AfterMembers, err = strconv.Atoi(members); err != nil || name == "" {
			return nil, q, none, p.badCursor()
		}
		q.After = name
	}
	found, err := s.dir.Store().FindGroups(x.r.Context(), q)
	if err != nil {
		return nil, q, none, err
	}
	return p, q, cut(p, found, func(g groups.Group) string {
		if q.ByMembers {
			return strconv.Itoa(g.Members) + ":" + g.Name
		}
		return g.Name
	}), nil
}

func (s *Server) groupsPage(x *exchange) (*view, error) {
	p, q, here, err := s.findGroups(x)
	if err != nil {
		return nil, err
	}
	d := groupsData{Query: q.Query, Control: q.Control, ByMembers: q.ByMembers}
	if d.Groups, err = s.listedGroups(x, here.Items); err != nil {
		return nil, err
	}
	filters := []string{"query", "control", "sort"}
	if p.after != "" {
		d.First = p.address("", filters...)
	}
	if here.Next != "" {
		d.Next = p.address(here.Next, filters...)
	}
	return &view{template: "groups", title: "groups.title", section: "groups", data: &d}, nil
}

func (s *Server) listedGroups(x *exchange, found []groups.Group) ([]listedGroup, error) {
	names := make([]string, len(found))
	for i := range found {
		names[i] = found[i].Name
	}
	facts, err := s.dir.Store().GroupFacts(x.r.Context(), names)
	if err != nil {
		return nil, err
	}
	all := ruleIndexOf(s.dir.Rules())
	out := make([]listedGroup, len(found))
	for i, g := range found {
		f := facts[g.Name]
		out[i] = listedGroup{Group: g, Changed: lastChange(g, f), Rules: len(all.of(g.Name, f.Rules))}
	}
	return out, nil
}

// lastChange is when a group was made, for one that has no event.
func lastChange(g groups.Group, f groups.GroupFacts) time.Time {
	if f.Changed.IsZero() {
		return g.Created
	}
	return f.Changed
}

// ruleIndex finds rules by what they are asked for, in their order.
type ruleIndex struct {
	all     []groups.Rule
	byID    map[string]int
	byGroup map[string][]int
}

func ruleIndexOf(all []groups.Rule) *ruleIndex {
	out := &ruleIndex{all, make(map[string]int, len(all)), map[string][]int{}}
	for i, r := range all {
		out.byID[r.ID] = i
		if !r.Any && (r.Regexp == "" || !strings.Contains(r.Group, "$")) { // else the group depends on the value
			out.byGroup[r.Group] = append(out.byGroup[r.Group], i)
		}
	}
	return out
}

// of answers the rules that name a group, and those of granting that are in
// force: by these somebody is a member now.
func (x *ruleIndex) of(group string, granting []string) []groups.Rule {
	var out []groups.Rule
	in := map[int]bool{}
	add := func(i int) {
		if !in[i] {
			in[i] = true
			out = append(out, x.all[i])
		}
	}
	for _, i := range x.byGroup[group] {
		add(i)
	}
	for _, id := range granting {
		if i, there := x.byID[id]; there {
			add(i)
		}
	}
	return out
}

// groupData is the page of one group.
type groupData struct {
	groups.Group
	Tag         string // for If-Match
	Changed     time.Time
	Rules       []groups.Rule
	Default     bool // sync.default_groups grants it to somebody
	Query       string
	Listed      []listedMember
	First, Next string
	Events      []groupEvent
	MoreEvents  bool
}

// IsManual reports whether people decide who is a member.
func (d *groupData) IsManual() bool { return d.Control == groups.Manual }

type listedMember struct {
	groups.Member
	Why []memberReason
}

// memberReason is a grant, with the words for its rule.
type memberReason struct {
	groups.Grant
	Default bool   // not by a rule, but by sync.default_groups
	Place   string // FILE:LINE of a rule that the file owns
	Gone    bool   // the rule is not in force any more
}

// ruleDefault is what grants name for sync.default_groups.
const ruleDefault = "default"

func (s *Server) groupPage(x *exchange) (*view, error) {
	ctx, store, name := x.r.Context(), s.dir.Store(), x.args[0]
	g, err := s.group(x, name)
	if err != nil {
		return nil, err
	}
	facts, err := store.GroupFacts(ctx, []string{name})
	if err != nil {
		return nil, err
	}
	index, f := ruleIndexOf(s.dir.Rules()), facts[name]
	d := groupData{
		Group: *g, Tag: groupTag(g), Changed: lastChange(*g, f), Rules: index.of(name, f.Rules),
	}
	for _, id := range f.Rules {
		d.Default = d.Default || id == ruleDefault
	}
	p, here, err := s.findMembers(x, name)
	if err != nil {
		return nil, err
	}
	d.Query = p.q.Get("query")
	for _, m := range here.Items {
		d.Listed = append(d.Listed, listedMember{m, index.why(m.Membership.Grants)})
	}
	if p.after != "" {
		d.First = p.address("", "query")
	}
	if here.Next != "" {
		d.Next = p.address(here.Next, "query")
	}
	if d.Events, d.MoreEvents, err = s.historyOf(ctx, name); err != nil {
		return nil, err
	}
	return &view{template: "group", title: name, section: "groups", scripts: []string{"combo.js", "groups.js"}, data: &d}, nil
}

func (x *ruleIndex) why(grants []groups.Grant) []memberReason {
	out := make([]memberReason, len(grants))
	for i, g := range grants {
		out[i] = memberReason{Grant: g, Default: g.Rule == ruleDefault}
		if at, there := x.byID[g.Rule]; there {
			out[i].Place = x.all[at].Location
		} else {
			out[i].Gone = !out[i].Default
		}
	}
	return out
}

// RuleMatch is how a rule looks at values, and what it looks for.
func (f *frame) RuleMatch(r groups.Rule) [2]string {
	switch {
	case r.Any:
		return [2]string{f.T("groups.match.any"), ""}
	case r.DN != "":
		return [2]string{f.T("groups.match.dn"), r.DN}
	case r.Regexp != "":
		return [2]string{f.T("groups.match.regexp"), r.Regexp}
	}
	return [2]string{f.T("groups.match.value"), cmp.Or(r.Value, "–")}
}

// badge is a control in words.
type badge struct {
	Control groups.Control
	Text    string
}

// Badge is the mark of a control.
func (f *frame) Badge(c groups.Control) badge {
	if c == groups.SSO {
		return badge{c, f.T("common.sso")}
	}
	return badge{c, f.T("common.manual")}
}
