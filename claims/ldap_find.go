package claims

import (
	"context"
	"errors"
)

// Find looks a person up as a login does, by the service account. It says how,
// and which way each group was come to. See [Finder].
func (l *LDAP) Find(ctx context.Context, user string) (*Found, error) {
	f := &Found{Searches: []string{}, Groups: []FoundGroup{}}
	// The password is tried by nobody; this one only is none that is refused.
	user, err := typed(Credentials{User: user, Password: "-"})
	if err != nil {
		f.Problem = "no account can have this user name"
		return f, nil
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	err = l.withService(ctx, func(c *ldapConn) error {
		f = &Found{Searches: []string{}, Groups: []FoundGroup{}} // nothing of an earlier connection
		c.asked = func(line string) { f.Searches = append(f.Searches, line) }
		return l.findBy(ctx, c, user, f)
	})
	if err != nil && f.Entry == "" {
		return nil, l.failed("find the person", err)
	}
	return f, nil
}

// findBy fills f. An error behind the entry is one of the connection: what the
// groups lack is in f.
func (l *LDAP) findBy(ctx context.Context, c *ldapConn, user string, f *Found) error {
	read := l.now()
	entries, err := l.lookUp(ctx, c, user)
	switch {
	case err != nil:
		return err
	case len(entries) == 0:
		f.Problem = "no entry has this user name"
		return nil
	case len(entries) > 1:
		f.Problem = "several entries have this user name; none of them can sign in"
		return nil
	}
	p := l.person(entries[0], c.ad, read)
	f.Entry, f.Subject, f.Account = p.entry.DN, p.subject, p.account.why()
	if p.fault != nil && f.Account == "" {
		f.Account = p.fault.Error()
	}
	groups := l.findGroups(ctx, c, p.entry, true)
	for _, g := range groups {
		f.Groups = append(f.Groups, g.values...)
		if g.unknown != "" {
			f.Unknown = append(f.Unknown, g.unknown)
		}
	}
	f.Identity = l.identity(p, groups)
	if c.dead() {
		return errors.New("the connection ended")
	}
	return nil
}
