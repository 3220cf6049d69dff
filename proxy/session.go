package proxy

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// member is one session in memory: an immutable view of the person, with the
// header lines rendered, and the few things that move.
type member struct {
	hash  [32]byte
	site  *site // whose header rules rendered head
	view  *groups.View
	head  *rendered
	grant *claims.Grant // nil when the source gave nothing to renew with
	// carried is the session itself, when nobody but the browser keeps it.
	carried *carried

	expires int64        // Unix nanoseconds
	used    atomic.Int64 // Unix nanoseconds, to the second
	saved   atomic.Int64 // the used time that the store has
	retry   atomic.Int64 // do not renew before, after a fault of the source

	assertions sync.Map // audience -> *assertion
}

// sessions is the table that the signed-in request is served from. A request
// reads it without a lock shared by all. What changes a person drops the
// person's sessions from it, and the next request loads them anew.
type sessions struct {
	dir *groups.Directory
	now func() time.Time

	table sync.Map // [32]byte -> *member
	// generation grows with every notice. A view that was read before a
	// notice and arrives after it is used once, but not kept.
	generation atomic.Int64
	mu         sync.Mutex
	byUser     map[groups.UserID]map[[32]byte]struct{}

	// leaving holds members that were dropped and whose used time is not in
	// the store yet; retries, by login, when a source may be asked again.
	leaving, retries sync.Map

	loading  singleflight.Group
	renewing singleflight.Group
	count    atomic.Int64

	// noticed has something in it when there was a notice since Run last
	// looked at the open sockets.
	noticed chan struct{}
}

func newSessions(dir *groups.Directory, now func() time.Time) *sessions {
	s := &sessions{dir: dir, now: now, byUser: map[groups.UserID]map[[32]byte]struct{}{}, noticed: make(chan struct{}, 1)}
	dir.Watch(s.notice)
	return s
}

// notice drops the views that may be out of date.
func (t *sessions) notice(n groups.Notice) {
	t.generation.Add(1)
	defer t.wake()
	if n.User == 0 && n.Login == "" {
		t.clear()
		return
	}
	var gone []*member
	t.mu.Lock()
	for hash := range t.byUser[n.User] {
		m, ok := t.table.Load(hash)
		if ok && n.Login != "" && m.(*member).view.Login.ID != n.Login {
			continue
		}
		gone = t.dropLocked(gone, n.User, hash)
	}
	t.mu.Unlock()
	t.saveLeaving(gone)
}

// wake asks Run to look at the open sockets now: it may be theirs that ended.
func (t *sessions) wake() {
	select {
	case t.noticed <- struct{}{}:
	default:
	}
}

// clear drops everything: the configuration or everybody changed.
func (t *sessions) clear() {
	t.generation.Add(1)
	var gone []*member
	t.mu.Lock()
	for user, hashes := range t.byUser {
		for hash := range hashes {
			gone = t.dropLocked(gone, user, hash)
		}
	}
	t.mu.Unlock()
	t.saveLeaving(gone)
}

// dropLocked takes a member out of the table and adds it to gone.
func (t *sessions) dropLocked(gone []*member, user groups.UserID, hash [32]byte) []*member {
	if m, ok := t.table.Load(hash); ok {
		t.leaving.Store(hash, m) // first: whoever misses the table looks here
		t.table.Delete(hash)
		t.count.Add(-1)
		gone = append(gone, m.(*member))
	}
	delete(t.byUser[user], hash)
	if len(t.byUser[user]) == 0 {
		delete(t.byUser, user)
	}
	return gone
}

// drop takes one member out of the table. What it knows of the last use goes
// into the one that is loaded next.
func (t *sessions) drop(m *member) {
	t.mu.Lock()
	var gone []*member
	if v, ok := t.table.Load(m.hash); ok && v == any(m) {
		gone = t.dropLocked(nil, m.view.User.ID, m.hash)
	}
	t.mu.Unlock()
	t.saveLeaving(gone)
}

// saveLeaving notes in the background when the members were last used. A
// notice must not wait for the store, and until then leaving knows.
func (t *sessions) saveLeaving(gone []*member) {
	if len(gone) == 0 {
		return
	}
	go func() {
		t.save(gone)
		for _, m := range gone {
			t.leaving.CompareAndDelete(m.hash, m)
		}
	}()
}

func (t *sessions) keep(m *member, generation int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.generation.Load() != generation {
		return
	}
	if _, there := t.table.Swap(m.hash, m); !there {
		t.count.Add(1)
	}
	user := m.view.User.ID
	if t.byUser[user] == nil {
		t.byUser[user] = map[[32]byte]struct{}{}
	}
	t.byUser[user][m.hash] = struct{}{}
}

// maxSessionCookies is how many cookies of our name one request may try: more
// than a browser ever sends.
const maxSessionCookies = 4

func (p stored) find(s *site, r *http.Request, portal string) (*member, error) {
	var found *member
	tried := 0
	for name, value := range cookies(r) {
		if name != s.sessionCookie {
			continue
		}
		hash, ok := sessionHash(value)
		if !ok {
			continue
		}
		if found != nil && found.hash == hash {
			continue
		}
		if tried++; tried > maxSessionCookies {
			return nil, nil
		}
		m, err := p.lookUp(r.Context(), s, hash)
		if err != nil {
			return nil, err
		}
		if m == nil || portal != anyHost && m.view.Host != portal {
			continue
		}
		if found != nil {
			return nil, nil
		}
		found = m
	}
	return found, nil
}

// anyHost is for forward-auth, where the Host header may be the front proxy's.
const anyHost = "*"

// lookUp answers a live session with claims that are not too old, or nil.
func (p *Proxy) lookUp(ctx context.Context, s *site, hash [32]byte) (*member, error) {
	m, err := p.recall(ctx, s, hash)
	if m == nil || err != nil {
		return nil, err
	}
	now := p.now().UnixNano()
	if m.grant != nil && s.stale(now, m.view.Login.ClaimsAt) && !waiting(now, m.retry.Load()) {
		return p.renew(ctx, s, m)
	}
	return m, nil
}

// recall answers a live session from memory, or from the store on a miss. Its
// claims may be old.
func (p *Proxy) recall(ctx context.Context, s *site, hash [32]byte) (*member, error) {
	if err := p.dir.Healthy(); err != nil {
		return nil, err
	}
	now := p.now().UnixNano()
	m := p.sessions.get(s, hash)
	if m == nil {
		var err error
		if m, err = p.load(ctx, s, hash); m == nil || err != nil {
			return nil, err
		}
	}
	used := m.used.Load()
	if now-used > int64(s.idle) && now < m.expires && p.dir.Replicas() {
		// Unused here; another replica may have served it all the time.
		p.sessions.drop(m)
		var err error
		if m, err = p.load(ctx, s, hash); m == nil || err != nil {
			return nil, err
		}
		used = m.used.Load()
	}
	if now >= m.expires || now-used > int64(s.idle) {
		return nil, nil
	}
	// A clock that was set back must not count what it showed before as use.
	if now-used > int64(time.Second) || used-now > int64(time.Second) {
		m.used.Store(now)
	}
	return m, nil
}

// clockApart is how far the clocks of two replicas may be apart, and one may
// be set back, before a time that lies ahead is taken for an error of the
// clock.
const clockApart = 10 * time.Minute

// stale reports whether claims are old enough to ask the source again. Claims
// from further ahead than clocks differ are: the clock was set back, and by it
// they would stay fresh for as long as that was.
func (s *site) stale(now int64, claimsAt time.Time) bool {
	age := now - claimsAt.UnixNano()
	return age > int64(s.refresh) || age < -int64(clockApart)
}

// waiting reports whether a source is still to be left alone. Nobody is left
// alone for longer than renewRetry, whatever the clock did.
func waiting(now, until int64) bool { return now <= until && until-now <= int64(renewRetry) }

// get answers the member in memory, when it was made for these settings.
func (t *sessions) get(s *site, hash [32]byte) *member {
	if v, ok := t.table.Load(hash); ok && v.(*member).site == s {
		return v.(*member)
	}
	return nil
}

// load reads a session from the store, once however many requests wait.
func (p *Proxy) load(ctx context.Context, s *site, hash [32]byte) (*member, error) {
	// A request that comes after a notice must not join a reading that began
	// before it.
	generation := p.sessions.generation.Load()
	key := string(hash[:]) + strconv.FormatInt(generation, 36)
	v, err, _ := p.sessions.loading.Do(key, func() (any, error) {
		// The first of those that wait may go away; the others still want it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWait)
		defer cancel()
		// Looked up before the store is: what leaves it meanwhile is stored.
		before, _ := p.sessions.leaving.Load(hash)
		view, err := p.dir.View(ctx, hash)
		if errors.Is(err, groups.ErrNotFound) {
			return (*member)(nil), nil
		}
		if err != nil {
			return nil, err
		}
		old, _ := before.(*member)
		m := p.newMember(s, hash, view, old)
		p.sessions.keep(m, generation)
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	m := v.(*member)
	if m != nil && m.site != s {
		m = p.newMember(s, hash, m.view, m) // the settings changed meanwhile
	}
	return m, nil
}

// storeWait bounds what a request waits for the store.
const storeWait = 5 * time.Second

// newMember makes a session's member. before is the one that it replaces, when
// the store may not know yet how long that was used.
func (p *Proxy) newMember(s *site, hash [32]byte, view *groups.View, before *member) *member {
	m := &member{hash: hash, site: s, view: view, head: s.headers.render(view), expires: view.Login.Expires.UnixNano()}
	used := view.Used.UnixNano()
	if before != nil {
		used = max(used, before.used.Load())
	}
	m.used.Store(min(used, p.now().UnixNano())) // nobody used it in the future
	if at, ok := p.sessions.retries.Load(view.Login.ID); ok {
		m.retry.Store(at.(int64))
	}
	m.saved.Store(view.Used.UnixNano())
	if _, renewable := s.sources[view.Login.Source].(claims.Refresher); renewable && view.Login.Grant != nil {
		if g, err := s.openGrant(&view.Login); err == nil && g.RefreshToken != "" {
			m.grant = g
		}
	}
	return m
}

// save notes in the store when sessions were last used, so that an idle time
// outlives a restart.
func (t *sessions) save(members []*member) {
	used := map[[32]byte]time.Time{}
	for _, m := range members {
		at := m.used.Load()
		if at-m.saved.Load() > int64(10*time.Second) {
			used[m.hash] = time.Unix(0, at)
			m.saved.Store(at)
		}
	}
	if len(used) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeWait)
	defer cancel()
	// What is lost is at most some idle time.
	_ = t.dir.Touch(ctx, used)
}

// tidy saves what was used, and forgets sessions that nobody uses or that are
// over. They are loaded again when somebody comes back.
func (t *sessions) tidy(unused time.Duration) {
	now := t.now().UnixNano()
	var all []*member
	t.table.Range(func(_, v any) bool {
		m := v.(*member)
		all = append(all, m)
		return true
	})
	t.save(all)
	t.retries.Range(func(login, at any) bool {
		if now > at.(int64) {
			t.retries.Delete(login)
		}
		return true
	})
	var gone []*member
	t.mu.Lock()
	for _, m := range all {
		if now >= m.expires || now-m.used.Load() > int64(unused) {
			gone = t.dropLocked(gone, m.view.User.ID, m.hash)
		}
	}
	t.mu.Unlock()
	t.saveLeaving(gone)
}
