package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

const (
	renewWait  = 10 * time.Second // contract section 8: longer is "cannot be reached"
	renewRetry = 30 * time.Second
)

// renew asks the source for the person's claims of now: one call for a login,
// however many of its requests wait. It answers the session as it is then, nil
// when it is over. A source that cannot be reached changes nothing.
func (p *Proxy) renew(ctx context.Context, s *site, m *member) (*member, error) {
	_, err, _ := p.sessions.renewing.Do(m.view.Login.ID, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewWait+storeWait)
		defer cancel()
		return nil, p.renewLogin(ctx, s, m)
	})
	switch {
	case errors.Is(err, claims.ErrUnavailable), errors.Is(err, claims.ErrNoCredentials):
		// By login, because m may have been replaced meanwhile.
		until := p.now().Add(renewRetry).UnixNano()
		p.sessions.retries.Store(m.view.Login.ID, until)
		m.retry.Store(until)
		p.log.Warn("claims not renewed", zap.String("source", m.view.Login.Source), zap.Error(err))
		return m, nil
	case errors.Is(err, groups.ErrUnavailable):
		return nil, err
	case err != nil:
		return nil, nil // the session has ended; renewLogin said why
	}
	if fresh := p.sessions.get(s, m.hash); fresh != nil {
		return fresh, nil
	}
	return p.load(ctx, s, m.hash)
}

func (p *Proxy) renewLogin(ctx context.Context, s *site, m *member) error {
	login := m.view.Login
	// Another session of the login, or another replica, may have been first.
	now, err := p.dir.Store().LoginByID(ctx, login.ID)
	if err != nil {
		return err
	}
	if !s.stale(p.now().UnixNano(), now.ClaimsAt) {
		p.sessions.notice(groups.Notice{User: login.User, Login: login.ID})
		return nil
	}
	grant, err := s.openGrant(now)
	if err != nil {
		return errors.Join(claims.ErrNoCredentials, err)
	}
	src := s.sources[login.Source].(claims.Refresher)
	callCtx, cancel := context.WithTimeout(ctx, renewWait)
	defer cancel()
	_, end := s.step(ctx, "source refresh", login.Source)
	id, next, err := src.Refresh(callCtx, grant, login.Subject)
	end(err)
	if err != nil && next != nil {
		// The source answered, and may have replaced the refresh token: losing
		// the new one would end the session at the next attempt.
		if saveErr := p.keepGrant(ctx, s, *now, next); saveErr != nil {
			return saveErr
		}
	}
	switch {
	case errors.Is(err, claims.ErrUnavailable), errors.Is(err, claims.ErrNoCredentials):
		return err
	case errors.Is(err, claims.ErrDisabled):
		return errors.Join(err, p.dir.Gone(ctx, login.Source, login.Subject, ""))
	case err != nil:
		return p.endLogin(ctx, login, "the source did not renew the session: ", err)
	}
	return p.takeAgain(ctx, s, *now, id, next)
}

// takeAgain makes a source's newer statement that of a login under way. A login
// that is refused by it ends.
func (p *Proxy) takeAgain(ctx context.Context, s *site, login groups.Login, id *claims.Identity, grant *claims.Grant) (err error) {
	login.ClaimsAt = p.now()
	if login.Grant, err = s.sealGrant(&login, grant); err != nil {
		return err
	}
	_, end := s.step(ctx, "sync", login.Source)
	_, err = p.dir.SignIn(ctx, groups.SignIn{Identity: id, Login: &login, Refresh: true})
	end(err)
	if err != nil && !errors.Is(err, groups.ErrUnavailable) {
		return p.endLogin(ctx, login, "the renewed claims are refused: ", err)
	}
	return err
}

func (p *Proxy) keepGrant(ctx context.Context, s *site, login groups.Login, next *claims.Grant) error {
	var err error
	if login.Grant, err = s.sealGrant(&login, next); err != nil {
		return err
	}
	return p.dir.KeepLogin(ctx, &login)
}

func (p *Proxy) endLogin(ctx context.Context, login groups.Login, why string, cause error) error {
	_, err := p.dir.EndLogins(ctx, groups.LoginFilter{ID: login.ID}, "source "+login.Source, why+cause.Error(), "")
	if err != nil {
		return err
	}
	return cause
}

func (s *site) sealGrant(l *groups.Login, g *claims.Grant) ([]byte, error) {
	plain, err := json.Marshal(g)
	if err != nil {
		return nil, err
	}
	if string(plain) == "{}" || g == nil {
		return nil, nil // nothing to keep
	}
	return s.keys.seal(purposeGrant, plain, l.ID), nil
}

func (s *site) openGrant(l *groups.Login) (*claims.Grant, error) {
	if l.Grant == nil {
		return &claims.Grant{}, nil
	}
	plain, err := s.keys.open(purposeGrant, l.Grant, l.ID)
	if err != nil {
		return nil, err
	}
	var g claims.Grant
	return &g, json.Unmarshal(plain, &g)
}
