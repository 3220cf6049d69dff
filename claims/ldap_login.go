package claims

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"
)

// ldapGrant is what a session keeps: no secret, because the service account
// reads the entry again. That it is there says that somebody can be asked.
const ldapGrant = "directory"

// CheckPassword finds the one entry of the user name, and binds as it.
func (l *LDAP) CheckPassword(ctx context.Context, c Credentials) (*Identity, *Grant, error) {
	user, err := typed(c)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	p, err := l.find(ctx, func(conn *ldapConn) ([]*ldap.Entry, error) { return l.lookUp(ctx, conn, user) })
	if err != nil {
		return nil, nil, l.failed("find the person", err)
	}
	if p == nil {
		return nil, nil, l.bindAsNobody(ctx, c.Password)
	}
	if c.Attempt != nil && p.subject != "" {
		if err := c.Attempt(p.subject); err != nil {
			return nil, nil, err
		}
	}
	if err := l.tryPassword(ctx, p, c.Password); err != nil {
		return nil, nil, err
	}
	if p.fault != nil {
		l.log.Error("a person without a subject cannot sign in; see subject of the source",
			zap.String("source", l.name), zap.String("entry", p.entry.DN), zap.Error(p.fault))
		return nil, nil, fmt.Errorf("%s: %w: %w", l.name, ErrDenied, p.fault)
	}
	if p.account.locked {
		// The lock was read before the bind. Its time may have run out long ago,
		// and the server forgets it with the bind that succeeded.
		if p, err = l.findAgain(ctx, p.subject); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case p.account.disabled != "":
		return nil, nil, &DisabledError{Subject: p.subject, Why: p.account.disabled}
	case p.account.refused != "":
		return nil, nil, fmt.Errorf("%s: %w: %s", l.name, ErrDenied, p.account.refused)
	}
	return l.identity(p, l.groups(ctx, p)), &Grant{RefreshToken: ldapGrant}, nil
}

// Refresh reads the person's entry again, by the service account.
func (l *LDAP) Refresh(ctx context.Context, g *Grant, subject string) (*Identity, *Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	p, err := l.findAgain(ctx, subject)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case p.account.disabled != "":
		return nil, nil, &DisabledError{Subject: subject, Why: p.account.disabled}
	case p.account.refused != "":
		return nil, nil, fmt.Errorf("%s: refresh: %w: %s", l.name, ErrGrantEnded, p.account.refused)
	}
	return l.identity(p, l.groups(ctx, p)), g, nil
}

// find answers the person when search answers exactly one entry, else nil.
func (l *LDAP) find(ctx context.Context, search func(*ldapConn) ([]*ldap.Entry, error)) (p *ldapPerson, err error) {
	err = l.withService(ctx, func(c *ldapConn) error {
		read := l.now()
		found, err := search(c)
		if err == nil && len(found) == 1 {
			p = l.person(found[0], c.ad, read)
		}
		return err
	})
	return p, err
}

// findAgain finds the entry of somebody who signed in before. It fails as
// Refresh does.
func (l *LDAP) findAgain(ctx context.Context, subject string) (*ldapPerson, error) {
	const step = "find the person again"
	several, unknown := false, false
	p, err := l.find(ctx, func(c *ldapConn) ([]*ldap.Entry, error) {
		own, err := subjectFilter(l.subjectAttribute(c.ad), subject)
		if unknown = err != nil; unknown {
			return nil, nil
		}
		anybody := strings.ReplaceAll(l.cfg.UserFilter, "{user}", "*")
		found, err := l.atMostTwo(ctx, c, "(&"+own+anybody+")")
		if several = len(found) > 1; err != nil || len(found) > 0 {
			return found, err
		}
		return nil, l.showsAnybody(ctx, c, anybody)
	})
	switch {
	case err != nil:
		return nil, l.failed(step, err)
	case unknown:
		// Another attribute told people apart when the session began.
		return nil, fmt.Errorf("%s: %s: %w", l.name, step, ErrGrantEnded)
	case several:
		l.log.Error("several entries have one subject; nobody of them is told apart", zap.String("source", l.name),
			zap.String("subject", subject))
		return nil, l.failed(step, errors.New("several entries have this subject"))
	case p == nil:
		return nil, &DisabledError{Subject: subject, Why: accountGone}
	case p.fault != nil:
		return nil, l.failed(step, p.fault)
	}
	return p, nil
}

// showsAnybody fails when the directory shows the service account nobody at
// all: then it does not say of one person that he is gone, but that a right or
// a base was lost.
func (l *LDAP) showsAnybody(ctx context.Context, c *ldapConn, anybody string) error {
	found, err := c.search(ctx, ldapQuery{
		base: l.cfg.BaseDN, scope: ldap.ScopeWholeSubtree, filter: anybody, attributes: []string{noAttributes}, limit: 1,
	})
	switch {
	case len(found) > 0:
		return nil
	case err != nil:
		return err
	}
	l.log.Error("the directory shows nobody at all; check base_dn, user_filter and what the service account may read",
		zap.String("source", l.name), zap.String("server", c.server.url))
	return errors.New("the directory shows nobody at all")
}

// noAttributes asks for the entry's name alone (RFC 4511 section 4.5.1.8).
const noAttributes = "1.1"

// groups answers the person's group claims. That they cannot be read does not
// keep the person out: they are unknown then.
func (l *LDAP) groups(ctx context.Context, p *ldapPerson) []ldapGroups {
	var found []ldapGroups
	err := l.withService(ctx, func(c *ldapConn) error {
		found = l.groupsOf(ctx, c, p.entry)
		if c.dead() {
			return errors.New("the connection ended")
		}
		return nil
	})
	if err == nil || found != nil {
		return found
	}
	l.log.Warn("the directory did not tell the groups; they count as unknown", zap.String("source", l.name), zap.Error(err))
	why := "the directory failed while it was asked for groups"
	found = []ldapGroups{{claim: memberOf, unknown: why}}
	if gs := l.cfg.GroupSearch; gs != nil {
		found = append(found, ldapGroups{claim: gs.Claim, unknown: why})
	}
	return found
}

// failed is an error of the directory: nothing is known.
func (l *LDAP) failed(step string, err error) error {
	if errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%s: %s: %w", l.name, step, err)
	}
	return fmt.Errorf("%s: %s: %w: %w", l.name, step, ErrUnavailable, err)
}

// tryPassword binds as the person, on a connection of its own. It fails unless
// the password is right; and when the server says what is wrong with the
// account in spite of it.
func (l *LDAP) tryPassword(ctx context.Context, p *ldapPerson, password string) error {
	refused, err := l.bindAs(ctx, p.entry.DN, password)
	switch {
	case err != nil:
		return l.failed("try the password", err)
	case refused == nil:
		return nil
	}
	if why := saysActiveDirectory(refused); p.ad && why != (ldapAccount{}) {
		if why.disabled != "" && p.subject != "" {
			return &DisabledError{Subject: p.subject, Why: why.disabled}
		}
		return fmt.Errorf("%s: %w: %s", l.name, ErrDenied, why.why())
	}
	// 389 Directory Server is unwilling to look at the password of a disabled
	// account. Who does not know it must not learn about the account.
	unwilling := p.account.disabled != "" && ldap.IsErrorWithCode(refused, ldap.LDAPResultUnwillingToPerform)
	if unwilling || isOfCredentials(refused) {
		return ErrBadPassword
	}
	return l.failed("try the password", errors.New(ldapCause(refused)))
}

// bindAsNobody takes the time that a wrong password takes, and answers the
// same.
func (l *LDAP) bindAsNobody(ctx context.Context, password string) error {
	dn := "CN=" + rand.Text()
	if l.cfg.BaseDN != "" {
		dn += "," + l.cfg.BaseDN
	}
	refused, err := l.bindAs(ctx, dn, password)
	if err == nil && refused != nil && !isOfCredentials(refused) {
		err = errors.New(ldapCause(refused))
	}
	if err != nil {
		return l.failed("try the password", err)
	}
	return ErrBadPassword
}

// bindAs tries a password. refused is the server's answer, nil for success.
func (l *LDAP) bindAs(ctx context.Context, dn, password string) (refused, err error) {
	c, err := l.dial(ctx, func(c *ldapConn) error {
		refused = c.bind(ctx, dn, password)
		if refused != nil && (!isResult(refused) || ldap.IsErrorAnyOf(refused, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable)) {
			return fmt.Errorf("bind: %w: %s", errNextServer, ldapCause(refused))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.close()
	return refused, nil
}

// isOfCredentials reports whether the result of a bind is about who binds, and
// not about the server: those, on doubt, never speak of a password.
func isOfCredentials(err error) bool {
	return ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication,
		ldap.LDAPResultNoSuchObject, ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultInsufficientAccessRights,
		ldap.LDAPResultConstraintViolation) // so answer some to a locked account
}

// adData is where an Active Directory says why it refuses a bind.
var adData = regexp.MustCompile(`\bdata ([0-9a-fA-F]{1,8})\b`)

// saysActiveDirectory answers what is wrong with the account although the
// password is right: an Active Directory tells these to nobody else. That an
// account is locked (775) it tells to everybody, so it is not among them.
func saysActiveDirectory(err error) ldapAccount {
	var e *ldap.Error
	if !errors.As(err, &e) || e.ResultCode != ldap.LDAPResultInvalidCredentials || e.Err == nil {
		return ldapAccount{}
	}
	data := adData.FindStringSubmatch(e.Err.Error())
	if data == nil {
		return ldapAccount{}
	}
	switch lowerASCII(data[1]) {
	case "533":
		return ldapAccount{disabled: accountDisabled}
	case "701":
		return ldapAccount{disabled: accountExpired}
	case "532":
		return ldapAccount{refused: passwordExpired}
	case "773":
		return ldapAccount{refused: passwordMustChange}
	case "530":
		return ldapAccount{refused: outsideHours}
	case "531":
		return ldapAccount{refused: outsideMachines}
	}
	return ldapAccount{}
}
