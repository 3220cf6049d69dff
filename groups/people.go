package groups

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// What an administrator does, by the API or the console. Every act is one
// transaction with its audit event, and reaches live sessions at once.

// act runs fn in one transaction with its audit event. fn may fill the event
// in.
func (d *Directory) act(ctx context.Context, e Event, fn func(Tx, *Event) error) error {
	e.At = d.now()
	var done Event
	err := d.store.Update(ctx, func(tx Tx) error {
		done = e
		if err := fn(tx, &done); err != nil {
			return err
		}
		if done.Kind == "" {
			return nil // nothing happened
		}
		return tx.AddEvents(ctx, done)
	})
	if err == nil && done.Kind != "" {
		d.written([]Event{done})
	}
	return err
}

// CheckGroupName says why a group may not have a name.
func (d *Directory) CheckGroupName(name string) error {
	p := d.state.Load().policy
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxNameBytes:
		return fmt.Errorf("the name is longer than %d bytes", maxNameBytes)
	case !p.Allows(name):
		return fmt.Errorf("the name does not fit sync.group_names %q", d.state.Load().settings.Sync.GroupNames)
	}
	return nil
}

// CreateGroups makes groups that do not exist. A name that does is
// ErrConflict, and then none is made.
func (d *Directory) CreateGroups(ctx context.Context, groups []Group, actor string) error {
	names := make([]string, len(groups))
	for i := range groups {
		names[i] = groups[i].Name
		if groups[i].Created.IsZero() {
			groups[i].Created = d.now()
		}
	}
	var events []Event
	err := d.store.Update(ctx, func(tx Tx) error {
		events = nil
		have, err := tx.Controls(ctx, names)
		if err != nil {
			return err
		}
		for _, g := range groups {
			if _, exists := have[g.Name]; exists {
				return fmt.Errorf("group %q: %w", g.Name, ErrConflict)
			}
			events = append(events, Event{Kind: EventGroupCreated, At: d.now(), Group: g.Name, Actor: actor, Reason: "control " + string(g.Control)})
		}
		if err := tx.CreateGroups(ctx, groups); err != nil {
			return err
		}
		return tx.AddEvents(ctx, events...)
	})
	if err == nil {
		d.written(events)
	}
	return err
}

// GroupChange is what to change of a group; nil fields stay.
type GroupChange struct {
	Name        *string
	Control     *Control
	Description *string
	// If is asked about the group as it is when nobody else writes; its error is
	// the answer, and nothing is changed.
	If func(*Group) error
}

// UpdateGroup changes a group and answers it as it is then. A switch to
// manual keeps today's members as manual ones; a switch to SSO keeps them
// until each one's next complete sync.
func (d *Directory) UpdateGroup(ctx context.Context, name string, c GroupChange, actor string) (*Group, error) {
	var out Group
	err := d.act(ctx, Event{Kind: EventGroupChanged, Group: name, Actor: actor}, func(tx Tx, e *Event) error {
		g, err := tx.Group(ctx, name)
		if err != nil {
			return err
		}
		if c.If != nil {
			if err := c.If(g); err != nil {
				return err
			}
		}
		old := *g
		if c.Name != nil {
			g.Name = *c.Name
		}
		if c.Control != nil {
			g.Control = *c.Control
		}
		if c.Description != nil {
			g.Description = *c.Description
		}
		out = *g
		if *g == old {
			e.Kind = ""
			return nil
		}
		e.Group = g.Name
		e.Reason = describeGroupChange(old, *g)
		if err := tx.UpdateGroup(ctx, name, *g, actor); err != nil {
			return err
		}
		if g.Name != name {
			if err := d.state.Load().tellOfGroup(ctx, tx, g.Name, e.At); err != nil {
				return err
			}
		}
		return tx.Notify(ctx, Notice{})
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// RenamedReason is how the reason of an event begins by which a group got
// another name.
const RenamedReason = "renamed from "

// RenamedFrom is the name that a group had before such an event.
func RenamedFrom(e *Event) (name string, ok bool) {
	quoted, ok := strings.CutPrefix(e.Reason, RenamedReason)
	if !ok || e.Kind != EventGroupChanged {
		return "", false
	}
	name, err := strconv.Unquote(quoted)
	return name, err == nil
}

func describeGroupChange(old, g Group) string {
	switch {
	case old.Name != g.Name:
		return RenamedReason + strconv.Quote(old.Name)
	case old.Control != g.Control:
		return fmt.Sprintf("control %s, was %s", g.Control, old.Control)
	default:
		return "described"
	}
}

// DeleteGroup takes a group and its memberships away. Each of only is asked
// about the group as GroupChange.If is.
func (d *Directory) DeleteGroup(ctx context.Context, name, actor string, only ...func(*Group) error) error {
	return d.act(ctx, Event{Kind: EventGroupDeleted, Group: name, Actor: actor}, func(tx Tx, e *Event) error {
		for _, fn := range only {
			g, err := tx.Group(ctx, name)
			if err != nil {
				return err
			}
			if err := fn(g); err != nil {
				return err
			}
		}
		if err := d.state.Load().tellOfGroup(ctx, tx, name, e.At); err != nil {
			return err
		}
		if err := tx.DeleteGroup(ctx, name); err != nil {
			return err
		}
		return tx.Notify(ctx, Notice{})
	})
}

// AddMember puts a user into a group by hand. A group that SSO controls is
// ErrControlled. A user who is a member already stays one.
func (d *Directory) AddMember(ctx context.Context, group string, user UserID, actor string) error {
	return d.member(ctx, EventMemberAdded, group, user, actor, func(tx Tx) error {
		return tx.AddManual(ctx, []UserID{user}, group, actor, d.now())
	})
}

// RemoveMember takes a manual membership away. A user who is no member is not
// an error.
func (d *Directory) RemoveMember(ctx context.Context, group string, user UserID, actor string) error {
	return d.member(ctx, EventMemberGone, group, user, actor, func(tx Tx) error {
		return tx.DropManual(ctx, user, []string{group})
	})
}

func (d *Directory) member(ctx context.Context, kind, group string, user UserID, actor string, write func(Tx) error) error {
	return d.act(ctx, Event{Kind: kind, Group: group, User: user, Actor: actor}, func(tx Tx, e *Event) error {
		u, err := tx.User(ctx, user)
		if err != nil {
			return fmt.Errorf("user %s: %w", user, err)
		}
		e.Name = u.Name
		g, err := tx.Group(ctx, group)
		if err != nil {
			return fmt.Errorf("group %q: %w", group, err)
		}
		if g.Control == SSO {
			return fmt.Errorf("group %q: %w", group, ErrControlled)
		}
		have, err := tx.GroupNames(ctx, user)
		if err != nil {
			return err
		}
		if slices.Contains(have, group) == (kind == EventMemberAdded) {
			e.Kind = ""
			return nil
		}
		if err := write(tx); err != nil {
			return err
		}
		return d.changed(ctx, tx, user, e)
	})
}

// changed is what every change of manual memberships needs beside itself.
func (d *Directory) changed(ctx context.Context, tx Tx, user UserID, e *Event) error {
	if err := tx.ClearFingerprints(ctx, user); err != nil {
		return err
	}
	c := &Change{Added: []string{e.Group}}
	if e.Kind == EventMemberGone {
		c = &Change{Removed: []string{e.Group}}
	}
	if err := d.state.Load().tellTargets(ctx, tx, user, c, e.At); err != nil {
		return err
	}
	return tx.Notify(ctx, Notice{User: user})
}

// AddMembers puts many users into a manual group, all or nothing. It answers
// how many were not members before.
func (d *Directory) AddMembers(ctx context.Context, group string, users []UserID, actor string) (added int, err error) {
	err = d.act(ctx, Event{Kind: EventImported, Group: group, Actor: actor}, func(tx Tx, e *Event) error {
		added = 0
		g, err := tx.Group(ctx, group)
		if err != nil {
			return fmt.Errorf("group %q: %w", group, err)
		}
		if g.Control == SSO {
			return fmt.Errorf("group %q: %w", group, ErrControlled)
		}
		if err := tx.AddManual(ctx, users, group, actor, d.now()); err != nil {
			return err
		}
		after, err := tx.Group(ctx, group)
		if err != nil {
			return err
		}
		added = after.Members - g.Members
		e.Reason = fmt.Sprintf("%d lines, %d new members", len(users), added)
		for _, u := range users {
			member := Event{Kind: EventMemberAdded, Group: group, At: e.At}
			if err := d.changed(ctx, tx, u, &member); err != nil {
				return err
			}
		}
		return nil
	})
	return added, err
}

// PutRule creates or changes a rule of the store, and evaluates everybody. A
// rule of the file is ErrConflict. The error is a [*RuleError] (joined) when
// the rule itself is wrong.
func (d *Directory) PutRule(ctx context.Context, r Rule, actor string) (*Rule, error) {
	// Alone first: what is wrong with other rules is not this one's fault.
	if _, err := Compile([]Rule{r}); err != nil {
		return nil, err
	}
	if err := d.state.Load().checkSource(r.Source); err != nil {
		return nil, err
	}
	err := d.changeRules(ctx, func(stored []Rule) ([]Rule, error) {
		i := slices.IndexFunc(stored, func(o Rule) bool { return o.ID == r.ID })
		if i < 0 {
			return append(stored, r), nil
		}
		stored[i] = r
		return stored, nil
	}, Event{Kind: EventRuleChanged, Actor: actor, Group: r.Group, Reason: r.ID + ": " + r.Describe()}, r.ID,
		func(tx Tx) error { return tx.PutRule(ctx, r) })
	if err != nil {
		return nil, err
	}
	for _, o := range d.Rules() {
		if o.ID == r.ID {
			return &o, nil
		}
	}
	return nil, ErrNotFound
}

// checkSource looks at the source of a rule; "" is any.
func (st *state) checkSource(name string) error {
	if name == "" {
		return nil
	}
	switch src := st.sources[name]; {
	case src == nil:
		return &RuleError{0, "source", fmt.Errorf("there is no source %q", name)}
	case src.Local != nil:
		return &RuleError{0, "source", fmt.Errorf("%q has local users, whose groups no rule grants", name)}
	}
	return nil
}

// DeleteRule takes a rule of the store away, and evaluates everybody. A rule
// of the file is ErrConflict, and so is one whose version is another than that
// given, unless it is 0.
func (d *Directory) DeleteRule(ctx context.Context, id string, version int64, actor string) error {
	return d.changeRules(ctx, func(stored []Rule) ([]Rule, error) {
		return slices.DeleteFunc(stored, func(o Rule) bool { return o.ID == id }), nil
	}, Event{Kind: EventRuleDeleted, Actor: actor, Reason: id}, id,
		func(tx Tx) error {
			stored, err := tx.Rules(ctx)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(stored, func(r Rule) bool { return r.ID == id && version != 0 && r.Version != version }) {
				return fmt.Errorf("rule %s was changed meanwhile: %w", id, ErrConflict)
			}
			return tx.DeleteRule(ctx, id)
		})
}

func (d *Directory) changeRules(ctx context.Context, next func([]Rule) ([]Rule, error), e Event, id string, write func(Tx) error) error {
	d.evaluating.Lock()
	defer d.evaluating.Unlock()
	st := d.state.Load()
	for _, r := range st.settings.Rules {
		if r.ID == id {
			return fmt.Errorf("rule %s belongs to the file (%s): %w", id, r.Location, ErrConflict)
		}
	}
	stored, err := d.store.Rules(ctx)
	if err != nil {
		return err
	}
	if stored, err = next(stored); err != nil {
		return err
	}
	if _, err := compileState(st.settings, stored); err != nil {
		return err
	}
	if err := d.act(ctx, e, func(tx Tx, _ *Event) error {
		if err := write(tx); err != nil {
			return err
		}
		return moveRules(ctx, tx, d.now())
	}); err != nil {
		return err
	}
	fresh, err := d.compile(ctx, st.settings)
	if err != nil {
		return err
	}
	if err := d.adopt(ctx, fresh); !errors.Is(err, errRulesMoved) {
		return err
	}
	// Another replica changed rules after this one, and evaluates by both.
	return d.takeRulesIn(ctx)
}
