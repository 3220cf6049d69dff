package groups_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/groups"
)

// model is contract section 7 for one user of two linked sources, written
// down as plainly as it can be: sets, and no short cuts.
type model struct {
	last    map[string]int             // minute of the newest statement, by source
	granted map[string]map[string]bool // groups by source
	byHand  map[string]bool
	control map[string]groups.Control // of every group
}

func (m *model) allowed(name string) bool { return strings.ToLower(name) == name }

func (m *model) signIn(source string, minute int, state string, values []string) {
	if last, known := m.last[source]; known && minute < last {
		return
	}
	m.last[source] = minute
	complete := state == "complete" || state == "absent" && source == "t" // t clears
	if state != "complete" {
		values = nil
	}
	for _, v := range values {
		if !m.allowed(v) {
			continue
		}
		if m.control[v] == "" {
			m.control[v] = groups.SSO
		}
		if m.control[v] == groups.SSO {
			m.granted[source][v] = true
		}
	}
	if !complete {
		return
	}
	maps.DeleteFunc(m.granted[source], func(g string, _ bool) bool { return !slices.Contains(values, g) })
	maps.DeleteFunc(m.byHand, func(g string, _ bool) bool {
		supported := slices.Contains(values, g) && !m.allowed(g) // else a grant holds it from now on
		return m.control[g] == groups.SSO && !supported
	})
}

func (m *model) setControl(group string, c groups.Control) {
	if c == groups.Manual && m.control[group] == groups.SSO {
		for _, of := range m.granted {
			if of[group] {
				m.byHand[group] = true
				delete(of, group)
			}
		}
	}
	m.control[group] = c
}

func (m *model) deleteGroup(group string) {
	delete(m.control, group)
	delete(m.byHand, group)
	for _, of := range m.granted {
		delete(of, group)
	}
}

func (m *model) show(prefix string) string {
	var out []string
	for _, g := range slices.Sorted(maps.Keys(m.control)) {
		var why []string
		for _, source := range []string{"s", "t"} {
			if m.granted[source][g] {
				why = append(why, source)
			}
		}
		if m.byHand[g] {
			why = append(why, "by root")
		}
		if len(why) > 0 {
			out = append(out, prefix+g+":"+strings.Join(why, "+"))
		}
	}
	return strings.Join(out, " ")
}

// TestSignInsFollowTheModel: any sequence of sign-ins of two sources and of
// what administrators do in between.
func TestSignInsFollowTheModel(t *testing.T) {
	t.Parallel()
	h := newHouse(t, linked, guarded(100), func(s *groups.Settings) { s.Sync.GroupNames = "[0-9]+-[a-z]" })
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		// A user and groups of its own, so that one directory serves all rounds.
		user, prefix := fmt.Sprintf("user%d", round), fmt.Sprintf("%d-", round)
		m := &model{
			last: map[string]int{}, byHand: map[string]bool{}, control: map[string]groups.Control{},
			granted: map[string]map[string]bool{"s": {}, "t": {}},
		}
		id := h.mustLogin("s", user, 0, groupsOf(user)).User.ID
		m.signIn("s", 0, "complete", nil)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			did := h.step(rt, m, user, prefix, id)
			if got, want := h.in(id), m.show(prefix); got != want {
				rt.Fatalf("%s: memberships %q, the model has %q", did, got, want)
			}
		}
	})
}

// step does one drawn thing to the directory and to the model.
func (h *house) step(rt *rapid.T, m *model, user, prefix string, id groups.UserID) string {
	ctx := h.t.Context()
	group := rapid.SampledFrom([]string{"a", "b", "c", "D"}).Draw(rt, "group")
	fail := func(did string, err error) {
		if err != nil {
			rt.Fatalf("%s: %v", did, err)
		}
	}
	switch what := rapid.IntRange(0, 9).Draw(rt, "what"); {
	case what == 0 && m.control[group] == "":
		c := rapid.SampledFrom([]groups.Control{groups.SSO, groups.Manual}).Draw(rt, "control")
		fail("create", h.dir.CreateGroups(ctx, []groups.Group{{Name: prefix + group, Control: c}}, "root"))
		m.control[group] = c
		return "create " + group
	case what <= 1 && m.control[group] != "":
		c := rapid.SampledFrom([]groups.Control{groups.SSO, groups.Manual}).Draw(rt, "control")
		_, err := h.dir.UpdateGroup(ctx, prefix+group, groups.GroupChange{Control: &c}, "root")
		fail("switch", err)
		m.setControl(group, c)
		return fmt.Sprintf("switch %s to %s", group, c)
	case what == 2 && m.control[group] == groups.Manual:
		fail("add", h.dir.AddMember(ctx, prefix+group, id, "root"))
		m.byHand[group] = true
		return "add to " + group
	case what == 3 && m.control[group] == groups.Manual:
		fail("remove", h.dir.RemoveMember(ctx, prefix+group, id, "root"))
		delete(m.byHand, group)
		return "remove from " + group
	case what == 4 && m.control[group] != "" && rapid.Bool().Draw(rt, "delete"):
		fail("delete", h.dir.DeleteGroup(ctx, prefix+group, "root"))
		m.deleteGroup(group)
		return "delete " + group
	}
	return h.stepSignIn(rt, m, user, prefix)
}

func (h *house) stepSignIn(rt *rapid.T, m *model, user, prefix string) string {
	source := rapid.SampledFrom([]string{"s", "t"}).Draw(rt, "source")
	minute := rapid.IntRange(0, 5).Draw(rt, "minute")
	state := rapid.SampledFrom([]string{"complete", "complete", "complete", "absent", "unknown"}).Draw(rt, "state")
	values := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "D"}), 0, 4, rapid.ID).Draw(rt, "values")
	var stated []string
	for _, v := range values {
		stated = append(stated, prefix+v)
	}
	js := map[string]string{
		"complete": groupsOf(user, stated...), "absent": fmt.Sprintf(`{"user":%q}`, user),
		"unknown": fmt.Sprintf(`{"user":%q,"groups":[%s,7]}`, user, strings.Join(append([]string{`"x"`}, quotedList(stated)...), ",")),
	}[state]
	did := fmt.Sprintf("%s at %d states %s %v", source, minute, state, values)
	in := identity(h.t, source, user, minute, js)
	var err error
	if rapid.Bool().Draw(rt, "session") {
		_, err = h.login(in)
	} else {
		_, err = h.dir.SignIn(h.t.Context(), groups.SignIn{Identity: in})
	}
	if err != nil {
		rt.Fatalf("%s: %v", did, err)
	}
	m.signIn(source, minute, state, values)
	return did
}

func quotedList(names []string) []string {
	var out []string
	for _, n := range names {
		out = append(out, fmt.Sprintf("%q", n))
	}
	return out
}
