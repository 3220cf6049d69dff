package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// renewLogin asks the source, unless somebody else did or does: another
// session of the login, or another replica. One at a time has the right to ask;
// it lasts longer than the call, and what is written by it is written only
// while it lasts.
func (p *Proxy) renewLogin(ctx context.Context, s *site, m *member) error {
	login := m.view.Login
	now, err := p.dir.Store().LoginByID(ctx, login.ID)
	if err != nil {
		return err
	}
	if !s.stale(p.now().UnixNano(), now.ClaimsAt) {
		p.sessions.notice(groups.Notice{User: login.User, Login: login.ID})
		return nil
	}
	for {
		turn, err := p.dir.BeginRefresh(ctx, login.ID, refreshLease)
		if err != nil {
			return err
		}
		if turn.Mine {
			err := p.renewAlone(ctx, s, turn)
			if errors.Is(err, groups.ErrLeaseLost) {
				return fmt.Errorf("%w: %w", claims.ErrUnavailable, err)
			}
			return err
		}
		if done, err := p.awaitRefresh(ctx, s, &turn.Lease, login); done || err != nil {
			return err
		}
	}
}

// refreshLease is longer than the call of the source and what is written after
// it may take.
const refreshLease = renewWait + 2*storeWait

// sourceDown is what a replica that could not reach the source notes for the
// others.
const sourceDown = "the source cannot be reached"

// renewAlone asks the source. Nobody else does meanwhile.
func (p *Proxy) renewAlone(ctx context.Context, s *site, turn *groups.Refreshing) error {
	now := &turn.Login
	if !s.stale(p.now().UnixNano(), now.ClaimsAt) {
		p.sessions.notice(groups.Notice{User: now.User, Login: now.ID})
		return p.dir.LeaveLease(ctx, turn.Lease, p.now(), "")
	}
	grant, err := s.openGrant(now)
	if err != nil {
		return errors.Join(claims.ErrNoCredentials, err, p.dir.LeaveLease(ctx, turn.Lease, p.now(), ""))
	}
	src := s.sources[now.Source].(claims.Refresher)
	callCtx, cancel := context.WithTimeout(ctx, renewWait)
	defer cancel()
	_, end := s.step(ctx, "source refresh", now.Source)
	id, next, err := src.Refresh(callCtx, grant, now.Subject)
	end(err)
	if err != nil && next != nil {
		// The source answered, and may have replaced the refresh token: losing
		// the new one would end the session at the next attempt.
		if saveErr := p.keepGrant(ctx, s, *now, next, &turn.Lease); saveErr != nil {
			return saveErr
		}
	}
	switch {
	case errors.Is(err, claims.ErrUnavailable), errors.Is(err, claims.ErrNoCredentials):
		return errors.Join(err, p.dir.LeaveLease(ctx, turn.Lease, p.now().Add(renewRetry), sourceDown))
	case errors.Is(err, claims.ErrDisabled):
		return errors.Join(err, p.dir.Gone(ctx, now.Source, now.Subject, ""))
	case err != nil:
		return p.endLogin(ctx, *now, "the source did not renew the session: ", err)
	}
	return p.takeAgain(ctx, s, *now, id, next, &turn.Lease)
}

// awaitRefresh waits for what comes of somebody else's refresh. Not done means
// that nothing did: the right to ask is free again.
func (p *Proxy) awaitRefresh(ctx context.Context, s *site, lease *groups.Lease, login groups.Login) (done bool, err error) {
	poll := time.NewTicker(refreshPoll)
	defer poll.Stop()
	for {
		if lease.Note == sourceDown && p.now().Before(lease.Until) {
			return true, fmt.Errorf("%s: %w, as another replica found", login.Source, claims.ErrUnavailable)
		}
		select {
		case <-ctx.Done():
			return true, fmt.Errorf("%s: waiting for another replica: %w: %w", login.Source, claims.ErrUnavailable, ctx.Err())
		case <-poll.C:
		}
		now, theirs, over, err := p.dir.Refreshed(ctx, login.ID)
		if err != nil {
			return true, err
		}
		if !s.stale(p.now().UnixNano(), now.ClaimsAt) {
			p.sessions.notice(groups.Notice{User: now.User, Login: now.ID})
			return true, nil
		}
		if over {
			return false, nil
		}
		lease = theirs
	}
}

const refreshPoll = 50 * time.Millisecond

// takeAgain makes a source's newer statement that of a login under way. A login
// that is refused by it ends.
func (p *Proxy) takeAgain(ctx context.Context, s *site, login groups.Login, id *claims.Identity, grant *claims.Grant, by *groups.Lease) (err error) {
	login.ClaimsAt = p.now()
	if login.Grant, err = s.sealGrant(&login, grant); err != nil {
		return err
	}
	_, end := s.step(ctx, "sync", login.Source)
	_, err = p.dir.SignIn(ctx, groups.SignIn{Identity: id, Login: &login, Refresh: true, Lease: by})
	end(err)
	if err != nil && !errors.Is(err, groups.ErrUnavailable) && !errors.Is(err, groups.ErrLeaseLost) {
		return p.endLogin(ctx, login, "the renewed claims are refused: ", err)
	}
	return err
}

func (p *Proxy) keepGrant(ctx context.Context, s *site, login groups.Login, next *claims.Grant, by *groups.Lease) error {
	var err error
	if login.Grant, err = s.sealGrant(&login, next); err != nil {
		return err
	}
	return p.dir.KeepLogin(ctx, &login, by)
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
