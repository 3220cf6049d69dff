package groups

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
)

// Settings is everything a configuration says about the directory. It is
// swapped whole and never changed.
type Settings struct {
	Sync    SyncConfig
	Names   claims.Names
	Link    []string
	Sources []SourceSettings
	Rules   []Rule        // of the file
	Groups  []GroupConfig // declared
	Targets []string      // names of targets that want to know of every change
}

// SourceSettings is what the directory knows about one source.
type SourceSettings struct {
	Name    string
	Groups  claims.GroupClaims
	Names   claims.Names
	Require claims.Require
	Local   *claims.LocalConfig // of the source of local users; nil: another kind
}

// Directory is the stored users, groups, memberships, rules and audit events,
// and the only writer of memberships. It is safe for concurrent use.
type Directory struct {
	store Store
	log   *zap.Logger
	audit *zap.Logger
	now   func() time.Time

	// state is what a sync decides by. It is swapped whole: a sync that began
	// with an older one starts over (see SignIn).
	state atomic.Pointer[state]
	// syncing is held for reading by every sync that writes, and by swap: once
	// a state is swapped in, no sync that decided by another can still commit.
	syncing sync.RWMutex
	// evaluating serialises what touches everybody: rule changes, reloads and
	// the guard's release.
	evaluating sync.Mutex
	// follow has something in it when there was a notice to everybody since Run
	// last looked at the rules.
	follow chan struct{}

	holders holdersCache
	active  activeCount
	summary seenCache
	soon    trail
	pushers pushers
	// delay is how long work that failed waits; see pushDelay.
	delay func(failures, refusals int) time.Duration
	Stats Stats
}

// state is a compiled Settings with the rules of the store.
type state struct {
	settings Settings
	rules    *Rules
	policy   Policy
	sources  map[string]*SourceSettings
	guard    GuardConfig
	version  int64  // of the store's rules
	written  bool   // the guard stands in the configuration
	hash     string // of all that a sync's outcome depends on
}

// Options of a Directory.
type Options struct {
	Store Store // nil: there is no directory, see Judge
	Log   *zap.Logger
	// Audit gets every audit event as one line; it is never sampled.
	Audit *zap.Logger
	Now   func() time.Time // nil: the store's
	// PushDelay is how long targets' work waits after so many failures in a row,
	// of which the last ones were refusals. nil: from a second to five minutes.
	PushDelay func(failures, refusals int) time.Duration
}

// NewDirectory makes a directory with no sources and no rules; see Configure.
func NewDirectory(o Options) *Directory {
	d := &Directory{store: o.Store, log: o.Log, audit: o.Audit, now: o.Now, follow: make(chan struct{}, 1)}
	d.Stats.Lag = NewHistogram(lagBounds)
	if d.delay = o.PushDelay; d.delay == nil {
		d.delay = pushDelay
	}
	if d.log == nil {
		d.log = zap.NewNop()
	}
	if d.audit == nil {
		d.audit = zap.NewNop()
	}
	if d.store == nil {
		d.store = noStore{}
	}
	if d.now == nil {
		d.now = d.store.Now
	}
	d.store.Watch(d.noticed)
	empty, _ := Compile(nil)
	d.state.Store(&state{settings: Settings{Sync: DefaultSync}, rules: empty, guard: DefaultGuard})
	return d
}

// Store gives read access to the directory's store.
func (d *Directory) Store() Reader { return d.store }

// Watch registers a function that is told whose live sessions are out of
// date. See Store.Watch.
func (d *Directory) Watch(fn func(Notice)) { d.store.Watch(fn) }

// Healthy is nil while the store answers and is up to date.
func (d *Directory) Healthy() error { return d.store.Healthy() }

// Configure swaps the settings, creates declared groups and, when anything a
// sync depends on differs from what everybody was last evaluated with,
// evaluates everybody again from their last-seen claims. On error the old
// settings stay, unless only the evaluation failed: then the new ones hold,
// and the next Configure or start evaluates.
func (d *Directory) Configure(ctx context.Context, s Settings) error {
	d.evaluating.Lock()
	defer d.evaluating.Unlock()
	st, err := d.compile(ctx, s)
	if err != nil {
		return err
	}
	if !d.Stored() {
		d.swap(st)
		return nil
	}
	if err := d.declare(ctx, s.Groups); err != nil {
		return fmt.Errorf("directory: declare groups: %w", err)
	}
	if err := d.introduce(ctx, s.Targets); err != nil {
		return err
	}
	for {
		if err := d.adopt(ctx, st); !errors.Is(err, errRulesMoved) {
			return err
		}
		if st, err = d.compile(ctx, s); err != nil {
			return err
		}
	}
}

// adopt makes st the state that syncs decide by, and evaluates everybody
// unless that was done with the same state. From the first sync that may
// decide by st until the evaluation is through, the store says of no state
// that everybody stands by it: when it fails half way, going back to the old
// settings evaluates as well.
func (d *Directory) adopt(ctx context.Context, st *state) error {
	var last string
	if err := d.meta(ctx, metaEvaluated, &last); err != nil {
		return err
	}
	if last == st.hash {
		d.swap(st)
		return nil
	}
	if last != "" {
		err := d.store.Update(ctx, func(tx Tx) error {
			return errors.Join(markEvaluated(ctx, tx, ""), working(ctx, tx, d.now()))
		})
		if err != nil {
			return fmt.Errorf("directory: %w", err)
		}
	}
	d.swap(st)
	return d.evaluate(ctx, st, false)
}

// swap waits for the syncs under way: what they commit, an evaluation that
// begins now will see.
func (d *Directory) swap(st *state) {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	d.state.Store(st)
}

func compileState(s Settings, stored []Rule) (*state, error) {
	rules, err := Compile(slices.Concat(s.Rules, stored))
	if err != nil {
		return nil, err
	}
	names, err := CompileNames(s.Sync.GroupNames)
	if err != nil {
		return nil, fmt.Errorf("sync.group_names: %w", err)
	}
	st := &state{
		settings: s, rules: rules,
		policy:  Policy{Remove: s.Sync.RemoveFromGroups, Create: s.Sync.CreateNewGroups, Names: names},
		sources: make(map[string]*SourceSettings, len(s.Sources)),
		guard:   DefaultGuard,
	}
	if s.Sync.Guard != nil {
		st.guard, st.written = *s.Sync.Guard, true
	}
	for i := range s.Sources {
		st.sources[s.Sources[i].Name] = &s.Sources[i]
	}
	st.hash = st.digest()
	return st, nil
}

func (st *state) sourcePolicy(src *SourceSettings, lenient bool) SourcePolicy {
	return SourcePolicy{
		Source: src.Name, Claims: src.Groups.Claims, WhenAbsent: src.Groups.WhenAbsent,
		Default: st.settings.Sync.DefaultGroups, Lenient: lenient, Local: src.Local != nil,
	}
}

// names says which claims of a source are the person's.
func (st *state) names(src *SourceSettings) claims.Names {
	if src.Local != nil {
		return claims.LocalNames
	}
	n := src.Names
	if n.User == "" {
		n.User = st.settings.Names.User
	}
	if n.Email == "" {
		n.Email = st.settings.Names.Email
	}
	if n.Name == "" {
		n.Name = st.settings.Names.Name
	}
	return n
}

// declare makes the groups that the configuration lists. It does not change
// one that exists with the same control, and switches one that has another.
func (d *Directory) declare(ctx context.Context, groups []GroupConfig) error {
	if len(groups) == 0 {
		return nil
	}
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.Name
	}
	have, err := d.store.Controls(ctx, names)
	if err != nil {
		return err
	}
	var missing []Group
	for _, g := range groups {
		if _, exists := have[g.Name]; !exists {
			missing = append(missing, Group{Name: g.Name, Control: g.Control, Created: d.now()})
		}
	}
	if len(missing) > 0 {
		if err := d.CreateGroups(ctx, missing, "configuration"); err != nil {
			return err
		}
	}
	for _, g := range groups {
		if control, exists := have[g.Name]; exists && control != g.Control {
			if _, err := d.UpdateGroup(ctx, g.Name, GroupChange{Control: &g.Control}, "configuration"); err != nil {
				return err
			}
		}
	}
	return nil
}

// Rules lists the rules in force: the file's, then the store's.
func (d *Directory) Rules() []Rule { return d.state.Load().rules.All() }

// SyncEnabled reports whether memberships are stored at all.
func (d *Directory) SyncEnabled() bool { return d.state.Load().settings.Sync.Enabled && d.Stored() }

// View is what a request of a session needs to know. It is immutable.
type View struct {
	User   User
	Login  Login
	Host   string
	Used   time.Time
	Groups []string      // sorted bytewise
	Claims claims.Claims // last seen, of the session's source
}

// View loads a session. It is ErrNotFound when there is none or it is over.
func (d *Directory) View(ctx context.Context, hash [32]byte) (*View, error) {
	s, err := d.store.Session(ctx, hash)
	if err != nil {
		return nil, err
	}
	if !d.now().Before(s.Login.Expires) {
		return nil, fmt.Errorf("session: %w", ErrNotFound)
	}
	user, err := d.store.User(ctx, s.Login.User)
	if err != nil {
		return nil, err
	}
	v := &View{User: *user, Login: s.Login, Host: s.Host, Used: s.Used}
	rec, err := d.store.Identity(ctx, s.Login.Source, s.Login.Subject)
	if err != nil {
		return nil, err
	}
	v.Claims = rec.Claims
	st := d.state.Load()
	src := st.sources[s.Login.Source]
	if src == nil {
		// The source left the configuration: nobody vouches for this session.
		return nil, fmt.Errorf("session of source %s, which is not configured: %w", s.Login.Source, ErrNotFound)
	}
	if st.settings.Sync.Enabled {
		v.Groups, err = d.store.GroupNames(ctx, user.ID)
		return v, err
	}
	v.Groups = st.transient(src, rec)
	return v, nil
}

// transient is a session's groups when nothing is stored: what the rules say.
func (st *state) transient(src *SourceSettings, rec *IdentityRecord) []string {
	return st.granted(st.rules.Apply(rec.identity(), st.sourcePolicy(src, true)))
}

// granted lists the groups of grants that nothing stands against.
func (st *state) granted(w *Wanted) []string {
	var out []string
	for _, g := range w.Grants {
		if st.policy.Allows(g.Group) {
			out = append(out, g.Group)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (rec *IdentityRecord) identity() *claims.Identity {
	return &claims.Identity{Source: rec.Source, Subject: rec.Subject, Claims: rec.Claims, IssuedAt: rec.IssuedAt}
}

// Why lists a user's memberships with their reasons.
func (d *Directory) Why(ctx context.Context, v *View) ([]Membership, error) {
	st := d.state.Load()
	if st.settings.Sync.Enabled && d.Stored() {
		return d.store.Memberships(ctx, v.User.ID)
	}
	src := st.sources[v.Login.Source]
	if src == nil {
		return nil, ErrNotFound
	}
	rec := &IdentityRecord{Source: v.Login.Source, Subject: v.Login.Subject, Claims: v.Claims}
	w := st.rules.Apply(rec.identity(), st.sourcePolicy(src, true))
	byGroup := map[string]*Membership{}
	for _, g := range w.Grants {
		if !st.policy.Allows(g.Group) {
			continue
		}
		if byGroup[g.Group] == nil {
			byGroup[g.Group] = &Membership{Group: g.Group, Control: SSO}
		}
		byGroup[g.Group].Grants = append(byGroup[g.Group].Grants, g)
	}
	out := make([]Membership, 0, len(byGroup))
	for _, name := range sortedKeys(byGroup) {
		out = append(out, *byGroup[name])
	}
	return out, nil
}

// meta reads a value of the store's own into v; a missing one leaves v alone.
func (d *Directory) meta(ctx context.Context, key string, v any) error {
	raw, err := d.store.Meta(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("directory: read %s: %w", key, err)
	}
	return decodeJSON(raw, v)
}

// Claims lists the claims that the rules in force read of a source.
func (d *Directory) Claims(source string) []string { return d.state.Load().rules.Claims(source) }

// Preview takes settings for Explain and plans alone: nothing is written, no
// group made, nobody evaluated.
func (d *Directory) Preview(ctx context.Context, s Settings) error {
	st, err := d.compile(ctx, s)
	if err != nil {
		return err
	}
	d.state.Store(st)
	return nil
}
