package groups

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/groupgate/groupgate/claims"
)

// Local users: an administrator makes them, and they sign in with a password
// that is kept here. Beside that they are users like any other: an identity of
// their source, memberships, sessions.

var _ claims.Accounts = (*Directory)(nil)

// LocalUser is a local user to be made.
type LocalUser struct {
	Name, Email, Display string
	Password             string // as claims.HashPassword wrote it
}

// LocalChange is what to change of a local user; nil fields stay.
type LocalChange struct {
	Email, Display *string
	// Password is as claims.HashPassword wrote it. The sessions of the source
	// end with the old one, but for those of the login KeepLogin.
	Password  *string
	KeepLogin string
	// Was is the hash that Password replaces; empty: whatever there is.
	Was      string
	Disabled *bool
	// If is asked about the account as it is when nobody else writes; its error
	// is the answer, and nothing is changed.
	If func(*LocalAccount) error
}

// FieldError says what is wrong with one value that an administrator gave.
type FieldError struct {
	Key string // as the API calls it
	Err error
}

func (e *FieldError) Error() string { return e.Key + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// errNoHash is a fault of ours: an empty hash is nobody's password.
var errNoHash = errors.New("directory: a local user without a password")

// LocalSource answers the source of local users and its rules for passwords.
// There is one at most.
func (d *Directory) LocalSource() (name string, cfg claims.LocalConfig, there bool) {
	for _, src := range d.state.Load().settings.Sources {
		if src.Local != nil {
			return src.Name, *src.Local, true
		}
	}
	return "", claims.LocalConfig{}, false
}

// CreateLocal makes a local user, with the default groups. A user name that is
// taken is ErrConflict, unless the user's sources and this one are linked: then
// the person gets another way to sign in, and what is known stays as it is. The
// error is a [*FieldError] when a value cannot be taken.
func (d *Directory) CreateLocal(ctx context.Context, source string, in LocalUser, actor string) (*LocalAccount, error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	if in.Password == "" {
		return nil, errNoHash
	}
	d.syncing.RLock()
	defer d.syncing.RUnlock()
	w := localWrite{d: d, st: d.state.Load(), source: source, actor: actor, at: d.now()}
	return w.update(ctx, func(tx Tx) error { return w.create(ctx, tx, in) })
}

// ChangeLocal changes a local user, all of it or nothing, and answers the
// account as it is then. Who is disabled leaves: sessions of the source end and
// its grants go, at once; manual memberships stay for when the account is
// enabled again. Errors: ErrNotFound, [*FieldError], and ErrConflict when
// another password is there than the one to be replaced.
func (d *Directory) ChangeLocal(ctx context.Context, source, subject string, c LocalChange, actor string) (*LocalAccount, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Password != nil && *c.Password == "" {
		return nil, errNoHash
	}
	d.syncing.RLock()
	defer d.syncing.RUnlock()
	w := localWrite{d: d, st: d.state.Load(), source: source, actor: actor, at: d.now()}
	return w.update(ctx, func(tx Tx) error { return w.change(ctx, tx, subject, c) })
}

// SetLocalPassword gives a local user another password; see [LocalChange].
func (d *Directory) SetLocalPassword(ctx context.Context, source, subject, hash, actor string) error {
	_, err := d.ChangeLocal(ctx, source, subject, LocalChange{Password: &hash}, actor)
	return err
}

// SetLocalDisabled ends or allows the sign-ins of a local user; see
// [Directory.ChangeLocal].
func (d *Directory) SetLocalDisabled(ctx context.Context, source, subject string, disabled bool, actor string) error {
	_, err := d.ChangeLocal(ctx, source, subject, LocalChange{Disabled: &disabled}, actor)
	return err
}

// ListLocal lists the local users of a source by user id.
func (d *Directory) ListLocal(ctx context.Context, source string, after UserID, limit int) ([]LocalAccount, error) {
	return d.store.LocalAccounts(ctx, source, after, limit)
}

// localPage is how many accounts are read at a time.
const localPage = 500

// EachLocal calls fn for every local user of a source by user id, until it
// answers an error, which EachLocal returns.
func (d *Directory) EachLocal(ctx context.Context, source string, fn func(*LocalAccount) error) error {
	for after := UserID(0); ; {
		some, err := d.ListLocal(ctx, source, after, localPage)
		if err != nil {
			return err
		}
		for i := range some {
			if err := fn(&some[i]); err != nil {
				return err
			}
			after = some[i].User.ID
		}
		if len(some) < localPage {
			return nil
		}
	}
}

// LocalOf finds the account that a user has at any source of local users;
// ErrNotFound when there is none.
func (d *Directory) LocalOf(ctx context.Context, user UserID) (*LocalAccount, error) {
	ids, err := d.store.Identities(ctx, user)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		a, err := d.store.LocalAccount(ctx, id.Source, id.Subject)
		if !isNotFound(err) {
			return a, err
		}
	}
	return nil, fmt.Errorf("local account of %s: %w", user, ErrNotFound)
}

// Account finds a local user for a source of them, see [claims.Accounts].
func (d *Directory) Account(ctx context.Context, source, user string) (*claims.Account, error) {
	a, err := d.store.LocalAccountByName(ctx, source, user)
	return d.account(ctx, a, err)
}

// AccountOf finds a local user by the subject, see [claims.Accounts].
func (d *Directory) AccountOf(ctx context.Context, source, subject string) (*claims.Account, error) {
	a, err := d.store.LocalAccount(ctx, source, subject)
	return d.account(ctx, a, err)
}

func (d *Directory) account(ctx context.Context, a *LocalAccount, err error) (*claims.Account, error) {
	hash := ""
	if err == nil {
		hash, err = d.store.LocalPassword(ctx, a.Source, a.Subject)
	}
	switch {
	case isNotFound(err): // deleted between the two, perhaps
		return nil, nil
	case err != nil:
		return nil, asClaims(err)
	}
	return &claims.Account{Subject: a.Subject, Claims: localClaims(&a.User), Password: hash, Disabled: a.Disabled}, nil
}

// ReplacePassword is a change by the person's own wish, see [claims.Accounts].
func (d *Directory) ReplacePassword(ctx context.Context, source, subject, was, hash, keepLogin string) error {
	_, err := d.ChangeLocal(ctx, source, subject, LocalChange{Password: &hash, Was: was, KeepLogin: keepLogin}, "")
	switch {
	case errors.Is(err, ErrConflict):
		return claims.ErrBadPassword
	case isNotFound(err):
		return fmt.Errorf("the account is gone: %w", claims.ErrDenied)
	}
	return asClaims(err)
}

// asClaims gives a store that does not answer the name that sources know.
func asClaims(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%w: %w", claims.ErrUnavailable, err)
	}
	return err
}

// localClaims is what a local source states about a user.
func localClaims(u *User) claims.Claims {
	m := map[string][]string{}
	for name, value := range map[string]string{
		claims.LocalNames.User: u.Name, claims.LocalNames.Email: u.Email, claims.LocalNames.Name: u.Display,
	} {
		if value != "" {
			m[name] = []string{value}
		}
	}
	return claims.FromMap(m)
}

// Check says as a [*FieldError] what is wrong with the values, but for the
// password, which may not be known yet.
func (in *LocalUser) Check() error {
	if err := claims.CheckUserName(in.Name); err != nil {
		return &FieldError{"user", err}
	}
	return (&LocalChange{Email: &in.Email, Display: &in.Display}).Check()
}

// Check says as a [*FieldError] what is wrong with the values.
func (c *LocalChange) Check() error {
	if c.Email != nil {
		if err := checkEmail(*c.Email); err != nil {
			return &FieldError{"email", err}
		}
	}
	if c.Display != nil {
		if err := checkText(*c.Display); err != nil {
			return &FieldError{"name", err}
		}
	}
	return nil
}

const maxTextBytes = 256 // of an e-mail address (RFC 5321 section 4.5.3.1.3) or display name

func checkText(s string) error {
	switch {
	case len(s) > maxTextBytes:
		return fmt.Errorf("is longer than %d bytes", maxTextBytes)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("has control characters, or bytes that are not UTF-8")
	case strings.TrimSpace(s) != s:
		return errors.New("has blanks at its ends")
	}
	return nil
}

// checkEmail wants exactly one "@", like claims.Require: what has more is read
// differently by different programs.
func checkEmail(s string) error {
	if s == "" {
		return nil
	}
	local, domain, _ := strings.Cut(s, "@")
	if local == "" || domain == "" || strings.Contains(domain, "@") || strings.ContainsFunc(s, unicode.IsSpace) {
		return errors.New("is not an address: user@example.com")
	}
	return checkText(s)
}
