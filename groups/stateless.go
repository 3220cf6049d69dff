package groups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/groupgate/groupgate/claims"
)

// Without a store there is no directory: nobody is known from one login to the
// next, and a session carries what it needs itself. What is left of a Directory
// then is its rules: who gets in, and which groups a statement means.

// ErrNoDirectory is the answer to everything that needs a store where there is
// none.
var ErrNoDirectory = errors.New("there is no directory (store.none)")

// noStore takes the place of a store where there is none. It knows nothing and
// keeps nothing. What it does not answer here, nobody may ask for without having
// looked at [Directory.Stored].
type noStore struct{ Store }

func (noStore) Rules(context.Context) ([]Rule, error) { return nil, nil }

func (noStore) Controls(context.Context, []string) (map[string]Control, error) { return nil, nil }

func (noStore) Meta(context.Context, string) (json.RawMessage, error) { return nil, ErrNotFound }

func (noStore) Identity(context.Context, string, string) (*IdentityRecord, error) {
	return nil, ErrNotFound
}

func (noStore) Identities(context.Context, UserID) ([]IdentityRecord, error) {
	return nil, ErrNotFound
}

func (noStore) CountSessions(context.Context, time.Time, time.Time) (int, error) {
	return 0, ErrNoDirectory
}

func (noStore) Update(context.Context, func(Tx) error) error { return ErrNoDirectory }

func (noStore) Watch(func(Notice)) {} // nobody changes anything

func (noStore) Now() time.Time { return time.Now() }
func (noStore) Shared() bool   { return false }
func (noStore) Healthy() error { return nil }

// Stored reports whether there is a directory at all.
func (d *Directory) Stored() bool { _, none := d.store.(noStore); return !none }

// Judge is SignIn where nothing is stored: it answers who a statement's person
// is and in which groups, by the rules alone, or refuses the person. The view
// has the groups and the claims to keep; everything else of it is the caller's.
// was is the view that a refresh is to renew; nil at a login. carry names claims
// that are kept beside those that rules and settings read. Errors:
// claims.ErrDenied (require), ErrClaimMissing (when_absent: deny).
func (d *Directory) Judge(in SignIn, was *View, carry []string) (*View, error) {
	v, want, err := d.judge(in.Identity, was)
	if err != nil {
		d.Stats.Refused.Add(1)
		d.noteRefusal(context.Background(), in, err) // into the log, which waits for nobody
		return nil, err
	}
	d.Stats.Unchanged.Add(1)
	d.Stats.Lag.Observe(d.now().Sub(in.Identity.IssuedAt))
	problems := want.Problems()
	if problems != nil {
		d.Stats.Unknown.Add(1)
	}
	if was == nil {
		d.written([]Event{{
			Kind: EventSignIn, Name: v.User.Name, Source: in.Identity.Source, Request: in.Request, States: problems,
		}})
	}
	v.Claims = d.kept(in.Identity.Source, v.Claims, carry)
	return v, nil
}

func (d *Directory) judge(id *claims.Identity, was *View) (*View, *Wanted, error) {
	st := d.state.Load()
	src := st.sources[id.Source]
	if src == nil {
		return nil, nil, fmt.Errorf("%s: the source is not configured: %w", id.Source, claims.ErrDenied)
	}
	said := *id
	v := &View{User: User{Name: id.Subject}}
	if was != nil {
		v.User = was.User
		if !id.Whole {
			said.Claims = id.Claims.FillFromEarlier(was.Claims) // what a refresh does not mention stays
		}
	}
	v.Claims = said.Claims
	names := st.names(src)
	if err := src.Require.Check(v.Claims, names.Email); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", id.Source, err)
	}
	want := st.rules.Apply(&said, st.sourcePolicy(src, was != nil))
	if want.Denied != "" {
		return nil, nil, fmt.Errorf("%s: claim %q: %w", id.Source, want.Denied, ErrClaimMissing)
	}
	for _, said := range []struct {
		field *string
		claim string
	}{{&v.User.Name, names.User}, {&v.User.Email, names.Email}, {&v.User.Display, names.Name}} {
		if text := v.Claims.Text(said.claim); text != "" {
			*said.field = text
		}
	}
	v.Groups = st.granted(want)
	return v, want, nil
}

// Regroup fills in the groups of a view from its claims, by the rules of now. A
// rule that went takes its groups along. It is ErrNotFound when the source left
// the configuration: nobody vouches for the session.
func (d *Directory) Regroup(v *View) error {
	st := d.state.Load()
	src := st.sources[v.Login.Source]
	if src == nil {
		return fmt.Errorf("session of source %s, which is not configured: %w", v.Login.Source, ErrNotFound)
	}
	v.Groups = st.transient(src, &IdentityRecord{Source: v.Login.Source, Subject: v.Login.Subject, Claims: v.Claims})
	return nil
}

// kept is what of a statement a session has to carry, so that the same groups
// come out of it: of a claim that nothing but rules reads, the values that some
// rule takes.
func (d *Directory) kept(source string, c claims.Claims, carry []string) claims.Claims {
	st := d.state.Load()
	src := st.sources[source]
	names := st.names(src)
	whole := slices.Concat(carry, []string{names.User, names.Email, names.Name}, st.rules.conditions(source))
	if src.Require.EmailVerified {
		whole = append(whole, "email_verified")
	}
	return c.Keep(whole, slices.Concat(src.Groups.Claims, st.rules.Claims(source)), func(claim, value string) bool {
		return st.takes(source, claim, value)
	})
}

// conditions lists the claims that rules' conditions read of a source.
func (r *Rules) conditions(source string) []string {
	var out []string
	for _, c := range r.list {
		if c.when != nil && (c.Source == source || c.Source == "") {
			out = slices.Concat(out, c.when.reads, c.when.tests)
		}
	}
	return out
}

// takes reports whether some rule makes a group that may exist of a value,
// whatever its condition says.
func (st *state) takes(source, claim, value string) bool {
	r := st.rules
	taken := false
	for _, t := range slices.Concat(r.tables[source], r.tables[""]) {
		if t.claim == claim {
			for _, piece := range t.pieces(value) {
				r.eachHit(t, piece, func(_ *compiled, group string) { taken = taken || st.policy.Allows(group) })
			}
		}
	}
	return taken
}
