package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
)

// Users is where the "user" commands find local users, and whom they talk to.
type Users struct {
	Config string // the configuration, which names the store and the source
	Store  string // the store itself; then Config is not read, it may be what is broken
	Source string // empty: the configuration's, or "local"
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
}

// commandLine is who audit events name for what the commands do.
const commandLine = "command line"

// localUsers is an open store and its source of local users.
type localUsers struct {
	dir    *groups.Directory
	source string
	cfg    claims.LocalConfig
	where  place
	close  func() error
}

// open opens the store. It works while a groupgate runs on it, which hears of
// every change within 2 s. A store that is not there is made only where the
// configuration names it: before the first start.
func (u Users) open(ctx context.Context, fresh bool) (*localUsers, error) {
	l := &localUsers{source: u.Source, cfg: claims.DefaultLocal, where: parsePlace(u.Store)}
	var settings *groups.Settings
	if u.Store == "" {
		cfg, err := config.Load(u.Config)
		if err != nil {
			fmt.Fprintln(u.Err, "groupgate: the configuration cannot be used; --store FILE.db does without it")
			return nil, err
		}
		if err := l.find(cfg, u.Config); err != nil {
			return nil, err
		}
		s := directorySettings(cfg)
		settings, l.where = &s, placeOf(cfg.Store)
	} else if l.source == "" {
		l.source = "local"
	}
	if err := l.where.missing(); err != nil && (u.Store != "" || !fresh) {
		return nil, fmt.Errorf("store: %w", err)
	}
	store, err := l.where.open(ctx, nil)
	if err != nil {
		return nil, err
	}
	l.close, l.dir = store.Close, groups.NewDirectory(groups.Options{Store: store})
	if settings != nil {
		if err := l.dir.Preview(ctx, *settings); err != nil {
			return nil, errors.Join(err, store.Close())
		}
	}
	return l, nil
}

// find is the source of local users that a configuration has.
func (l *localUsers) find(cfg *config.Config, file string) error {
	for _, src := range cfg.Sources {
		if src.Local == nil || l.source != "" && l.source != src.Name {
			continue
		}
		l.source, l.cfg = src.Name, *src.Local
		return nil
	}
	if l.source != "" {
		return fmt.Errorf("--source %q: %s has no source of local users of that name", l.source, file)
	}
	return fmt.Errorf("%s has no source of local users; under sources it is written  - {name: local, local: {}}", file)
}

// user finds a local user by name.
func (l *localUsers) user(ctx context.Context, name string) (*groups.LocalAccount, error) {
	a, err := l.dir.Store().LocalAccountByName(ctx, l.source, name)
	if errors.Is(err, groups.ErrNotFound) {
		return nil, fmt.Errorf("there is no local user %q of source %s in %s", name, l.source, l.where)
	}
	return a, err
}

// with runs fn on the open store.
func (u Users) with(ctx context.Context, fn func(*localUsers) error) error {
	l, err := u.open(ctx, false)
	return u.and(l, err, fn)
}

func (u Users) and(l *localUsers, err error, fn func(*localUsers) error) error {
	if err != nil {
		return err
	}
	return errors.Join(fn(l), l.close())
}

// Add makes a local user. With generate the password is made up, and printed
// alone on the standard output.
func (u Users) Add(ctx context.Context, name, email, display string, generate bool) error {
	in := groups.LocalUser{Name: name, Email: email, Display: display}
	if err := in.Check(); err != nil { // before anybody types a password twice
		return err
	}
	l, err := u.open(ctx, true)
	return u.and(l, err, func(l *localUsers) error {
		if err := l.taken(ctx, in.Name, nil); err != nil {
			return err
		}
		hash, shown, err := u.newPassword(ctx, l, in.Name, generate)
		if err != nil {
			return err
		}
		in.Password = hash
		a, err := l.dir.CreateLocal(ctx, l.source, in, commandLine)
		if errors.Is(err, groups.ErrConflict) {
			return l.taken(ctx, in.Name, err)
		}
		if err != nil {
			return err
		}
		note := "added"
		if a.User.Email != in.Email || a.User.Display != in.Display {
			note = "added to a user who is known already: e-mail address and name stay as they are"
		}
		return u.done(l, a, note, shown)
	})
}

// taken says whose a user name is. Without a cause it looks for a local user
// alone: others may be linked.
func (l *localUsers) taken(ctx context.Context, name string, cause error) error {
	_, err := l.dir.Store().LocalAccountByName(ctx, l.source, name)
	switch {
	case err == nil:
		return fmt.Errorf("there is a local user %q already; \"groupgate user passwd\" gives another password", name)
	case !errors.Is(err, groups.ErrNotFound):
		return err
	case cause != nil:
		return fmt.Errorf("the user name %q is taken: %w", name, cause)
	}
	return nil
}

// Passwd gives a local user another password. The person is signed out
// everywhere.
func (u Users) Passwd(ctx context.Context, name string, generate bool) error {
	return u.with(ctx, func(l *localUsers) error {
		a, err := l.user(ctx, name)
		if err != nil {
			return err
		}
		hash, shown, err := u.newPassword(ctx, l, a.User.Name, generate)
		if err != nil {
			return err
		}
		if err := l.dir.SetLocalPassword(ctx, l.source, a.Subject, hash, commandLine); err != nil {
			return err
		}
		return u.done(l, a, "has another password, and is signed out everywhere", shown)
	})
}

// SetDisabled ends or allows the sign-ins of a local user.
func (u Users) SetDisabled(ctx context.Context, name string, disabled bool) error {
	return u.with(ctx, func(l *localUsers) error {
		a, err := l.user(ctx, name)
		if err != nil {
			return err
		}
		if err := l.dir.SetLocalDisabled(ctx, l.source, a.Subject, disabled, commandLine); err != nil {
			return err
		}
		note := "enabled"
		if disabled {
			note = "disabled, and signed out everywhere"
		}
		return u.done(l, a, note, "")
	})
}

// done says what was done. A password that was made up stands alone on the
// standard output, for scripts.
func (u Users) done(l *localUsers, a *groups.LocalAccount, note, password string) error {
	if password == "" {
		_, err := fmt.Fprintf(u.Out, "%s (source %s): %s\n", a.User.Name, l.source, note)
		return err
	}
	fmt.Fprintf(u.Err, "%s (source %s): %s\n", a.User.Name, l.source, note)
	_, err := fmt.Fprintln(u.Out, password)
	return err
}

// listedUser is a local user as "list" shows it.
type listedUser struct {
	User     string    `json:"user"`
	Email    string    `json:"email"`
	Name     string    `json:"name"`
	Disabled bool      `json:"disabled"`
	Changed  time.Time `json:"password_changed"`
}

// List prints the local users, in the order in which they became users.
func (u Users) List(ctx context.Context, asJSON bool) error {
	return u.with(ctx, func(l *localUsers) error {
		all := []listedUser{}
		err := l.dir.EachLocal(ctx, l.source, func(a *groups.LocalAccount) error {
			all = append(all, listedUser{a.User.Name, a.User.Email, a.User.Display, a.Disabled, a.Changed.UTC()})
			return nil
		})
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(u.Out, all)
		}
		w := tabwriter.NewWriter(u.Out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "USER\tE-MAIL\tNAME\tSTATE\tPASSWORD OF")
		for _, a := range all {
			state := "enabled"
			if a.Disabled {
				state = "disabled"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", a.User, orDash(a.Email), orDash(a.Name), state, a.Changed.Format(time.DateOnly))
		}
		return w.Flush()
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// newPassword asks for a password, or makes one up, which is shown then.
func (u Users) newPassword(ctx context.Context, l *localUsers, user string, generate bool) (hash, shown string, err error) {
	password := ""
	if generate {
		for len(password) < max(generatedLength, l.cfg.MinPasswordLength) {
			password += strings.ToLower(rand.Text())
		}
		shown = password
	} else if password, err = readPassword(u.In, u.Err, user); err != nil {
		return "", "", err
	}
	hash, err = l.cfg.NewPassword(ctx, user, password)
	return hash, shown, err
}

// generatedLength is what rand.Text answers: 130 bits.
const generatedLength = 26
