package groups

import (
	"context"
	"encoding/json"
	"time"
)

// Reader reads the directory. Unless it says otherwise a method answers
// ErrNotFound for what is not there, and ErrUnavailable (wrapped) when the
// store cannot answer. Slices are the caller's; an empty result is not an
// error. All methods are safe for concurrent use.
type Reader interface {
	// Session finds a session and its login by the hash of the cookie's value.
	// It does not look at the clock: an expired session is found until it is
	// swept.
	Session(ctx context.Context, hash [32]byte) (*Session, error)
	// Sessions lists a user's sessions, newest first.
	Sessions(ctx context.Context, user UserID) ([]Session, error)
	// CountSessions counts the sessions whose login expires after now and that
	// were last used after used.
	CountSessions(ctx context.Context, now, used time.Time) (int, error)
	// LoginByID finds a login.
	LoginByID(ctx context.Context, id string) (*Login, error)

	Identity(ctx context.Context, source, subject string) (*IdentityRecord, error)
	// Identities lists a user's identities by source.
	Identities(ctx context.Context, user UserID) ([]IdentityRecord, error)
	// EachIdentity calls fn for every identity in the order (user, source),
	// until it answers an error, which EachIdentity returns. It does not hold
	// all of them in memory.
	EachIdentity(ctx context.Context, fn func(*IdentityRecord) error) error

	// LocalAccount finds the account (source, subject) of a local user.
	LocalAccount(ctx context.Context, source, subject string) (*LocalAccount, error)
	// LocalAccountByName finds the account that a user of that name has at the
	// source, ASCII case not told apart.
	LocalAccountByName(ctx context.Context, source, name string) (*LocalAccount, error)
	// LocalAccounts lists the accounts of a source by user id.
	LocalAccounts(ctx context.Context, source string, after UserID, limit int) ([]LocalAccount, error)
	// LocalPassword reads the hash of an account's password. Nothing else
	// answers it.
	LocalPassword(ctx context.Context, source, subject string) (hash string, err error)

	User(ctx context.Context, id UserID) (*User, error)
	// UserByName does not tell ASCII upper and lower case apart.
	UserByName(ctx context.Context, name string) (*User, error)
	// UsersByEmail finds at most two users with the address, ASCII case not
	// told apart.
	UsersByEmail(ctx context.Context, email string) ([]User, error)
	// Users lists users by id. Query matches a part of user name, e-mail
	// address or display name, ASCII case not told apart.
	Users(ctx context.Context, query string, after UserID, limit int) ([]User, error)
	// FindUsers lists users by id, by name, or those who were seen last first.
	FindUsers(ctx context.Context, q UserQuery) ([]FoundUser, error)
	// CountUsers counts the users, and those who hold at least one grant.
	CountUsers(ctx context.Context) (all, holders int, err error)

	// Memberships lists a user's memberships by group name, grants in the
	// order of Grant.Compare.
	Memberships(ctx context.Context, user UserID) ([]Membership, error)
	// EachMembership calls fn for every user that has a membership, in the
	// order of the ids, with all of the user's memberships.
	EachMembership(ctx context.Context, fn func(UserID, []Membership) error) error
	// GroupNames lists the names of the groups a user is in, sorted bytewise.
	GroupNames(ctx context.Context, user UserID) ([]string, error)

	// Group finds one group, with its number of members.
	Group(ctx context.Context, name string) (*Group, error)
	// Groups lists groups by name, with their numbers of members. Query
	// matches a part of the name, ASCII case not told apart.
	Groups(ctx context.Context, query, after string, limit int) ([]Group, error)
	// FindGroups lists groups by name, or those with the most members first.
	FindGroups(ctx context.Context, q GroupQuery) ([]Group, error)
	// GroupFacts answers what lists show of those of the names that are groups.
	GroupFacts(ctx context.Context, names []string) (map[string]GroupFacts, error)
	// CountGroups counts the groups of each control.
	CountGroups(ctx context.Context) (map[Control]int, error)
	// Controls answers the control of those of the names that are groups.
	Controls(ctx context.Context, names []string) (map[string]Control, error)
	// Members lists a group's members by user id: each user with the one
	// membership.
	Members(ctx context.Context, group string, after UserID, limit int) ([]Member, error)
	// FindMembers is Members by user name.
	FindMembers(ctx context.Context, q MemberQuery) ([]Member, error)
	// CountMembersAmong counts those of the users who are in a group.
	CountMembersAmong(ctx context.Context, group string, users []UserID) (int, error)

	// Rules lists the rules made in the console or by the API, by id.
	Rules(ctx context.Context) ([]Rule, error)

	// Events lists the audit trail, newest first.
	Events(ctx context.Context, q EventQuery) ([]Event, error)
	// RenamedTo finds the newest event by which a group that had another name
	// got this one, among those with a smaller id than before; 0 is no bound.
	RenamedTo(ctx context.Context, group string, before int64) (*Event, error)
	// Tally counts the audit trail in so many steps of time: from the full hour
	// that from is in, each of them whole hours long. What did not happen is
	// left out; the rest comes by time, kind and source. It does not read the
	// events.
	Tally(ctx context.Context, from time.Time, step time.Duration, steps int) ([]Tally, error)
	// Outbox lists waiting work in the order it was written.
	Outbox(ctx context.Context, limit int) ([]Work, error)
	// Work finds what a target still has to be told of a user.
	Work(ctx context.Context, target string, user UserID) (*Work, error)
	// DueWork finds work of a target that is not parked and whose NotBefore is not
	// after now: that with the earliest NotBefore, and of these the oldest.
	DueWork(ctx context.Context, target string, now time.Time) (*Work, error)
	// FailedWork lists a target's work whose last attempt came to nothing, what
	// is parked first, then in the order it was written.
	FailedWork(ctx context.Context, target string, limit int) ([]Work, error)
	// Backlog counts a target's work.
	Backlog(ctx context.Context, target string) (Backlog, error)
	// Told answers what PutTold last wrote; nothing when it wrote nothing.
	Told(ctx context.Context, target string, user UserID) (Told, error)

	// RemovedUsers lists the users that syncs took a group from since then.
	RemovedUsers(ctx context.Context, since time.Time) ([]UserID, error)
	// HoldsGrant reports which of the users hold at least one grant.
	CountHoldersAmong(ctx context.Context, users []UserID) (int, error)

	// Lease finds a lease as it was last written, whether its time is over or
	// not.
	Lease(ctx context.Context, name string) (*Lease, error)
	// Attempts answers what PutAttempts last wrote under each of the keys, nil
	// for nothing.
	Attempts(ctx context.Context, keys ...[16]byte) ([]json.RawMessage, error)

	// Meta reads a value of the store's own: generated keys, the guard's
	// state. A missing key is ErrNotFound.
	Meta(ctx context.Context, key string) (json.RawMessage, error)
	// Epoch is a number above 0 that grows whenever a group is created, deleted,
	// renamed or changes its control.
	Epoch(ctx context.Context) (int64, error)
}

// Member is a user in a group.
type Member struct {
	User       User
	Membership Membership
}

// UserQuery picks users; zero fields do not filter.
type UserQuery struct {
	Query  string // a part of user name, e-mail address or display name, as in Users
	Source string // that knows the person
	By     UserOrder
	// After is the user before: its ID and, as the order has it, Name or Seen.
	After FoundUser
	Limit int
}

// UserOrder is what a list of users is sorted by.
type UserOrder string

// The orders: as they were made, by user name with ASCII case not told apart,
// and the latest sign-in or refresh first, where those never seen come last.
const (
	UsersByID   UserOrder = ""
	UsersByName UserOrder = "name"
	UsersBySeen UserOrder = "seen"
)

// FoundUser is a user, and when a source last spoke of the person.
type FoundUser struct {
	User
	Seen time.Time
}

// GroupQuery picks groups; zero fields do not filter.
type GroupQuery struct {
	Query     string // a part of the name, ASCII case not told apart
	Control   Control
	ByMembers bool // most members first, then by name
	// After is the name of the group before, AfterMembers its number of members
	// when they are listed by that.
	After        string
	AfterMembers int
	Limit        int
}

// GroupFacts is what is known of a group beside itself.
type GroupFacts struct {
	Rules   []string  // ids of the rules by which somebody is a member now, sorted
	Changed time.Time // of the newest event of the group, as EventQuery.Group finds it; zero when there is none
}

// MemberQuery picks members of a group, by user name.
type MemberQuery struct {
	Group string
	Query string // a part of user name, e-mail address or display name, as in Users
	After string // user name of the member before
	Limit int
}

// EventQuery filters the audit trail; zero fields do not filter.
type EventQuery struct {
	Kind    string
	User    UserID
	Group   string // events of the group and syncs that changed it
	Source  string
	Request string
	Skipped bool // only syncs that skipped a group
	Held    bool // only syncs that the guard kept from taking a group away
	From    time.Time
	To      time.Time
	Before  int64 // only events with a smaller id
	Limit   int
}

// Tally is how many events of a kind and a source there were in a step of
// time that began at At.
type Tally struct {
	At             time.Time
	Kind, Source   string
	Events         int
	Added, Removed int // memberships, by syncs
}

// Tx is one write transaction. Its reads see its writes. It belongs to one
// goroutine and ends when the function it was given to returns.
type Tx interface {
	Reader

	// LockUser makes other transactions that lock the same user wait until
	// this one ends.
	LockUser(ctx context.Context, id UserID) error

	// CreateUser gives the user an id. A taken name is ErrConflict.
	CreateUser(ctx context.Context, u *User) error
	// UpdateUser writes name, e-mail address and display name. A taken name
	// is ErrConflict.
	UpdateUser(ctx context.Context, u *User) error
	// DeleteUser takes the user away with identities, local accounts,
	// memberships, logins and sessions. The audit trail stays.
	DeleteUser(ctx context.Context, id UserID) error
	// PutIdentity creates or replaces the identity (source, subject).
	PutIdentity(ctx context.Context, rec *IdentityRecord) error
	// ClearFingerprints makes the user's next sync look at everything again.
	ClearFingerprints(ctx context.Context, user UserID) error

	// CreateLocalAccount gives a user an account: its User.ID, Source, Subject,
	// Disabled and Changed. A second one of the user at the source, or of the
	// subject, is ErrConflict. It goes with the user.
	CreateLocalAccount(ctx context.Context, a *LocalAccount, hash string) error
	// UpdateLocalAccount writes Disabled and Changed, and the hash unless it is
	// empty.
	UpdateLocalAccount(ctx context.Context, a *LocalAccount, hash string) error

	// CreateGroups makes groups; one that is there already is left alone.
	CreateGroups(ctx context.Context, groups []Group) error
	// UpdateGroup writes a group's new name, control and description. A taken
	// name is ErrConflict. On a change of control to manual every member
	// becomes a manual one, by the actor; to sso, manual members stay manual.
	UpdateGroup(ctx context.Context, name string, g Group, actor string) error
	// DeleteGroup takes the group and its memberships away.
	DeleteGroup(ctx context.Context, name string) error

	// AddGrants and DropGrants change the reasons for a user's memberships, a
	// whole set at a time; every group exists. Adding what is there or
	// dropping what is not changes nothing.
	AddGrants(ctx context.Context, user UserID, grants []Grant, at time.Time) error
	DropGrants(ctx context.Context, user UserID, grants []Grant) error
	// AddManual and DropManual change manual memberships in the same way.
	AddManual(ctx context.Context, users []UserID, group, by string, at time.Time) error
	DropManual(ctx context.Context, user UserID, groups []string) error
	// NoteRemoval remembers, for the guard, that a sync took a group from the
	// user.
	NoteRemoval(ctx context.Context, user UserID, at time.Time) error

	PutRule(ctx context.Context, r Rule) error
	DeleteRule(ctx context.Context, id string) error

	PutLogin(ctx context.Context, l *Login) error
	// PutSession creates a session of a login that exists.
	PutSession(ctx context.Context, s *Session) error
	// TouchSessions notes when sessions were last used; a session that is gone
	// is not an error.
	TouchSessions(ctx context.Context, used map[[32]byte]time.Time) error
	// DeleteLogins ends the logins that fit every field of the filter that is
	// set, with all their sessions, and answers them.
	DeleteLogins(ctx context.Context, f LoginFilter) ([]Login, error)

	// Once notes a single-use id until its expiry; it answers false when the
	// id was there already.
	Once(ctx context.Context, kind, id string, expires time.Time) (fresh bool, err error)

	// TakeLease writes the lease when nobody has it at now: there is none of the
	// name, its time is over, or the holder is the same. One that ends later than
	// this one would, by more than LeaseSlack, is from before the clock was set
	// back, and nobody's either. It answers whether it did.
	TakeLease(ctx context.Context, l Lease, now time.Time) (bool, error)
	// PutLease writes Until and Note of a lease that is still its holder's; else
	// it is ErrConflict.
	PutLease(ctx context.Context, l Lease) error
	// DropLease gives a lease back; one that is not the holder's any more is
	// ErrConflict.
	DropLease(ctx context.Context, name, holder string) error
	// PutAttempts remembers how often something was tried, until then.
	PutAttempts(ctx context.Context, key [16]byte, body json.RawMessage, expires time.Time) error

	AddEvents(ctx context.Context, events ...Event) error
	// AddWork writes what targets have to be told. Of a user a target has one
	// piece of work at a time: what waits already keeps its ID, Created and
	// NotBefore, gets the next Version and is not parked any more.
	AddWork(ctx context.Context, work ...Work) error
	// AddWorkOfGroup is AddWork for every member of a group, or with "" for
	// everybody who is in any, with "{}" as Body.
	AddWorkOfGroup(ctx context.Context, group, target string, at time.Time) error
	DoneWork(ctx context.Context, ids ...int64) error
	// PutWork writes Failures, Refusals, NotBefore, Parked and Reason of the work
	// with that ID.
	PutWork(ctx context.Context, w Work) error
	// RetryWork makes all work of a target due, parked or not.
	RetryWork(ctx context.Context, target string) error
	// PutTold remembers what a target holds of a user by our doing. It outlives
	// the user.
	PutTold(ctx context.Context, target string, user UserID, told Told) error
	PutMeta(ctx context.Context, key string, value json.RawMessage) error

	// Notify tells every replica, once the transaction is committed, whose
	// live sessions are out of date.
	Notify(ctx context.Context, n Notice) error

	// Sweep forgets what has expired: sessions and logins, single-use ids,
	// leases, attempts, old notices and removals noted for the guard.
	Sweep(ctx context.Context, now time.Time) error
}

// LoginFilter picks logins. At least one field is set.
type LoginFilter struct {
	ID      string
	User    UserID
	Source  string
	Subject string
	Session string
	Alias   string
}

// Store keeps the directory. It is safe for concurrent use.
type Store interface {
	Reader
	// Update runs fn in one write transaction: all of it happens or nothing
	// does. It returns fn's error unchanged. fn may run again when the store
	// asks for it, so it must not touch anything outside but variables it sets
	// whole. Notices reach watchers before Update returns.
	Update(ctx context.Context, fn func(Tx) error) error
	// Watch registers a function that is told of every notice, whichever
	// replica or process caused it, at the latest 2 s after the commit. It is
	// called from several goroutines and must not block.
	Watch(fn func(Notice))
	// Now is the time by the one clock that everybody who shares the store goes
	// by. It never waits.
	Now() time.Time
	// Shared reports whether other replicas may work on the store at the same
	// time: what is kept in memory is not all there is.
	Shared() bool
	// Healthy is nil while the store is known to answer and to be up to date
	// with other replicas. It never waits.
	Healthy() error
	Close() error
}
