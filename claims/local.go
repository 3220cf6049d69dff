package claims

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"
	"golang.org/x/text/unicode/norm"
)

var (
	_ PasswordSource  = (*Local)(nil)
	_ PasswordChanger = (*Local)(nil)
)

// Accounts is where local users are kept.
type Accounts interface {
	// Account finds a local user by the user name, ASCII case not told apart.
	// Nobody is nil without an error. Errors: ErrUnavailable.
	Account(ctx context.Context, source, user string) (*Account, error)
	// AccountOf finds a local user by the subject, in the same way.
	AccountOf(ctx context.Context, source, subject string) (*Account, error)
	// ReplacePassword writes another password, as HashPassword wrote it, in
	// place of the one that was read, by the person's own wish: sessions of the
	// source end, but for those of the login keepLogin. Errors: ErrBadPassword
	// when it is not the one that was read any more, ErrDenied when the account
	// is disabled or gone, ErrUnavailable.
	ReplacePassword(ctx context.Context, source, subject, was, hash, keepLogin string) error
}

// Account is one local user.
type Account struct {
	Subject  string
	Claims   Claims // LocalNames: user name, e-mail address, display name; what is empty is not there
	Password string // as HashPassword wrote it
	Disabled bool
}

// LocalNames are the claims of a local user, whatever other sources call them.
var LocalNames = Names{User: "preferred_username", Email: "email", Name: "name"}

// LocalOptions is what a local source is made of.
type LocalOptions struct {
	Name     string
	Config   LocalConfig
	Accounts Accounts
	Log      *zap.Logger      // nil: none
	Now      func() time.Time // nil: time.Now
}

// Local is the users that an administrator made. It is safe for concurrent
// use.
type Local struct {
	name     string
	cfg      LocalConfig
	accounts Accounts
	log      *zap.Logger
	now      func() time.Time
}

// NewLocal makes the source.
func NewLocal(o LocalOptions) *Local {
	l := &Local{name: o.Name, cfg: o.Config, accounts: o.Accounts, log: o.Log, now: o.Now}
	if l.log == nil {
		l.log = zap.NewNop()
	}
	if l.now == nil {
		l.now = time.Now
	}
	return l
}

// Name is the source's name in the configuration.
func (l *Local) Name() string { return l.name }

// localWait is how long a check may wait for its turn and for the store.
const localWait = 10 * time.Second

// CheckPassword answers whose password it is. There is no grant: nobody has to
// be asked later, since whoever disables an account ends its sessions.
func (l *Local) CheckPassword(ctx context.Context, c Credentials) (*Identity, *Grant, error) {
	user, err := typed(c)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, localWait)
	defer cancel()
	at := l.now() // before the account is read: a change after this is newer
	a, err := l.find(ctx, user)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: read account: %w", l.name, err)
	}
	if a != nil && c.Attempt != nil {
		if err := c.Attempt(a.Subject); err != nil {
			return nil, nil, err
		}
	}
	if err := l.check(ctx, a, c.Password); err != nil {
		return nil, nil, err
	}
	if a.Disabled {
		return nil, nil, &DisabledError{Subject: a.Subject, Why: "the local account is disabled"}
	}
	return &Identity{Source: l.name, Subject: a.Subject, Claims: a.Claims, IssuedAt: at}, nil, nil
}

// find takes the user name as it was typed, then with one spelling for each
// character. Nobody's name is made with another, see [CheckUserName].
func (l *Local) find(ctx context.Context, user string) (*Account, error) {
	a, err := l.accounts.Account(ctx, l.name, user)
	if a != nil || err != nil {
		return a, err
	}
	if plain := plainUser(user); plain != user && plain != "" {
		return l.accounts.Account(ctx, l.name, plain)
	}
	return nil, nil
}

// check takes as long for nobody's account as for somebody's.
func (l *Local) check(ctx context.Context, a *Account, password string) error {
	hash := ""
	if a != nil {
		hash = a.Password
	}
	right, err := checkHash(ctx, hash, password)
	if errors.Is(err, errHash) {
		l.log.Error("an account cannot be used: set its password again", zap.String("source", l.name),
			zap.String("subject", a.Subject), zap.Error(err))
		return ErrBadPassword
	}
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	if !right {
		return ErrBadPassword
	}
	return nil
}

// ChangePassword replaces the password of who knows the old one.
func (l *Local) ChangePassword(ctx context.Context, subject, old, new, keepLogin string) error {
	ctx, cancel := context.WithTimeout(ctx, localWait)
	defer cancel()
	a, err := l.accounts.AccountOf(ctx, l.name, subject)
	switch {
	case err != nil:
		return fmt.Errorf("%s: read account: %w", l.name, err)
	case a == nil || a.Disabled:
		return fmt.Errorf("%s: the account is disabled or gone: %w", l.name, ErrDenied)
	}
	// The rules first: they say nothing about the old one and cost nothing.
	name := a.Claims.Text(LocalNames.User)
	if err := l.cfg.checkPassword(name, new); err != nil {
		return err
	}
	if _, err := typed(Credentials{User: name, Password: old}); err != nil {
		return err
	}
	if err := l.check(ctx, a, old); err != nil {
		return err
	}
	hash, err := HashPassword(ctx, new)
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	if err := l.accounts.ReplacePassword(ctx, l.name, subject, a.Password, hash, keepLogin); err != nil {
		return fmt.Errorf("%s: replace password: %w", l.name, err)
	}
	return nil
}

// plainUser is a user name with one spelling for each character, and no blanks
// around it.
func plainUser(user string) string { return strings.TrimSpace(norm.NFKC.String(user)) }

// CheckUserName says why a local user may not have that name.
func CheckUserName(user string) error {
	switch {
	case user == "":
		return errors.New("is empty")
	case len(user) > maxTypedUser:
		return fmt.Errorf("is longer than %d bytes", maxTypedUser)
	case !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl):
		return errors.New("has control characters, or bytes that are not UTF-8")
	case plainUser(user) != user:
		return fmt.Errorf("would be typed in several ways: write %q", plainUser(user))
	}
	return nil
}
