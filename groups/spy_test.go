package groups_test

import (
	"context"
	"encoding/json"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// spy is a real store that asks before every step of it. An error in place of
// an answer is a step that failed.
type spy struct {
	groups.Store
	on func(step string) error
}

func (s *spy) Rules(ctx context.Context) ([]groups.Rule, error) {
	return ask(s.on, "rules", func() ([]groups.Rule, error) { return s.Store.Rules(ctx) })
}

func (s *spy) Identity(ctx context.Context, source, subject string) (*groups.IdentityRecord, error) {
	rec, err := s.Store.Identity(ctx, source, subject)
	if err := s.on("identity read"); err != nil {
		return nil, err
	}
	return rec, err
}

func (s *spy) EachIdentity(ctx context.Context, fn func(*groups.IdentityRecord) error) error {
	if err := s.on("each identity"); err != nil {
		return err
	}
	if err := s.Store.EachIdentity(ctx, fn); err != nil {
		return err
	}
	return s.on("each identity done")
}

func (s *spy) Update(ctx context.Context, fn func(groups.Tx) error) error {
	if err := s.on("begin"); err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx groups.Tx) error {
		if err := fn(&spyTx{tx, s.on}); err != nil {
			return err
		}
		return s.on("commit")
	})
}

type spyTx struct {
	groups.Tx
	on func(step string) error
}

func ask[T any](on func(string) error, step string, do func() (T, error)) (T, error) {
	if err := on(step); err != nil {
		var none T
		return none, err
	}
	return do()
}

func (t *spyTx) do(step string, do func() error) error {
	if err := t.on(step); err != nil {
		return err
	}
	return do()
}

func (t *spyTx) Once(ctx context.Context, kind, id string, until time.Time) (bool, error) {
	return ask(t.on, "once", func() (bool, error) { return t.Tx.Once(ctx, kind, id, until) })
}

func (t *spyTx) Identity(ctx context.Context, source, subject string) (*groups.IdentityRecord, error) {
	return ask(t.on, "tx identity", func() (*groups.IdentityRecord, error) { return t.Tx.Identity(ctx, source, subject) })
}

func (t *spyTx) Identities(ctx context.Context, u groups.UserID) ([]groups.IdentityRecord, error) {
	return ask(t.on, "tx identities", func() ([]groups.IdentityRecord, error) { return t.Tx.Identities(ctx, u) })
}

func (t *spyTx) User(ctx context.Context, u groups.UserID) (*groups.User, error) {
	return ask(t.on, "tx user", func() (*groups.User, error) { return t.Tx.User(ctx, u) })
}

func (t *spyTx) UserByName(ctx context.Context, name string) (*groups.User, error) {
	return ask(t.on, "tx user by name", func() (*groups.User, error) { return t.Tx.UserByName(ctx, name) })
}

func (t *spyTx) Memberships(ctx context.Context, u groups.UserID) ([]groups.Membership, error) {
	return ask(t.on, "tx memberships", func() ([]groups.Membership, error) { return t.Tx.Memberships(ctx, u) })
}

func (t *spyTx) GroupNames(ctx context.Context, u groups.UserID) ([]string, error) {
	return ask(t.on, "tx group names", func() ([]string, error) { return t.Tx.GroupNames(ctx, u) })
}

func (t *spyTx) Controls(ctx context.Context, names []string) (map[string]groups.Control, error) {
	return ask(t.on, "tx controls", func() (map[string]groups.Control, error) { return t.Tx.Controls(ctx, names) })
}

func (t *spyTx) Epoch(ctx context.Context) (int64, error) {
	return ask(t.on, "tx epoch", func() (int64, error) { return t.Tx.Epoch(ctx) })
}

func (t *spyTx) Meta(ctx context.Context, key string) (json.RawMessage, error) {
	return ask(t.on, "tx meta", func() (json.RawMessage, error) { return t.Tx.Meta(ctx, key) })
}

func (t *spyTx) RemovedUsers(ctx context.Context, since time.Time) ([]groups.UserID, error) {
	return ask(t.on, "tx removed users", func() ([]groups.UserID, error) { return t.Tx.RemovedUsers(ctx, since) })
}

func (t *spyTx) LoginByID(ctx context.Context, id string) (*groups.Login, error) {
	return ask(t.on, "tx login", func() (*groups.Login, error) { return t.Tx.LoginByID(ctx, id) })
}

func (t *spyTx) LockUser(ctx context.Context, u groups.UserID) error {
	return t.do("lock user", func() error { return t.Tx.LockUser(ctx, u) })
}

func (t *spyTx) CreateUser(ctx context.Context, u *groups.User) error {
	return t.do("create user", func() error { return t.Tx.CreateUser(ctx, u) })
}

func (t *spyTx) UpdateUser(ctx context.Context, u *groups.User) error {
	return t.do("update user", func() error { return t.Tx.UpdateUser(ctx, u) })
}

func (t *spyTx) DeleteUser(ctx context.Context, u groups.UserID) error {
	return t.do("delete user", func() error { return t.Tx.DeleteUser(ctx, u) })
}

func (t *spyTx) LocalAccount(ctx context.Context, source, subject string) (*groups.LocalAccount, error) {
	return ask(t.on, "tx local account", func() (*groups.LocalAccount, error) { return t.Tx.LocalAccount(ctx, source, subject) })
}

func (t *spyTx) LocalPassword(ctx context.Context, source, subject string) (string, error) {
	return ask(t.on, "tx local password", func() (string, error) { return t.Tx.LocalPassword(ctx, source, subject) })
}

func (t *spyTx) Sessions(ctx context.Context, u groups.UserID) ([]groups.Session, error) {
	return ask(t.on, "tx sessions", func() ([]groups.Session, error) { return t.Tx.Sessions(ctx, u) })
}

func (t *spyTx) CreateLocalAccount(ctx context.Context, a *groups.LocalAccount, hash string) error {
	return t.do("create local account", func() error { return t.Tx.CreateLocalAccount(ctx, a, hash) })
}

func (t *spyTx) UpdateLocalAccount(ctx context.Context, a *groups.LocalAccount, hash string) error {
	return t.do("update local account", func() error { return t.Tx.UpdateLocalAccount(ctx, a, hash) })
}

func (t *spyTx) PutIdentity(ctx context.Context, rec *groups.IdentityRecord) error {
	return t.do("put identity", func() error { return t.Tx.PutIdentity(ctx, rec) })
}

func (t *spyTx) CreateGroups(ctx context.Context, g []groups.Group) error {
	return t.do("create groups", func() error { return t.Tx.CreateGroups(ctx, g) })
}

func (t *spyTx) AddGrants(ctx context.Context, u groups.UserID, g []groups.Grant, at time.Time) error {
	return t.do("add grants", func() error { return t.Tx.AddGrants(ctx, u, g, at) })
}

func (t *spyTx) DropGrants(ctx context.Context, u groups.UserID, g []groups.Grant) error {
	return t.do("drop grants", func() error { return t.Tx.DropGrants(ctx, u, g) })
}

func (t *spyTx) DropManual(ctx context.Context, u groups.UserID, g []string) error {
	return t.do("drop manual", func() error { return t.Tx.DropManual(ctx, u, g) })
}

func (t *spyTx) NoteRemoval(ctx context.Context, u groups.UserID, at time.Time) error {
	return t.do("note removal", func() error { return t.Tx.NoteRemoval(ctx, u, at) })
}

func (t *spyTx) PutRule(ctx context.Context, r groups.Rule) error {
	return t.do("put rule", func() error { return t.Tx.PutRule(ctx, r) })
}

func (t *spyTx) PutMeta(ctx context.Context, key string, v json.RawMessage) error {
	return t.do("put meta", func() error { return t.Tx.PutMeta(ctx, key, v) })
}

func (t *spyTx) PutLogin(ctx context.Context, l *groups.Login) error {
	return t.do("put login", func() error { return t.Tx.PutLogin(ctx, l) })
}

func (t *spyTx) PutSession(ctx context.Context, s *groups.Session) error {
	return t.do("put session", func() error { return t.Tx.PutSession(ctx, s) })
}

func (t *spyTx) DeleteLogins(ctx context.Context, f groups.LoginFilter) ([]groups.Login, error) {
	return ask(t.on, "delete logins", func() ([]groups.Login, error) { return t.Tx.DeleteLogins(ctx, f) })
}

func (t *spyTx) AddWork(ctx context.Context, w ...groups.Work) error {
	return t.do("add work", func() error { return t.Tx.AddWork(ctx, w...) })
}

func (t *spyTx) AddEvents(ctx context.Context, e ...groups.Event) error {
	return t.do("add events", func() error { return t.Tx.AddEvents(ctx, e...) })
}

func (t *spyTx) Notify(ctx context.Context, n groups.Notice) error {
	return t.do("notify", func() error { return t.Tx.Notify(ctx, n) })
}

// nthFails answers a hook whose n-th step fails, and says afterwards which one
// that was; "" when there were fewer.
func nthFails(n int, fault error) (on func(string) error, failed func() string) {
	var at string
	return func(step string) error {
		if n--; n == 0 {
			at = step
			return fault
		}
		return nil
	}, func() string { return at }
}
