package groups

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/groupgate/groupgate/claims"
)

// RuleMatch is whom a rule would match, by last-seen claims.
type RuleMatch struct {
	People int       `json:"people"`
	Known  int       `json:"known_users"` // people that were looked at
	Items  []Matched `json:"items"`       // the first of them
	// Complete is false when the time was over before everybody was looked at.
	Complete bool `json:"complete"`
}

// Matched is one person, and the first value that the rule matched.
type Matched struct {
	ID     UserID `json:"id"`
	User   string `json:"user"`
	Source string `json:"source"`
	Value  string `json:"value"`
	Group  string `json:"group,omitempty"`
}

var errEnough = errors.New("the time is over")

// MatchRule looks for the people whom a rule would match, for no longer than
// bound. The rule may lack its group: then it says who alone. The error is a
// [*RuleError] (joined) when the rule is wrong.
func (d *Directory) MatchRule(ctx context.Context, r Rule, limit int, bound time.Duration) (*RuleMatch, error) {
	r.ID = "match"
	named := r.Group != "" || r.Any
	if !named {
		r.Group = "x"
	}
	rules, err := Compile([]Rule{r})
	if err != nil {
		return nil, err
	}
	st := d.state.Load()
	if err := st.checkSource(r.Source); err != nil {
		return nil, err
	}
	hint, err := r.hint()
	if err != nil {
		return nil, err
	}
	out := &RuleMatch{Items: []Matched{}, Complete: true}
	begin := time.Now()
	var looked, counted UserID
	err = d.store.EachIdentity(ctx, func(rec *IdentityRecord) error {
		src := st.sources[rec.Source]
		if src == nil || src.Local != nil || rec.gone() || r.Source != "" && rec.Source != r.Source {
			return nil
		}
		if rec.User != looked {
			looked = rec.User
			out.Known++
			if out.Known%64 == 0 && time.Since(begin) > bound {
				return errEnough
			}
		}
		raw, err := rec.Claims.MarshalJSON()
		if err != nil || rec.User == counted || !bytes.Contains(raw, hint) {
			return err
		}
		w := rules.Apply(rec.identity(), SourcePolicy{Source: src.Name, WhenAbsent: src.Groups.WhenAbsent})
		if len(w.Grants) == 0 {
			return nil
		}
		counted = rec.User
		out.People++
		if g := w.Grants[0]; len(out.Items) < limit {
			m := Matched{ID: rec.User, Source: rec.Source, Value: g.Value, Group: g.Group}
			if !named {
				m.Group = ""
			}
			out.Items = append(out.Items, m)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		out.Complete, err = false, nil
	}
	for i := 0; err == nil && i < len(out.Items); i++ {
		var u *User
		if u, err = d.store.User(ctx, out.Items[i].ID); err == nil {
			out.Items[i].User = u.Name
		} else if isNotFound(err) {
			err = nil // deleted meanwhile
		}
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// hint is what the stored claims of everybody whom the rule matches hold. To
// look for it is ten times quicker than to read the claims.
func (r *Rule) hint() ([]byte, error) {
	if r.Value == "" {
		return nil, nil
	}
	quoted, err := claims.FromMap(map[string][]string{"": {r.Value}}).MarshalJSON() // {"":["..."]}
	if err != nil {
		return nil, err
	}
	return quoted[len(`{"":["`) : len(quoted)-len(`"]}`)], nil
}
