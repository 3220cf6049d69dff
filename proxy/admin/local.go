package admin

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// local is how a local user signs in. The password stays in the store.
type local struct {
	Source   string    `json:"source"`
	Disabled bool      `json:"disabled"`
	Changed  time.Time `json:"password_changed"`
}

// local is nil for a user of other sources alone. The tag is of what can be
// changed.
func (s *Server) local(ctx context.Context, id groups.UserID) (l *local, tag string, err error) {
	a, err := s.dir.LocalOf(ctx, id)
	if errors.Is(err, groups.ErrNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	return &local{a.Source, a.Disabled, a.Changed.UTC()}, accountTag(a), nil
}

// accountTag is a tag of what can be changed of a local user.
func accountTag(a *groups.LocalAccount) string {
	return tag(a.User.ID.String(), a.User.Email, a.User.Display, strconv.FormatBool(a.Disabled), strconv.FormatInt(a.Changed.UnixMicro(), 10))
}

func (s *Server) localSource() (string, claims.LocalConfig, error) {
	name, cfg, there := s.dir.LocalSource()
	if !there {
		return "", cfg, conflict("There is no source of local users in the configuration.")
	}
	return name, cfg, nil
}

func (s *Server) createUser(x *exchange) error {
	var in struct {
		User     string `json:"user"`
		Email    string `json:"email"`
		Name     string `json:"name"`
		Password string `json:"password"`
	}
	if err := x.decode(&in, maxBody); err != nil {
		return err
	}
	source, cfg, err := s.localSource()
	if err != nil {
		return err
	}
	made := groups.LocalUser{Name: in.User, Email: in.Email, Display: in.Name}
	if err := made.Check(); err != nil { // before the work of hashing
		return err
	}
	ctx := x.r.Context()
	if made.Password, err = cfg.NewPassword(ctx, in.User, in.Password); err != nil {
		return err
	}
	a, err := s.dir.CreateLocal(ctx, source, made, x.from.actor)
	if errors.Is(err, groups.ErrConflict) {
		return conflict("The user name is taken.")
	}
	if err != nil {
		return err
	}
	out, err := s.user(ctx, a.User.ID)
	if err != nil {
		return err
	}
	return x.created(apiPrefix+"users/"+a.User.ID.String(), out)
}

// flag is one member of a merge patch that is true or false.
type flag struct {
	set   bool
	value *bool
}

func (f *flag) UnmarshalJSON(raw []byte) error {
	f.set = true
	return json.Unmarshal(raw, &f.value)
}

type userPatch struct {
	Email    change `json:"email"`
	Name     change `json:"name"`
	Password change `json:"password"`
	Disabled flag   `json:"disabled"`
}

// change checks a patch of a local user, but for the password. A null takes a
// value away, and only an address or a name can be gone.
func (in *userPatch) change() (groups.LocalChange, []Fault) {
	var faults []Fault
	if in.Password.set && in.Password.value == nil {
		faults = append(faults, Fault{"password", "a local user has a password"})
	}
	if in.Disabled.set && in.Disabled.value == nil {
		faults = append(faults, Fault{"disabled", "is true or false"})
	}
	out := groups.LocalChange{Email: in.Email.value, Display: in.Name.value, Disabled: in.Disabled.value}
	if in.Email.set && out.Email == nil {
		out.Email = new(string)
	}
	if in.Name.set && out.Display == nil {
		out.Display = new(string)
	}
	return out, faults
}

func (s *Server) patchUser(x *exchange) error {
	id, err := userArg(x.args[0])
	if err != nil {
		return err
	}
	var in userPatch
	if err := x.decode(&in, maxBody, "application/merge-patch+json"); err != nil {
		return err
	}
	c, faults := in.change()
	if faults != nil {
		return invalid(faults...)
	}
	ctx := x.r.Context()
	a, err := s.changeable(ctx, id)
	if err != nil {
		return err
	}
	if err := c.Check(); err != nil {
		return err
	}
	if in.Password.set {
		_, cfg, _ := s.dir.LocalSource()
		hash, err := cfg.NewPassword(ctx, a.User.Name, *in.Password.value)
		if err != nil {
			return err
		}
		c.Password = &hash
	}
	if in.Disabled.set && *in.Disabled.value {
		if err := s.keepsPeople(x, id, s.waysIn(x)...); err != nil {
			return err
		}
	}
	if err := s.changeLocal(x, id, c); err != nil {
		return err
	}
	return s.showUser(x, id)
}

// changeLocal holds the precondition to the account as it is now: hashing a
// password takes its time.
func (s *Server) changeLocal(x *exchange, id groups.UserID, c groups.LocalChange) error {
	ctx := x.r.Context()
	s.userWrites.Lock()
	defer s.userWrites.Unlock()
	a, err := s.changeable(ctx, id)
	if err != nil {
		return err
	}
	if err := x.precondition(accountTag(a)); err != nil {
		return err
	}
	c.If = func(a *groups.LocalAccount) error { return x.precondition(accountTag(a)) } // another replica may have been faster
	_, err = s.dir.ChangeLocal(ctx, a.Source, a.Subject, c, x.from.actor)
	return err
}

// changeable is the account of a local user. What other sources say about a
// person is theirs to change.
func (s *Server) changeable(ctx context.Context, id groups.UserID) (*groups.LocalAccount, error) {
	source, _, err := s.localSource()
	if err != nil {
		return nil, err
	}
	if _, err := s.dir.Store().User(ctx, id); errors.Is(err, groups.ErrNotFound) {
		return nil, noUser(id.String())
	}
	a, err := s.dir.LocalOf(ctx, id)
	if errors.Is(err, groups.ErrNotFound) || err == nil && a.Source != source {
		return nil, conflict("This is no local user: the sources say who the person is.")
	}
	return a, err
}
