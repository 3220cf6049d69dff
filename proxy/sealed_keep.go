package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// sealed keeps sessions in their cookies. What it remembers is a help and no
// truth: another replica, or this one after a restart, knows nothing of it.
//
//   - Opened sessions, by the hash of their cookies, so that a signed-in request
//     costs a hash.
//   - What became of a login here (lineage): a browser sends the cookies of
//     before a renewal for as long as its requests were under way, and is given
//     the new ones with each answer until it shows them. Without that the second
//     of two requests would use a refresh token that the first one used up.
type sealed struct {
	*Proxy
	table    sync.Map // [32]byte -> *member
	renewing singleflight.Group
	once     usedFlows
	mu       sync.Mutex // of lines, and of making room
	lines    map[string]*lineage
}

// maxMembers bounds the opened sessions in memory, and the lineages.
const maxMembers = 50_000

// carried is a session in memory whose only other place is the browser.
type carried struct {
	session *sealedSession // with what became of it here
	line    *lineage
	// Of the cookies that the browser sent: their generation, their number, and
	// the use that they note, Unix nanoseconds.
	generation, pieces int
	stamp              int64
	next               atomic.Pointer[successor]
}

func (k *sealed) find(s *site, r *http.Request, portal string) (*member, error) {
	p, ok := s.piecesOf(r)
	if !ok {
		return nil, nil
	}
	hash, ok := p.hash()
	if !ok {
		return nil, nil
	}
	m := k.get(s, hash)
	if m == nil {
		missed := p // else every request would have its own on the heap
		if m = k.open(s, hash, &missed); m == nil {
			return nil, nil
		}
	}
	if portal != anyHost && m.view.Host != portal {
		return nil, nil
	}
	return k.alive(r.Context(), s, m)
}

func (k *sealed) get(s *site, hash [32]byte) *member {
	if v, ok := k.table.Load(hash); ok && v.(*member).site == s {
		return v.(*member)
	}
	return nil
}

// open reads cookies that are not in memory.
func (k *sealed) open(s *site, hash [32]byte, p *pieces) *member {
	c, err := s.openSession(p)
	if err != nil {
		k.log.Debug("cookies are no session of ours", zap.Error(err))
		return nil
	}
	of := &carried{session: c, line: k.line(c), generation: c.Generation, pieces: p.count(), stamp: c.Used * int64(time.Millisecond)}
	if n := of.line.newest.Load(); n.Generation > c.Generation {
		of.session = n.on(c.Host)
	}
	m := k.member(s, hash, of, of.stamp)
	if m != nil {
		k.keep(m)
	}
	return m
}

// on is the session on another host.
func (c *sealedSession) on(host string) *sealedSession {
	next := *c
	next.Host = host
	return &next
}

// member makes a session's member; nil when nobody vouches for it any more.
func (k *sealed) member(s *site, hash [32]byte, of *carried, used int64) *member {
	v := of.session.view()
	if err := k.dir.Regroup(v); err != nil {
		return nil
	}
	m := &member{hash: hash, site: s, view: v, head: s.headers.render(v), expires: v.Login.Expires.UnixNano(), carried: of}
	m.used.Store(min(used, k.now().UnixNano())) // nobody used it in the future
	g := of.session.grant()
	v.Login.Grant, _ = s.sealGrant(&v.Login, g) // text alone; it is opened at the sign-out
	if at, ok := k.sessions.retries.Load(v.Login.ID); ok {
		m.retry.Store(at.(int64))
	}
	if _, renewable := s.sources[v.Login.Source].(claims.Refresher); renewable && g.RefreshToken != "" {
		m.grant = g
	}
	return m
}

// keep remembers an opened session. Where there are too many, those go that
// were not used for a minute, or any.
func (k *sealed) keep(m *member) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, there := k.table.Swap(m.hash, m); there {
		return
	}
	if k.sessions.count.Add(1) <= maxMembers {
		return
	}
	for _, unused := range []time.Duration{time.Minute, 0} {
		k.dropUnused(unused, maxMembers*9/10, m)
	}
}

// dropUnused takes sessions out of the table until few are left.
func (k *sealed) dropUnused(unused time.Duration, left int64, but *member) {
	now := k.now().UnixNano()
	k.table.Range(func(hash, v any) bool {
		m := v.(*member)
		if m != but && (now >= m.expires || now-m.used.Load() >= int64(unused)) {
			k.table.Delete(hash)
			k.sessions.count.Add(-1)
		}
		return k.sessions.count.Load() > left
	})
}

func (k *sealed) again(ctx context.Context, s *site, m *member) (*member, error) {
	now := k.get(s, m.hash)
	if now == nil {
		if now = k.member(s, m.hash, m.carried, m.used.Load()); now == nil {
			return nil, nil
		}
		k.keep(now)
	}
	return k.alive(ctx, s, now)
}

// alive answers the session when it is not over, with claims that are not too
// old.
func (k *sealed) alive(ctx context.Context, s *site, m *member) (*member, error) {
	now, used := k.now().UnixNano(), m.used.Load()
	if now >= m.expires || now-used > int64(s.idle) || m.carried.line.ended.Load() > int64(m.carried.session.Generation) {
		return nil, nil
	}
	if now-used > int64(time.Second) || used-now > int64(time.Second) {
		m.used.Store(now)
	}
	if m.grant != nil && s.stale(now, m.view.Login.ClaimsAt) && !waiting(now, m.retry.Load()) {
		return k.renew(ctx, s, m)
	}
	return m, nil
}

// errRefused: the source refused to renew, and may have done so because another
// replica was first.
var errRefused = errors.New("the source does not renew the session, maybe because another replica just did")

// renew asks the source for the person's claims of now, once for all requests
// of a login that wait here. It answers the session as it is then, nil when it
// is over.
func (k *sealed) renew(ctx context.Context, s *site, m *member) (*member, error) {
	of := m.carried
	_, err, _ := k.renewing.Do(of.session.ID, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewWait)
		defer cancel()
		return nil, k.ask(ctx, s, of.session, of.line)
	})
	if now := k.get(s, m.hash); now != nil && now.carried.session.Generation > of.session.Generation {
		m = now // of a request that waited as well
	} else if n := of.line.newest.Load(); n.Generation > of.session.Generation {
		next := &carried{session: n.on(of.session.Host), line: of.line, generation: of.generation, pieces: of.pieces, stamp: of.stamp}
		if m = k.member(s, m.hash, next, m.used.Load()); m == nil {
			return nil, nil
		}
		k.keep(m)
	}
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, claims.ErrUnavailable), errors.Is(err, claims.ErrNoCredentials), errors.Is(err, errRefused):
		until := k.now().Add(renewRetry).UnixNano()
		k.sessions.retries.Store(of.session.ID, until)
		m.retry.Store(until)
		k.log.Warn("claims not renewed", zap.String("source", of.session.Source), zap.Error(err))
		return m, nil
	}
	return nil, nil // the session has ended; ask said why
}

// ask asks the source. Of one login it runs one at a time.
func (k *sealed) ask(ctx context.Context, s *site, c *sealedSession, line *lineage) error {
	if n := line.newest.Load(); n.Generation > c.Generation {
		if c = n; !s.stale(k.now().UnixNano(), fromMillis(c.ClaimsAt)) {
			return nil
		}
	}
	if err := line.wasRefused(c.Generation, k.now().UnixNano()); err != nil {
		if !errors.Is(err, errRefused) {
			k.finish(c, line, err)
		}
		return err
	}
	src, renews := s.sources[c.Source].(claims.Refresher)
	if !renews {
		return fmt.Errorf("%s: %w", c.Source, claims.ErrNoCredentials)
	}
	_, end := s.step(ctx, "source refresh", c.Source)
	id, grant, err := src.Refresh(ctx, c.grant(), c.Subject)
	end(err)
	switch {
	case err == nil:
	case errors.Is(err, claims.ErrUnavailable), errors.Is(err, claims.ErrNoCredentials):
		if grant != nil { // the source may have replaced the refresh token
			next := c.with(&groups.View{User: c.view().User, Claims: c.claims}, grant)
			next.Generation++
			line.remember(next)
		}
		return err
	case errors.Is(err, claims.ErrGrantEnded) && grant == nil:
		return line.noteRefused(c.Generation, k.now().UnixNano(), err)
	default:
		k.finish(c, line, err)
		return err
	}
	_, end = s.step(ctx, "sync", c.Source)
	v, err := k.dir.Judge(groups.SignIn{Identity: id, Refresh: true}, c.view(), s.headers.carried())
	end(err)
	if err != nil {
		k.finish(c, line, err)
		return err
	}
	next := c.with(v, grant)
	next.Generation++
	next.ClaimsAt = sinceEpoch(k.now())
	if _, err := s.sealSession(next); err != nil {
		k.finish(c, line, err) // there are more groups now than a browser carries
		return err
	}
	line.remember(next)
	return nil
}

// finish ends what is known here of a login up to a generation, and writes down
// why.
func (k *sealed) finish(c *sealedSession, line *lineage, why error) {
	line.finish(c.Generation)
	k.note(c.User, c.Source, "source "+c.Source, "the source did not renew the session: "+why.Error(), "")
}

func (k *sealed) note(user, source, actor, reason, request string) {
	k.dir.NoteSoon(groups.Event{Kind: groups.EventSignOut, Name: user, Source: source, Actor: actor, Reason: reason, Request: request})
}

// browserLogin is the login of the request's session, without asking its
// source.
func (k *sealed) browserLogin(_ context.Context, s *site, r *http.Request) (*groups.Login, error) {
	p, ok := s.piecesOf(r)
	if !ok {
		return nil, nil
	}
	c, err := s.openSession(&p)
	if err != nil || c.Host != "" || !k.now().Before(fromMillis(c.Expires)) {
		return nil, nil
	}
	return &c.view().Login, nil
}

func (k *sealed) begin(x *exchange, r *http.Request, in *groups.SignIn, old string) error {
	s, l := x.site, in.Login
	if in.Identity.StatementID != "" {
		// Nobody could tell that it comes for the first time.
		return fmt.Errorf("%s: a statement that counts once: %w", in.Identity.Source, groups.ErrNoDirectory)
	}
	v, err := k.dir.Judge(*in, nil, s.headers.carried())
	if err != nil {
		return err
	}
	g, err := s.openGrant(l)
	if err != nil {
		return err
	}
	c := (&sealedSession{
		ID: l.ID, Source: l.Source, Subject: l.Subject, Session: l.Session,
		Created: sinceEpoch(l.Created), Expires: sinceEpoch(l.Expires), ClaimsAt: sinceEpoch(l.ClaimsAt), Used: sinceEpoch(l.Created),
	}).with(v, g)
	text, err := s.sealSession(c)
	if err != nil {
		return fmt.Errorf("%s: %d groups: %w", l.Source, len(v.Groups), err)
	}
	if in.OnceID != "" && !k.once.first(in.OnceID, k.now()) {
		return fmt.Errorf("%s: %s: %w", l.Source, in.OnceKind, groups.ErrReplayed)
	}
	k.line(c)
	if old != "" {
		k.over(old)
	}
	s.setPieces(x.Header(), text, l.Expires.Sub(l.Created), s.piecesSent(r))
	return nil
}

// carried lists the claims that headers are made of.
func (h *headerRules) carried() []string {
	var out []string
	for _, c := range h.claims {
		out = append(out, c.claim)
	}
	return out
}

// piecesSent is how many cookies to take away of whatever session a browser
// has.
func (s *site) piecesSent(r *http.Request) (n int) {
	for name := range cookies(r) {
		n = max(n, s.pieceIndex(name)+1)
	}
	return n
}

// over ends a login here. Its cookies would open anywhere else.
func (k *sealed) over(login string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.lines[login]; l != nil {
		l.finishAll()
	}
}

func (k *sealed) end(_ context.Context, l *groups.Login, actor, reason, request string) error {
	k.over(l.ID)
	k.note("", l.Source, actor, reason, request)
	return nil
}

func (k *sealed) forget(x *exchange) { x.site.setPieces(x.Header(), "", -1, maxChunks) }

func (k *sealed) endOnce(context.Context, groups.SingleUse, []groups.LoginFilter, string, string, string) error {
	return fmt.Errorf("%w: which sessions a message names: %w", errNotFound, groups.ErrNoDirectory)
}

// ticket carries the session itself.
func (k *sealed) ticket(s *site, h handover) (string, error) {
	k.mu.Lock()
	l := k.lines[h.Login]
	k.mu.Unlock()
	if l == nil {
		return "", fmt.Errorf("handover: the login is not known here: %w", errNoFlow)
	}
	c := l.newest.Load().on(h.Host)
	c.IDToken = "" // it would be most of the ticket
	var err error
	if h.Session, err = c.pack(); err != nil {
		return "", err
	}
	return s.sealHandover(h), nil
}

func (k *sealed) redeem(x *exchange, r *http.Request, h *handover) error {
	c, err := unpackSession(h.Session)
	if err != nil || c.ID != h.Login || c.Host != x.host.name {
		return fmt.Errorf("handover: %w: %w", errNoFlow, errPacked)
	}
	now := k.now()
	if !k.once.first(h.ID, now) {
		return fmt.Errorf("handover: %w", groups.ErrReplayed)
	}
	line := k.line(c)
	if !now.Before(fromMillis(c.Expires)) || line.ended.Load() > int64(c.Generation) {
		return fmt.Errorf("handover: the login is over: %w", errNoFlow)
	}
	c.Used = sinceEpoch(now)
	text, err := x.site.sealSession(c)
	if err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	x.site.setPieces(x.Header(), text, fromMillis(c.Expires).Sub(now), x.site.piecesSent(r))
	return nil
}

func (k *sealed) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.table.Range(func(hash, _ any) bool {
		k.table.Delete(hash)
		k.sessions.count.Add(-1)
		return true
	})
}

func (k *sealed) tidy() {
	k.sessions.tidy(10 * time.Minute) // when sources may be asked again
	now := k.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropUnused(10*time.Minute, 0, nil)
	for id, l := range k.lines {
		if sinceEpoch(now) >= l.expires {
			delete(k.lines, id)
		}
	}
	k.once.sweep(now)
}
