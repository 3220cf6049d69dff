package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/proxy/page"
)

// What may be wrong on the form for another password, beside what may be wrong
// with a login.
var (
	errOldPassword = errors.New("the old password is wrong")
	errDiffer      = errors.New("the two new passwords differ")
	errShort       = errors.New("the new password is too short")
	errLong        = errors.New("the new password is too long")
	errCharacters  = errors.New("the new password has characters that it may not have")
	errUserName    = errors.New("the new password is the user name")
)

var passwordRules = map[claims.PasswordRule]error{
	claims.PasswordShort: errShort, claims.PasswordBlank: errShort, claims.PasswordLong: errLong,
	claims.PasswordCharacters: errCharacters, claims.PasswordUserName: errUserName,
}

// password is the page on which a person chooses another password, where the
// source keeps passwords of its own. It is nobody else's.
func (p *Proxy) password(x *exchange, r *http.Request) error {
	post := r.Method == http.MethodPost
	x.posted = post
	s := x.site
	m, err := p.find(s, r, x.host.session())
	if err != nil {
		return err
	}
	if m == nil {
		return errUnauthenticated
	}
	login := m.view.Login
	x.source, x.member = login.Source, m
	src, keeps := s.sources[login.Source].(claims.PasswordChanger)
	if !keeps {
		return fmt.Errorf("%s: no password of ours: %w", login.Source, errNotFound)
	}
	if !post {
		p.showPassword(x, r, m, nil)
		return nil
	}
	form, err := x.ownForm(r, "old", "new", "again", "token")
	if err != nil {
		return err
	}
	if of, err := s.keys.openText(purposeChange, form.Get("token")); err != nil || string(of) != login.ID {
		return fmt.Errorf("%w: the token is not this session's", errForm)
	}
	if form.Get("new") == form.Get("again") {
		err = p.changePassword(x, r, src, m, form.Get("old"), form.Get("new"))
	} else {
		err, x.noted = errDiffer, true
	}
	switch a := answerFor(err); {
	case err == nil && navigatesAs(r, http.MethodGet):
		p.writePage(x, r, http.StatusOK, page.PasswordChanged{})
	case err == nil:
		ownHeaders(x.Header())
		x.WriteHeader(http.StatusNoContent)
	case navigatesAs(r, http.MethodGet) && a.status < http.StatusInternalServerError && !errors.Is(err, claims.ErrDenied):
		p.showPassword(x, r, m, err)
	default:
		return err
	}
	return nil
}

// showPassword writes the form, with what was wrong with the one before.
func (p *Proxy) showPassword(x *exchange, r *http.Request, m *member, wrong error) {
	s, v := x.site, m.view
	d := page.Password{
		User: v.User.Name, Source: s.label(v.Login.Source), Action: s.prefix + "/password",
		Token: s.keys.sealText(purposeChange, []byte(v.Login.ID)),
	}
	a := answer{status: http.StatusOK}
	if wrong != nil {
		a = p.fault(x, wrong)
		x.setRetry(a)
		d.Code, d.Wait = a.code, a.retry
	}
	var rule *claims.PasswordRuleError
	if errors.As(wrong, &rule) && errors.Is(wrong, errShort) {
		d.Min = rule.Limit
	}
	p.writePage(x, r, a.status, d)
}

// changePassword counts like a login, in the bucket of the session: a browser
// that was left alone is no place to try passwords at.
func (p *Proxy) changePassword(x *exchange, r *http.Request, src claims.PasswordChanger, m *member, old, changed string) error {
	login, user := m.view.Login, m.view.User.Name
	t := p.newTry(r.Context(), x, r, login.Source, attempt{user: user, by: newKnown(login.ID, login.Source, canonicalUser(user), login.Subject)})
	t.account = login.Subject
	err := t.begin()
	if err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), renewWait)
		defer cancel()
		_, end := x.site.step(r.Context(), "change of password", login.Source)
		err = src.ChangePassword(ctx, login.Subject, old, changed, login.ID)
		end(err)
	}
	var rule *claims.PasswordRuleError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &rule):
		x.noted = true // a slip while typing is no refusal
		if named := passwordRules[rule.Rule]; named != nil {
			return fmt.Errorf("%s: %w: %w", login.Source, named, err)
		}
		return err
	case errors.Is(err, claims.ErrBadPassword):
		err = fmt.Errorf("%s: %w: %w", login.Source, errOldPassword, err)
	}
	return p.passwordFailed(x, r, t, err)
}
