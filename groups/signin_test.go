package groups_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// GS-25: every grant with who, what, from where and when.
func TestFirstLoginMakesEverythingAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Targets = []string{"wiki", "hook"} })
	h.told()
	in := h.signIn(identity(t, "s", "1", 0, `{"user":"alice","email":"a@example.com","name":"Alice A","groups":["eng","ops"]}`))
	out, err := h.dir.SignIn(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if !out.Created || out.Stale || out.User.Name != "alice" || out.User.Email != "a@example.com" || out.User.Display != "Alice A" {
		t.Errorf("signed in as %+v", out)
	}
	if c := out.Change; !slices.Equal(c.Created, []string{"eng", "ops"}) || !slices.Equal(c.Added, []string{"eng", "ops"}) {
		t.Errorf("change %+v", c)
	}
	h.want(out.User.ID, "eng:s ops:s")
	if got := h.kinds(groups.EventQuery{}); got != "user_created sync sign_in" {
		t.Errorf("events %s", got)
	}
	for _, e := range h.events(groups.EventQuery{}) {
		if e.User != out.User.ID || e.Name != "alice" || e.Source != "s" || e.Request != in.Request || !e.At.Equal(h.now()) {
			t.Errorf("event does not say who, where and when: %+v", e)
		}
	}
	view, err := h.dir.View(t.Context(), in.Session.Hash)
	if err != nil || view.User.ID != out.User.ID || !slices.Equal(view.Groups, []string{"eng", "ops"}) || view.Login.ID != in.Login.ID {
		t.Errorf("view %+v, %v", view, err)
	}
	group, err := h.store.Group(t.Context(), "eng")
	if err != nil || group.Control != groups.SSO || group.Members != 1 {
		t.Errorf("group %+v, %v", group, err)
	}
	work, err := h.store.Outbox(t.Context(), 0)
	if err != nil || len(work) != 2 || work[0].User != out.User.ID || string(work[0].Body) != `{"added":["eng","ops"],"removed":[]}` {
		t.Errorf("outbox %+v, %v", work, err)
	}
	if told := h.told(); !slices.Contains(told, groups.Notice{User: out.User.ID}) {
		t.Errorf("live sessions were told %v", told)
	}
}

func TestViewEndsWithTheLogin(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.mustLogin("s", "1", 0, groupsOf("alice"))
	h.pass(12*time.Hour - time.Second)
	if _, err := h.dir.View(t.Context(), cookieHash(1)); err != nil {
		t.Errorf("control: %v", err)
	}
	h.pass(time.Second)
	_, err := h.dir.View(t.Context(), cookieHash(1))
	h.wantErr(err, groups.ErrNotFound)
}

// GS-10: a statement that comes twice changes nothing, nor the trail.
func TestSameSyncTwiceWritesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	id := identity(t, "s", "1", 0, groupsOf("alice", "eng", "ops"))
	h.sync(id)
	db := h.file()
	before, rows := version(t, db), dump(t, db)
	h.pass(time.Minute)
	for range 3 {
		out := h.sync(identity(t, "s", "1", 0, groupsOf("alice", "eng", "ops")))
		if out.Change != nil || out.User.ID != h.user("alice") {
			t.Errorf("unchanged sync answers %+v", out)
		}
	}
	if after := version(t, db); after != before {
		t.Error("the file was written to")
	}
	h.sync(identity(t, "s", "1", 0, groupsOf("alice", "eng")))
	if version(t, db) == before || dump(t, db) == rows {
		t.Error("control: a change was not written")
	}
}

// TestLoginAgainChangesOnlyTheSession: no second sync event, no work, no
// notice of changed memberships.
func TestLoginAgainChangesOnlyTheSession(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Targets = []string{"wiki"} })
	h.mustLogin("s", "1", 0, groupsOf("alice", "eng"))
	db := h.file()
	before := dump(t, db, "events", "tallies", "logins", "sessions", "identities")
	h.told()
	out := h.mustLogin("s", "1", 1, groupsOf("alice", "eng"))
	if out.Created || out.Change != nil {
		t.Errorf("the second login did something: %+v", out)
	}
	if after := dump(t, db, "events", "tallies", "logins", "sessions", "identities"); after != before {
		t.Errorf("rows changed:\n%s\n%s", before, after)
	}
	if got := h.kinds(groups.EventQuery{}); got != "user_created sync sign_in sign_in" {
		t.Errorf("events %s", got)
	}
}

// GS-09: the last issued statement holds, not the last that came.
func TestOlderStatementNeverWins(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	alice := h.mustLogin("s", "1", 10, `{"user":"alice","email":"new@example.com","groups":["new"]}`).User.ID
	out := h.mustLogin("s", "1", 9, `{"user":"alice-old","email":"old@example.com","groups":["old"]}`)
	if !out.Stale {
		t.Error("an older statement is not called stale")
	}
	h.want(alice, "new:s")
	u, err := h.store.User(t.Context(), alice)
	if err != nil || u.Name != "alice" || u.Email != "new@example.com" {
		t.Errorf("an older statement described the person: %+v, %v", u, err)
	}
	rec, err := h.store.Identity(t.Context(), "s", "1")
	if err != nil || !rec.IssuedAt.Equal(epoch0.Add(10*time.Minute)) || rec.Claims.Text("groups") != "new" {
		t.Errorf("an older statement was kept: %+v, %v", rec, err)
	}
	h.mustLogin("s", "1", 10, groupsOf("alice", "equal"))
	h.want(alice, "equal:s") // an equally old one counts as newer
	h.mustLogin("s", "1", 11, groupsOf("alice", "newer"))
	h.want(alice, "newer:s")
}

// TestParallelLoginsOfOneUser: GS-09. Fifty statements with different groups
// arrive in any order; what holds is the newest, whole.
func TestParallelLoginsOfOneUser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const n = 50
	var wg sync.WaitGroup
	for i := range n {
		id := identity(t, "s", "1", i, groupsOf("alice", fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i), "all"))
		in := h.signIn(id)
		wg.Go(func() {
			if _, err := h.dir.SignIn(t.Context(), in); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.want(h.user("alice"), fmt.Sprintf("a%d:s all:s b%d:s", n-1, n-1))
	users, holders, err := h.store.CountUsers(t.Context())
	if err != nil || users != 1 || holders != 1 {
		t.Errorf("%d users, %d holders, %v", users, holders, err)
	}
	if logins, err := h.store.Sessions(t.Context(), h.user("alice")); err != nil || len(logins) != n {
		t.Errorf("%d sessions, %v", len(logins), err)
	}
}

func TestUsersRaceToMakeOneGroup(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var wg sync.WaitGroup
	for i := range 10 {
		in := h.signIn(identity(t, "s", fmt.Sprint(i), 0, groupsOf(fmt.Sprintf("user%d", i), "shared")))
		wg.Go(func() {
			if _, err := h.dir.SignIn(t.Context(), in); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if g, err := h.store.Group(t.Context(), "shared"); err != nil || g.Members != 10 {
		t.Errorf("group %+v, %v", g, err)
	}
}

// TestNameBelongsToWhoStatedItFirst: GS-20 and contract sections 1 and 7.
func TestNameBelongsToWhoStatedItFirst(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng")).User.ID
	for name, id := range map[string]*claims.Identity{
		"another source":             identity(t, "t", "1", 0, groupsOf("alice", "admins")),
		"in another case":            identity(t, "t", "1", 0, groupsOf("ALICE", "admins")),
		"a second subject of source": identity(t, "s", "2", 0, groupsOf("alice", "admins")),
	} {
		_, err := h.login(id)
		if !errors.Is(err, groups.ErrNameTaken) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "admins") {
			t.Errorf("%s: the error holds a claim's value", name)
		}
	}
	h.want(alice, "eng:s")
	if got := h.kinds(groups.EventQuery{Kind: groups.EventRefused}); got != "refused refused refused" {
		t.Errorf("events %s", got)
	}
	if _, err := h.store.Session(t.Context(), cookieHash(2)); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("a refused login has a session: %v", err)
	}
	if out := h.mustLogin("t", "1", 0, groupsOf("bob", "ops")); !out.Created {
		t.Error("control: a free name is not a new user")
	}
	// The same subject of two sources is two people.
	h.want(h.user("bob"), "ops:t")
}

func TestLinkedSourcesSharePeople(t *testing.T) {
	t.Parallel()
	h := newHouse(t, linked)
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng", "both")).User.ID
	out := h.mustLogin("t", "x", 0, groupsOf("Alice", "ops", "both"))
	if out.User.ID != alice || out.Created {
		t.Fatalf("joined %+v, want user %v", out.User, alice)
	}
	h.want(alice, "both:s+t eng:s ops:t")
	h.mustLogin("t", "x", 1, groupsOf("alice"))
	h.want(alice, "both:s eng:s") // the other source's grants are untouched
	h.mustLogin("s", "1", 1, groupsOf("alice", "eng"))
	h.want(alice, "eng:s")
	_, err := h.login(identity(t, "t", "y", 2, groupsOf("alice", "admins")))
	h.wantErr(err, groups.ErrNameTaken) // t has an identity of hers already
}

// TestOnlyLinkedSourcesJoin: both sides must be linked.
func TestOnlyLinkedSourcesJoin(t *testing.T) {
	t.Parallel()
	for _, link := range [][]string{{"s"}, {"t"}, {"t", "u"}} {
		h := newHouse(t, func(s *groups.Settings) { s.Link = link })
		h.mustLogin("s", "1", 0, groupsOf("alice", "eng"))
		_, err := h.login(identity(t, "t", "x", 0, groupsOf("alice", "ops")))
		h.wantErr(err, groups.ErrNameTaken)
	}
}

// OI-30: a person is the subject, whatever they are called now.
func TestKnownIdentityIsRenamed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng")).User.ID
	h.mustLogin("s", "2", 0, groupsOf("bob"))
	if out := h.mustLogin("s", "1", 1, groupsOf("alice.a", "eng")); out.User.ID != alice || out.User.Name != "alice.a" {
		t.Errorf("renamed to %+v", out.User)
	}
	if e := h.events(groups.EventQuery{Kind: groups.EventUserRenamed}); len(e) != 1 || e[0].Reason != "was alice" || e[0].Name != "alice.a" {
		t.Errorf("events %+v", e)
	}
	_, err := h.login(identity(t, "s", "1", 2, groupsOf("Bob", "admins")))
	h.wantErr(err, groups.ErrNameTaken)
	h.want(alice, "eng:s")
	if h.user("alice.a") != alice {
		t.Error("a refused rename changed the name")
	}
	if out := h.mustLogin("s", "3", 0, groupsOf("alice")); out.User.ID == alice {
		t.Error("the old name still means the renamed user")
	}
}

func TestStatementWithoutANameKeepsIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	alice := h.mustLogin("s", "1", 0, `{"user":"alice","email":"a@example.com"}`).User.ID
	out := h.mustLogin("s", "1", 1, `{"groups":["eng"]}`)
	if out.User.ID != alice || out.User.Name != "alice" || out.User.Email != "a@example.com" {
		t.Errorf("now %+v", out.User)
	}
	if out := h.mustLogin("s", "77", 0, `{}`); out.User.Name != "77" {
		t.Errorf("without a user name the subject is the name; got %q", out.User.Name)
	}
}

func TestDeleteUserFreesTheName(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Targets = []string{"wiki"} })
	old := h.mustLogin("s", "1", 0, groupsOf("alice", "eng")).User.ID
	_, err := h.login(identity(t, "s", "2", 0, groupsOf("alice", "ops")))
	h.wantErr(err, groups.ErrNameTaken)
	h.told()
	if err := h.dir.DeleteUser(t.Context(), old, "root"); err != nil {
		t.Fatal(err)
	}
	if told := h.told(); !slices.Contains(told, groups.Notice{User: old}) {
		t.Errorf("live sessions were told %v", told)
	}
	_, err = h.dir.View(t.Context(), cookieHash(1))
	h.wantErr(err, groups.ErrNotFound)
	if e := h.events(groups.EventQuery{Kind: groups.EventUserDeleted}); len(e) != 1 || e[0].Name != "alice" || e[0].Actor != "root" {
		t.Errorf("events %+v", e)
	}
	work, err := h.store.Outbox(t.Context(), 0)
	if err != nil || len(work) != 1 || string(work[0].Body) != `{"added":[],"removed":["eng"]}` || work[0].User != old {
		t.Errorf("targets do not hear of it: %+v, %v", work, err)
	}
	fresh := h.mustLogin("s", "2", 0, groupsOf("alice", "ops")).User.ID
	if fresh == old {
		t.Error("an id was given twice")
	}
	h.want(fresh, "ops:s")
	h.wantErr(h.dir.DeleteUser(t.Context(), old, "root"), groups.ErrNotFound)
}

func TestRequireRefuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) {
		s.Sources[0].Require = claims.Require{EmailDomains: []string{"example.com"}, EmailVerified: true}
	})
	for _, js := range []string{
		`{"user":"eve","email":"e@evil.com","email_verified":true,"groups":["g"]}`,
		`{"user":"eve","email":"e@example.com.evil.com","email_verified":true}`,
		`{"user":"eve","email":"e@example.com"}`,
		`{"user":"eve","email":"e@example.com","email_verified":false}`,
		`{"user":"eve","email_verified":true}`,
	} {
		_, err := h.login(identity(t, "s", "1", 0, js))
		if !errors.Is(err, claims.ErrDenied) {
			t.Errorf("%s: %v", js, err)
		}
	}
	if h.user("eve") != 0 {
		t.Error("a refused login made a user")
	}
	if got := h.events(groups.EventQuery{Kind: groups.EventRefused}); len(got) != 5 || got[0].Name != "eve" || strings.Contains(got[0].Reason, "evil") {
		t.Errorf("events %+v", got)
	}
	h.mustLogin("s", "1", 0, `{"user":"ann","email":"a@Example.com","email_verified":true}`)
	_, err := h.login(identity(t, "gone", "1", 0, `{}`))
	h.wantErr(err, claims.ErrDenied) // a source that is not configured
}

// GS-02: when_absent: deny.
func TestAbsentClaimRefusesWhereItMustBe(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Sources[0].Groups.WhenAbsent = claims.Deny })
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng")).User.ID
	_, err := h.login(identity(t, "s", "1", 1, `{"user":"alice"}`))
	h.wantErr(err, groups.ErrClaimMissing)
	h.want(alice, "eng:s")
	e := h.events(groups.EventQuery{Kind: groups.EventRefused})
	if len(e) != 1 || e[0].Name != "alice" || e[0].Source != "s" || !strings.Contains(e[0].Reason, `"groups"`) {
		t.Errorf("events %+v", e)
	}
	if _, err := h.store.Session(t.Context(), cookieHash(2)); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("a refused login has a session: %v", err)
	}
	h.mustLogin("s", "1", 2, `{"user":"alice","groups":null}`) // unknown is not absent
	h.want(alice, "eng:s")
}

// TestAbsentClaimIsAudited: keep grants nothing, removes nothing and shows
// (GS-01, GS-02, GS-03).
func TestAbsentClaimIsAudited(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng")).User.ID
	h.mustLogin("s", "1", 1, `{"user":"alice"}`)
	h.want(alice, "eng:s")
	h.mustLogin("s", "1", 2, `{"user":"alice","groups":["eng",3]}`)
	h.want(alice, "eng:s")
	e := h.events(groups.EventQuery{Kind: groups.EventSync})
	if len(e) != 3 || e[1].States["groups"].State.String() != "absent" || e[2].States["groups"].State.String() != "unknown" {
		t.Fatalf("events %+v", e)
	}
	if got := h.dir.Stats.Unknown.Load(); got != 2 {
		t.Errorf("counted %d statements with unknown claims", got)
	}
	h.mustLogin("s", "1", 3, groupsOf("alice"))
	h.want(alice, "") // present and empty
}

func (h *house) refresh(login int, id *claims.Identity) (*groups.Signed, error) {
	l, err := h.store.LoginByID(h.t.Context(), fmt.Sprintf("login%d", login))
	if err != nil {
		h.t.Fatal(err)
	}
	l.ClaimsAt = h.now()
	return h.dir.SignIn(h.t.Context(), groups.SignIn{Identity: id, Login: l, Refresh: true})
}

func TestRefreshThatLacksTheClaimChangesNothing(t *testing.T) {
	t.Parallel()
	for _, absence := range []claims.WhenAbsent{claims.Keep, claims.Clear, claims.Deny} {
		h := newHouse(t, func(s *groups.Settings) { s.Sources[0].Groups.WhenAbsent = absence })
		alice := h.mustLogin("s", "1", 0, `{"user":"alice","groups":["eng"],"dept":"x"}`).User.ID
		h.pass(5 * time.Minute)
		if _, err := h.refresh(1, identity(t, "s", "1", 5, `{"email":"a@example.com"}`)); err != nil {
			t.Fatalf("%s: %v", absence, err)
		}
		h.want(alice, "eng:s")
		view, err := h.dir.View(t.Context(), cookieHash(1))
		if err != nil || view.Claims.Text("dept") != "x" || view.User.Email != "a@example.com" || !view.Login.ClaimsAt.Equal(h.now()) {
			t.Errorf("%s: %+v, %v", absence, view, err)
		}
		if _, err := h.refresh(1, identity(t, "s", "1", 6, `{"groups":[]}`)); err != nil {
			t.Fatal(err)
		}
		h.want(alice, "") // control: stated and empty
		if got := h.kinds(groups.EventQuery{Kind: groups.EventSignIn}); got != "sign_in" {
			t.Errorf("a refresh is no sign-in: %s", got)
		}
	}
}

func TestRefreshOfAnUnknownIdentity(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	_, err := h.dir.SignIn(t.Context(), groups.SignIn{Identity: identity(t, "s", "9", 0, `{"user":"x"}`), Refresh: true})
	h.wantErr(err, groups.ErrNotFound)
	if h.user("x") != 0 {
		t.Error("a refresh made a user")
	}
}

// GS-10: an answer that may be used once is.
func TestReplayIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	in := h.signIn(identity(t, "s", "1", 0, groupsOf("alice", "eng")))
	in.OnceKind, in.OnceID, in.OnceUntil = "flow", "f1", h.now().Add(time.Hour)
	if _, err := h.dir.SignIn(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	again := h.signIn(identity(t, "s", "1", 1, groupsOf("alice", "admins")))
	again.OnceKind, again.OnceID, again.OnceUntil = in.OnceKind, in.OnceID, in.OnceUntil
	_, err := h.dir.SignIn(t.Context(), again)
	h.wantErr(err, groups.ErrReplayed)
	h.want(h.user("alice"), "eng:s")
	if got := h.kinds(groups.EventQuery{Kind: groups.EventRefused}); got != "refused" {
		t.Errorf("events %s", got)
	}
	// Not even where the sync itself would have nothing to do.
	same := groups.SignIn{Identity: in.Identity, OnceKind: "flow", OnceID: "f1", OnceUntil: in.OnceUntil}
	_, err = h.dir.SignIn(t.Context(), same)
	h.wantErr(err, groups.ErrReplayed)
	again.OnceKind = "other"
	if _, err := h.dir.SignIn(t.Context(), again); err != nil {
		t.Errorf("control: the id of another kind: %v", err)
	}
}

func TestGoneTakesTheSourcesGrantsAndSessions(t *testing.T) {
	t.Parallel()
	h := newHouse(t, linked, func(s *groups.Settings) { s.Targets = []string{"wiki"} })
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng", "both")).User.ID
	h.mustLogin("t", "x", 0, groupsOf("alice", "ops", "both"))
	h.told()
	if err := h.dir.Gone(t.Context(), "s", "1", "req9"); err != nil {
		t.Fatal(err)
	}
	h.want(alice, "both:t ops:t")
	_, err := h.dir.View(t.Context(), cookieHash(1))
	h.wantErr(err, groups.ErrNotFound)
	if _, err := h.dir.View(t.Context(), cookieHash(2)); err != nil {
		t.Errorf("the other source's session ended: %v", err)
	}
	if told := h.told(); !slices.Contains(told, groups.Notice{User: alice}) {
		t.Errorf("live sessions were told %v", told)
	}
	work, err := h.store.Outbox(t.Context(), 0)
	if err != nil || len(work) != 1 || work[0].Version != 2 || string(work[0].Body) != `{"added":[],"removed":["eng"]}` {
		t.Errorf("targets do not hear of it: %+v, %v", work, err)
	}
	// The last-seen claims must not bring back what the source took away.
	h.putRule(valueRule("new", "s", "eng", "builders"))
	h.want(alice, "both:t ops:t")
	if plan, err := h.dir.PlanRules(t.Context(), nil); err != nil || plan.Added != 0 {
		t.Errorf("plan %+v, %v", plan, err)
	}
	// The source may welcome the person again, even with the same statement.
	h.mustLogin("s", "1", 0, groupsOf("alice", "eng", "both"))
	h.want(alice, "both:s+t builders:s eng:s ops:t")
	if err := h.dir.Gone(t.Context(), "s", "nobody", ""); err != nil {
		t.Errorf("a person nobody knows: %v", err)
	}
}

// oneRow lets nothing of a store be used but the reading of one identity, once
// it is shut.
type oneRow struct {
	groups.Store // nil when shut: every other call is a panic
	real         groups.Store
	reads        int
}

func (s *oneRow) Identity(ctx context.Context, source, subject string) (*groups.IdentityRecord, error) {
	s.reads++
	return s.real.Identity(ctx, source, subject)
}

// TestUnchangedSyncReadsOneRow, and asks the store for nothing else.
func TestUnchangedSyncReadsOneRow(t *testing.T) {
	t.Parallel()
	var door oneRow
	h := openHouse(t, func(s groups.Store) groups.Store { door.Store, door.real = s, s; return &door })
	h.configure()
	id := &claims.Identity{Source: "s", Subject: "alice", Claims: claims.FromMap(map[string][]string{
		"groups": {"a", "b"}, "preferred_username": {"alice"},
	}), IssuedAt: h.now()}
	if _, err := h.login(id); err != nil {
		t.Fatal(err)
	}
	door.Store, door.reads = nil, 0
	out, err := h.dir.SignIn(t.Context(), groups.SignIn{Identity: id})
	door.Store = door.real
	if err != nil || out.Change != nil || door.reads != 1 {
		t.Errorf("%d reads, change %v, %v", door.reads, out, err)
	}
}
