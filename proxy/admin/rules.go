package admin

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/groupgate/groupgate/groups"
)

// rule is a rule as the API shows and takes it.
type rule struct {
	ID string `json:"id"`
	// Owner is "file" of a rule that the configuration holds, "store" of one
	// that was made here.
	Owner    string `json:"owner"`
	Location string `json:"location,omitempty"`
	Version  int64  `json:"version,omitempty"`
	Source   string `json:"source,omitempty"`
	Claim    string `json:"claim"`
	Value    string `json:"value,omitempty"`
	DN       string `json:"dn,omitempty"`
	Regexp   string `json:"regexp,omitempty"`
	Any      bool   `json:"any,omitempty"`
	Split    string `json:"split,omitempty"`
	When     string `json:"when,omitempty"`
	Group    string `json:"group,omitempty"`
}

const (
	ownerFile  = "file"
	ownerStore = "store"
)

func ruleOf(r groups.Rule) rule {
	out := rule{
		ID: r.ID, Owner: ownerStore, Location: r.Location, Version: r.Version, Source: r.Source, Claim: r.Claim,
		Value: r.Value, DN: r.DN, Regexp: r.Regexp, Any: r.Any, Split: r.Split, When: r.When, Group: r.Group,
	}
	if r.Location != "" {
		out.Owner = ownerFile
	}
	return out
}

func (r *rule) rule() groups.Rule {
	return groups.Rule{
		ID: r.ID, Source: r.Source, Claim: r.Claim, Value: r.Value, DN: r.DN, Regexp: r.Regexp,
		Any: r.Any, Split: r.Split, When: r.When, Group: r.Group,
	}
}

// A rule may be sent back as it was received; what the API says of it then
// has to be true still.
func (r *rule) readOnly(id string) []Fault {
	var out []Fault
	if r.ID != "" && r.ID != id {
		out = append(out, Fault{"id", "the id of a rule cannot be chosen or changed here"})
	}
	if r.Owner != "" && r.Owner != ownerStore || r.Location != "" {
		out = append(out, Fault{"owner", "a rule of the file is changed in the file"})
	}
	return out
}

// listRules answers the rules in force, the file's first. The cursor is a
// place in the file, or the id of a stored rule: those come and go.
func (s *Server) listRules(x *exchange) error {
	p, err := x.page("rules")
	if err != nil {
		return err
	}
	all := s.dir.Rules()
	stored := slices.IndexFunc(all, func(r groups.Rule) bool { return r.Location == "" })
	if stored < 0 {
		stored = len(all)
	}
	from, err := ruleCursor(p, all, stored)
	if err != nil {
		return err
	}
	type placed struct {
		groups.Rule
		at int
	}
	var rest []placed
	for i := from; i < len(all) && len(rest) <= p.limit; i++ {
		rest = append(rest, placed{all[i], i})
	}
	out := cut(p, rest, func(r placed) string {
		if r.at < stored {
			return "f" + strconv.Itoa(r.at)
		}
		return "s" + r.ID
	})
	return x.ok(each(out, func(r placed) rule { return ruleOf(r.Rule) }))
}

// ruleCursor answers where in all the page begins.
func ruleCursor(p *page, all []groups.Rule, stored int) (int, error) {
	if p.after == "" {
		return 0, nil
	}
	kind, at := p.after[:1], p.after[1:]
	switch kind {
	case "f":
		i, err := strconv.Atoi(at)
		if err != nil || i < 0 {
			return 0, p.badCursor()
		}
		return min(i+1, stored), nil
	case "s":
		i, found := slices.BinarySearchFunc(all[stored:], at, func(r groups.Rule, id string) int { return cmp.Compare(r.ID, id) })
		if found {
			i++
		}
		return stored + i, nil
	}
	return 0, p.badCursor()
}

func (s *Server) createRule(x *exchange) error {
	var in rule
	if err := x.decode(&in, maxBody); err != nil {
		return err
	}
	if faults := in.readOnly(""); faults != nil {
		return invalid(faults...)
	}
	in.ID = "r-" + strings.ToLower(rand.Text()[:16])
	s.ruleWrites.Lock()
	defer s.ruleWrites.Unlock()
	r, err := s.writeRule(x, in.rule())
	if err != nil {
		return err
	}
	return x.created(apiPrefix+"rules/"+r.ID, ruleOf(*r))
}

func (s *Server) writeRule(x *exchange, in groups.Rule) (*groups.Rule, error) {
	if err := s.rulesKeepPeople(x, in.ID, &in); err != nil {
		return nil, err
	}
	// A client that hangs up must not leave half of the people evaluated.
	r, err := s.dir.PutRule(context.WithoutCancel(x.r.Context()), in, x.from.actor)
	if err != nil {
		return nil, err
	}
	x.Header().Set("ETag", ruleTag(r.Version))
	return r, nil
}

func ruleTag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

var ruleID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// checkRuleID keeps ids apart from those of the file's rules and from the
// word that stands for default groups.
func checkRuleID(id string) error {
	switch {
	case !ruleID.MatchString(id):
		return invalid(Fault{"id", "an id has up to 64 letters, digits, '.', '_' and '-', and begins with a letter or digit"})
	case id == "default" || strings.HasPrefix(id, "f-"):
		return invalid(Fault{"id", `the id "default" and those that begin with "f-" are not for rules made here`})
	}
	return nil
}

// ruleInForce finds a rule; one of the file is refused.
func (s *Server) ruleInForce(id string) (*groups.Rule, error) {
	for _, r := range s.dir.Rules() {
		if r.ID != id {
			continue
		}
		if r.Location != "" {
			return nil, conflict("The rule %q belongs to the file (%s): change it there.", id, r.Location)
		}
		return &r, nil
	}
	return nil, nil
}

func (s *Server) putRule(x *exchange) error {
	var in rule
	if err := x.decode(&in, maxBody); err != nil {
		return err
	}
	id := x.args[0]
	s.ruleWrites.Lock()
	defer s.ruleWrites.Unlock()
	old, err := s.ruleInForce(id)
	if err != nil {
		return err
	}
	etag := ""
	if old != nil {
		etag = ruleTag(old.Version)
	} else if err := checkRuleID(id); err != nil {
		return err
	}
	if err := x.precondition(etag); err != nil {
		return err
	}
	if faults := in.readOnly(id); faults != nil {
		return invalid(faults...)
	}
	if in.Version != 0 && (old == nil || in.Version != old.Version) {
		return conflict("The rule %q was changed meanwhile, or is not there: its version is another.", id)
	}
	write := in.rule()
	if write.ID = id; old != nil && (in.Version != 0 || x.r.Header.Get("If-Match") != "") {
		write.Version = old.Version // the store looks again, for writers beside this API
	}
	r, err := s.writeRule(x, write)
	if err != nil {
		return err
	}
	if old == nil {
		return x.created(apiPrefix+"rules/"+segmentOf(id), ruleOf(*r))
	}
	return x.ok(ruleOf(*r))
}

func (s *Server) deleteRule(x *exchange) error {
	s.ruleWrites.Lock()
	defer s.ruleWrites.Unlock()
	id := x.args[0]
	old, err := s.ruleInForce(id)
	if err != nil {
		return err
	}
	etag := ""
	if old != nil {
		etag = ruleTag(old.Version)
	}
	if err := x.precondition(etag); err != nil {
		return err
	}
	if old != nil {
		if err := s.rulesKeepPeople(x, id, nil); err != nil {
			return err
		}
		version := int64(0)
		if x.r.Header.Get("If-Match") != "" {
			version = old.Version // the store looks again, for writers beside this API
		}
		err = s.dir.DeleteRule(context.WithoutCancel(x.r.Context()), id, version, x.from.actor)
		if err != nil && !errors.Is(err, groups.ErrNotFound) {
			return err
		}
	}
	return x.done()
}

// planAnswer is a plan with no more people than were asked for.
type planAnswer struct {
	*groups.Plan
	Changed int           `json:"changed_users"` // how many people gain or lose a group
	Skipped []plannedSkip `json:"skipped"`
}

// plannedSkip is how many people would not get a rule's group, and why.
type plannedSkip struct {
	Rule   string `json:"rule"`
	Group  string `json:"group"`
	Reason string `json:"reason"`
	People int    `json:"people"`
}

// plan says what would change. Its rules are all of the store's as they would
// be; without them, today's.
func (s *Server) plan(x *exchange) error {
	var in struct {
		Rules *[]rule `json:"rules"`
		Limit *int    `json:"limit"`
	}
	if err := x.decode(&in, maxPlan); err != nil {
		return err
	}
	if in.Limit != nil && *in.Limit < 0 {
		return invalid(Fault{"limit", "less than 0"})
	}
	ctx := x.r.Context()
	var stored []groups.Rule
	if in.Rules == nil {
		var err error
		if stored, err = s.dir.Store().Rules(ctx); err != nil {
			return err
		}
	} else {
		var faults []Fault
		if stored, faults = s.planned(*in.Rules); faults != nil {
			return invalid(faults...)
		}
	}
	p, err := s.dir.PlanRules(ctx, stored)
	if faults := s.planFaults(err); faults != nil {
		return invalid(faults...)
	}
	if err != nil {
		return err
	}
	return x.ok(answerPlan(p, in.Limit))
}

func answerPlan(p *groups.Plan, limit *int) planAnswer {
	out := planAnswer{Plan: p, Skipped: []plannedSkip{}}
	people := map[plannedSkip]int{}
	for i := range p.Users {
		if changes(&p.Users[i]) {
			out.Changed++
		}
		own := map[plannedSkip]bool{} // two values may ask for one group
		for _, skip := range p.Users[i].Skipped {
			own[plannedSkip{Rule: skip.Rule, Group: skip.Group, Reason: skip.Reason}] = true
		}
		for skip := range own {
			people[skip]++
		}
	}
	for skip, n := range people {
		skip.People = n
		out.Skipped = append(out.Skipped, skip)
	}
	slices.SortFunc(out.Skipped, func(a, b plannedSkip) int {
		return cmp.Or(cmp.Compare(b.People, a.People), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Reason, b.Reason))
	})
	if limit != nil {
		slices.SortStableFunc(p.Users, func(a, b groups.PlannedUser) int {
			if changes(&a) == changes(&b) {
				return 0
			}
			return map[bool]int{true: -1, false: 1}[changes(&a)]
		})
		p.Users = p.Users[:min(*limit, len(p.Users))]
	}
	return out
}

func changes(u *groups.PlannedUser) bool { return len(u.Added)+len(u.Removed) > 0 }

// planned reads a set of rules. A rule without an id is one that PUT or POST
// would make; two rules never share one, or their grants would be the same.
func (s *Server) planned(in []rule) ([]groups.Rule, []Fault) {
	out := make([]groups.Rule, len(in))
	var faults []Fault
	known, seen := s.sourceNames(), map[string]int{}
	for i := range in {
		at := fmt.Sprintf("rules[%d].", i)
		r := in[i].rule()
		if in[i].Owner == ownerFile || in[i].Location != "" {
			faults = append(faults, Fault{at + "owner", "the file's rules stay as they are: leave them out"})
		}
		if r.Source != "" && known != nil && !known[r.Source] {
			faults = append(faults, Fault{at + "source", fmt.Sprintf("there is no source %q", r.Source)})
		}
		if r.ID == "" {
			r.ID = "new-" + strconv.Itoa(i)
		}
		if first, twice := seen[r.ID]; twice {
			faults = append(faults, Fault{at + "id", fmt.Sprintf("the same as of rules[%d]", first)})
		}
		seen[r.ID] = i
		out[i] = r
	}
	return out, faults
}

// planFaults counts from the first given rule; in the compiled list the
// file's come first.
func (s *Server) planFaults(err error) []Fault {
	faults := ruleErrors(err)
	if faults == nil {
		return nil
	}
	file := 0
	for _, r := range s.dir.Rules() {
		if r.Location != "" {
			file++
		}
	}
	out := make([]Fault, len(faults))
	for i, f := range faults {
		out[i] = Fault{fmt.Sprintf("rules[%d].%s", f.Index-file, f.Key), f.Err.Error()}
	}
	return out
}
