// Package groups is the directory: users, groups, memberships, rules, and the
// one operation everything turns on, the sync.
//
// A sync makes one user's memberships what the rules say about the latest
// statement of a source. Its two halves are pure: [Rules.Apply] says what a
// statement grants, [Diff] says what has to change. A login, a refresh, a
// changed rule, "explain" and "plan" all call the same two.
//
// # Design
//
// A membership remembers why it exists: which source, rule, claim and value
// granted it, or which administrator. Nothing is ever removed by group; it is
// removed by reason. That is what lets two sources grant the same group, and
// what lets a manual membership outlive every sync.
package groups

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/groupgate/groupgate/claims"
)

// Errors that a caller branches on.
var (
	ErrNotFound     = errors.New("not found")
	ErrConflict     = errors.New("conflict")             // the same name or id is there already
	ErrUnavailable  = errors.New("store is unavailable") // down, locked, full, read-only; try again later
	ErrNameTaken    = errors.New("the user name belongs to another identity")
	ErrClaimMissing = errors.New("a claim that must be there is absent")
	ErrReplayed     = errors.New("used before")
	ErrControlled   = errors.New("the group is controlled by SSO")
)

// UserID is a user's stable id. Ids are never given twice; 0 is no user.
type UserID int64

// String writes the id as the outside sees it.
func (id UserID) String() string { return "u" + strconv.FormatInt(int64(id), 36) }

// MarshalText writes the id as the outside sees it.
func (id UserID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// ParseUserID reads what [UserID.String] wrote; anything else is ErrNotFound.
func ParseUserID(s string) (UserID, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(s, "u"), 36, 64)
	if err != nil || n <= 0 || UserID(n).String() != s {
		return 0, fmt.Errorf("user %q: %w", s, ErrNotFound)
	}
	return UserID(n), nil
}

// Control says who decides about a group's members: the sync or people.
type Control string

// The two controls.
const (
	SSO    Control = "sso"
	Manual Control = "manual"
)

// User is one person.
type User struct {
	ID      UserID
	Name    string // the user name; unique, ASCII case not told apart
	Email   string
	Display string
	Created time.Time
}

// IdentityRecord is an identity as the directory keeps it: who it belongs to
// and what it said last.
type IdentityRecord struct {
	User        UserID
	Source      string
	Subject     string
	Claims      claims.Claims
	IssuedAt    time.Time
	Seen        time.Time // the last sign-in or refresh
	Fingerprint string    // of the last sync that had nothing left to do; empty otherwise
	// Epoch is the directory's (Reader.Epoch) when the record was read: an
	// unchanged sync needs to know nothing else. It is not written.
	Epoch int64
}

// LocalAccount is how a local user signs in. The hash of the password is not
// part of it, so that no list holds one.
type LocalAccount struct {
	User     User
	Source   string
	Subject  string // random, and never another
	Disabled bool
	Changed  time.Time // when the password was last set
}

// Group is one group.
type Group struct {
	Name        string    `json:"name"`
	Control     Control   `json:"control"`
	Description string    `json:"description"`
	Members     int       `json:"members"` // filled by Groups and Group
	Created     time.Time `json:"created"`
}

// Grant is one reason for one membership: this value of this claim of this
// source, by this rule. The rule is "default" for sync.default_groups.
type Grant struct {
	Group  string `json:"group"`
	Source string `json:"source"`
	Rule   string `json:"rule"`
	Claim  string `json:"claim"`
	Value  string `json:"value"`
}

// Compare orders grants by group, then by reason.
func (g Grant) Compare(o Grant) int {
	if c := strings.Compare(g.Group, o.Group); c != 0 {
		return c // mostly: a sort of thousands of grants comes here
	}
	return cmp.Or(strings.Compare(g.Source, o.Source), strings.Compare(g.Rule, o.Rule),
		strings.Compare(g.Claim, o.Claim), strings.Compare(g.Value, o.Value))
}

// Membership is a user in a group, with every reason for it: at least one
// grant, or By, or both.
type Membership struct {
	Group   string
	Control Control
	Grants  []Grant
	By      string // who added the person by hand; empty when nobody did
	Since   time.Time
}

// Origin is "sso" when any grant holds the membership, else "manual".
func (m Membership) Origin() Control {
	if len(m.Grants) > 0 {
		return SSO
	}
	return Manual
}

// Login is what one sign-in began. The sessions of the public host and of the
// portals that came of it share it and end with it.
type Login struct {
	ID       string
	User     UserID
	Source   string
	Subject  string
	Session  string // the source's own session id
	Alias    string // what the source calls the person in its logouts, as in claims.Identity
	Created  time.Time
	Expires  time.Time
	ClaimsAt time.Time // when the source was last asked
	Grant    []byte    // sealed; nil when the source gave none
}

// Session is one browser on one host.
type Session struct {
	Hash  [32]byte // SHA-256 of the cookie's value
	Host  string   // the portal's host; empty on the public host
	Used  time.Time
	Login Login
}

// Event is one line of the audit trail. It is appended and never changed.
type Event struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"` // one of the Event... words
	User    UserID    `json:"user_id,omitzero"`
	Name    string    `json:"user,omitempty"` // the user name at that time
	Source  string    `json:"source,omitempty"`
	Group   string    `json:"group,omitempty"`
	Actor   string    `json:"actor,omitempty"`   // who did it, when it was not the person
	Request string    `json:"request,omitempty"` // id of the request, as shown on pages
	Reason  string    `json:"reason,omitempty"`
	Change  *Change   `json:"change,omitempty"` // of a sync
	// States are the resolutions of a sync that are not complete.
	States map[string]claims.Resolution `json:"states,omitempty"`
}

// Kinds of events.
const (
	EventSignIn       = "sign_in"
	EventSignOut      = "sign_out"
	EventSync         = "sync"
	EventRefused      = "refused"
	EventGuard        = "guard"
	EventGuardAllowed = "guard_allowed"
	EventUserCreated  = "user_created"
	EventUserRenamed  = "user_renamed"
	EventUserDeleted  = "user_deleted"
	EventUserChanged  = "user_changed"     // a local user's e-mail address or display name
	EventUserDisabled = "user_disabled"    // a local user
	EventUserEnabled  = "user_enabled"     // a local user
	EventAccountAdded = "account_added"    // a local account of a user whom another source stated
	EventPassword     = "password_changed" // of a local user
	EventGroupCreated = "group_created"
	EventGroupChanged = "group_changed"
	EventGroupDeleted = "group_deleted"
	EventMemberAdded  = "member_added"
	EventMemberGone   = "member_removed"
	EventImported     = "members_imported"
	EventRuleChanged  = "rule_changed"
	EventRuleDeleted  = "rule_deleted"
	EventReloaded     = "config_reloaded"
	EventOverflow     = "header_overflow"
	EventNotServed    = "not_served"          // a fault of ours, the upstream's or a source's
	EventNotStored    = "refusals_not_stored" // how many were too many
	EventParked       = "target_parked"       // a target refused to be told of a person
	EventRetried      = "target_retried"      // somebody had a target's work tried again
)

// Work says that a target has to be told of a user: all there is to say at the
// moment of telling. A target has one piece of work of a user at a time, and
// the users' work is told in the order in which it was first written.
type Work struct {
	ID      int64
	Target  string
	User    UserID
	Body    json.RawMessage // what changed last, for people who look into the store
	Created time.Time

	Version   int64     // grows with each change while it waits
	Failures  int       // attempts in a row that came to nothing
	Refusals  int       // of these, the latest ones that the target refused
	NotBefore time.Time // of the next attempt
	Parked    time.Time // since when nobody tries any more; zero: somebody does
	Reason    string    // of the last failure; it holds no secret
}

// Backlog counts a target's work.
type Backlog struct {
	Waiting int       // all of it
	Parked  int       // of these, what nobody tries any more
	Oldest  time.Time // when the oldest was written; zero: there is none
	Next    time.Time // the smallest NotBefore of what is not parked
}

// Notice says whose live sessions may be out of date. A zero notice means
// everybody's.
type Notice struct {
	User  UserID
	Login string // only the sessions of this login
}
