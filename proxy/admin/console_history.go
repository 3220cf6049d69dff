package admin

import (
	"context"
	"errors"
	"slices"

	"github.com/groupgate/groupgate/groups"
)

// groupHistory is how many events a group's page shows, maxNames how many of
// its names it goes back through.
const (
	groupHistory = 20
	maxNames     = 20
)

// groupEvent is an event as a group's history shows it.
type groupEvent struct {
	groups.Event
	Gained, Lost bool   // a sync gave the person the group, or took it
	Then         string // what the group was called, when that was another name
}

// historyOf lists a group's latest events, and says whether there are more. An
// event names the group as it was called then: behind the event by which it got
// its name, the history goes on with those of the name before. Not behind a
// deletion: before that, the name was another group's.
func (s *Server) historyOf(ctx context.Context, name string) (out []groupEvent, more bool, err error) {
	store, called, before := s.dir.Store(), name, int64(0)
	for range maxNames {
		renamed, err := store.RenamedTo(ctx, called, before)
		if err != nil && !errors.Is(err, groups.ErrNotFound) {
			return nil, false, err
		}
		found, err := store.Events(ctx, groups.EventQuery{Group: called, Before: before, Limit: groupHistory + 1 - len(out)})
		if err != nil {
			return nil, false, err
		}
		if renamed != nil {
			if at := slices.IndexFunc(found, func(e groups.Event) bool { return e.Kind == groups.EventGroupDeleted }); at >= 0 && found[at].ID > renamed.ID {
				renamed = nil
			}
		}
		for _, e := range found {
			if renamed == nil || e.ID >= renamed.ID {
				out = append(out, groupEventOf(e, called, name))
			}
		}
		old, known := "", false
		if renamed != nil {
			old, known = groups.RenamedFrom(renamed)
		}
		if len(out) > groupHistory || !known {
			break
		}
		called, before = old, renamed.ID
	}
	return out[:min(len(out), groupHistory)], len(out) > groupHistory, nil
}

func groupEventOf(e groups.Event, called, name string) groupEvent {
	out := groupEvent{Event: e}
	if called != name {
		out.Then = called
	}
	if e.Change != nil {
		out.Gained, out.Lost = slices.Contains(e.Change.Added, called), slices.Contains(e.Change.Removed, called)
	}
	return out
}

// GroupEvent says what an event was, in words; one without words is its kind.
func (f *frame) GroupEvent(e groupEvent) string {
	key := "groups.event." + e.Kind
	switch {
	case e.Gained:
		key += ".gained"
	case e.Lost:
		key += ".lost"
	}
	if !f.Lang.has(key) {
		return e.Kind
	}
	return f.T(key)
}
