package proxy

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// HTTP Basic (RFC 7617) is for programs, which have no cookies and send a
// person's password with each request. The first request signs the person in as
// the form does; the session has an id that nobody ever gets, and is found again
// by a keyed hash of the credentials. So groups, revocation, sockets and the
// upstream's headers are those of any session. Browsers are not listened to:
// what they have been told once they send from every site's pages.

// basics are the credentials that were right not long ago. A request reads them
// without a lock.
type basics struct {
	key     [32]byte // of the hashes: they are worth nothing elsewhere
	table   sync.Map // [32]byte -> *basicLogin
	mu      sync.Mutex
	entries int
	asking  singleflight.Group
}

// basicLogin is what is remembered of one pair of credentials. It is not
// changed.
type basicLogin struct {
	src            claims.PasswordSource // that found them right
	hash           [32]byte              // of the session
	login, subject string
	checked        time.Time
	retry          int64 // the source is left alone until then, Unix nanoseconds
}

// maxBasics bounds the memory. Whoever is forgotten is asked for anew.
const maxBasics = 10_000

func (t *basics) setUp() { rand.Read(t.key[:]) }

func (t *basics) get(key [32]byte) *basicLogin {
	if b, ok := t.table.Load(key); ok {
		return b.(*basicLogin)
	}
	return nil
}

// put remembers credentials. Where there are too many, those go that were
// checked the longest ago.
func (t *basics) put(key [32]byte, b *basicLogin) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, there := t.table.Swap(key, b); there {
		return
	}
	if t.entries++; t.entries <= maxBasics {
		return
	}
	var oldest any
	var at time.Time
	t.table.Range(func(k, v any) bool {
		if checked := v.(*basicLogin).checked; k != key && (oldest == nil || checked.Before(at)) {
			oldest, at = k, checked
		}
		return true
	})
	t.table.Delete(oldest)
	t.entries--
}

func (t *basics) drop(key [32]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, there := t.table.LoadAndDelete(key); there {
		t.entries--
	}
}

// sweep forgets credentials whose session has long become idle.
func (t *basics) sweep(now time.Time, s *site) {
	if s == nil {
		return
	}
	t.table.Range(func(k, v any) bool {
		if now.Sub(v.(*basicLogin).checked) > s.idle+s.refresh {
			t.drop(k.([32]byte))
		}
		return true
	})
}

// keyOf is a hash that nobody can make without our key. The user name counts as
// it was typed: what two spellings have in common is the source's to say.
func (t *basics) keyOf(source string, c basicCredentials) (key [32]byte) {
	h := hmac.New(sha256.New, t.key[:])
	for _, part := range []string{source, c.user, c.password} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	h.Sum(key[:0])
	return key
}

// stands reports whether the credentials need not be checked again yet. A source
// that a reload replaced has not been asked.
func (b *basicLogin) stands(s *site, src claims.PasswordSource, now time.Time) bool {
	if b == nil || b.src != src {
		return false
	}
	return !s.stale(now.UnixNano(), b.checked) || waiting(now.UnixNano(), b.retry)
}

// basic is the source whose passwords the route takes: all readings of the path
// must agree. nil: none.
func (d decision) basic() claims.PasswordSource {
	if d.route == nil || d.route.basic == nil {
		return nil
	}
	for _, rt := range d.others {
		if rt.basic != d.route.basic {
			return nil
		}
	}
	return d.route.basic
}

// keepsAuthorization reports whether the header Authorization may hold a
// password that is ours to look at, and so is not for the upstream.
func (d decision) keepsAuthorization() bool {
	if d.route == nil {
		return false
	}
	for _, rt := range d.others {
		if rt.basic != nil {
			return true
		}
	}
	return d.route.basic != nil
}

// who is step 3. On a route that takes passwords one that is sent along decides
// alone, whatever cookies stand beside it.
func (p *Proxy) who(x *exchange, r *http.Request, portal string) (*member, error) {
	if src := x.decision.basic(); src != nil && r.Header["Sec-Fetch-Mode"] == nil {
		if lines := r.Header["Authorization"]; sendsBasic(lines) {
			x.basic = true
			return p.basicMember(x, r, src, lines)
		}
	}
	return p.find(x.site, r, portal)
}

// challenge tells a program whose request was answered by 401 that it may send
// a password. A browser would ask the person for it in a window of its own,
// where nobody sees who is asking.
func (x *exchange) challenge(r *http.Request) {
	src := x.decision.basic()
	if src == nil || r.Header["Sec-Fetch-Mode"] != nil || r.Header["X-Requested-With"] != nil {
		return
	}
	// A source's name has no character that would have to be quoted.
	x.Header().Set("WWW-Authenticate", `Basic realm="`+src.Name()+`", charset="UTF-8"`)
}

// basicCredentials are what a client sends by HTTP Basic.
type basicCredentials struct{ user, password string }

// maxBasicPassword is in bytes, and no source takes a longer one.
const maxBasicPassword = 1 << 10

// sendsBasic reports whether one of the lines is of the scheme Basic, in any
// case (RFC 9110 section 11.1).
func sendsBasic(lines []string) bool {
	for _, line := range lines {
		if scheme, _, _ := strings.Cut(line, " "); strings.EqualFold(scheme, "basic") {
			return true
		}
	}
	return false
}

// readBasic reads the credentials. Two lines are none: two readers could pick
// different ones. Neither part has a control character (RFC 7617 section 2).
func readBasic(lines []string) (c basicCredentials, ok bool) {
	if len(lines) != 1 || len(lines[0]) > base64.StdEncoding.EncodedLen(maxUserName+1+maxBasicPassword)+64 {
		return c, false
	}
	_, encoded, _ := strings.Cut(lines[0], " ")
	plain, err := base64.StdEncoding.Strict().DecodeString(strings.Trim(encoded, " "))
	if err != nil || !utf8.Valid(plain) {
		return c, false
	}
	c.user, c.password, ok = strings.Cut(string(plain), ":")
	ok = ok && c.user != "" && len(c.user) <= maxUserName && c.password != "" && len(c.password) <= maxBasicPassword
	return c, ok && !strings.ContainsFunc(string(plain), unicode.IsControl)
}

// basicMember answers the session of a request that brought a password.
func (p *Proxy) basicMember(x *exchange, r *http.Request, src claims.PasswordSource, lines []string) (*member, error) {
	c, ok := readBasic(lines)
	if !ok {
		return nil, fmt.Errorf("authorization malformed: %w", errUnauthenticated)
	}
	key := p.basic.keyOf(src.Name(), c)
	if b := p.basic.get(key); b.stands(x.site, src, p.now()) {
		if m, err := p.lookUp(r.Context(), x.site, b.hash); m != nil || err != nil {
			return m, err
		}
	}
	// Once for all requests that come with them meanwhile: a program that asks
	// for ten things at once has not tried ten passwords.
	v, err, _ := p.basic.asking.Do(string(key[:]), func() (any, error) { return p.checkBasic(x, r, src, c, key) })
	if err != nil {
		return nil, err
	}
	m, err := p.lookUp(r.Context(), x.site, v.([32]byte))
	if m == nil && err == nil {
		err = fmt.Errorf("the session ended meanwhile: %w", errUnauthenticated)
	}
	return m, err
}

// checkBasic asks the source about credentials, and answers the hash of the
// session that they stand for. Who waits for it may go away.
func (p *Proxy) checkBasic(x *exchange, r *http.Request, src claims.PasswordSource, c basicCredentials, key [32]byte) (hash [32]byte, err error) {
	s, now := x.site, p.now()
	ctx := context.WithoutCancel(r.Context())
	was := p.basic.get(key)
	var alive *member
	if was != nil {
		if alive, err = p.recall(ctx, s, was.hash); err != nil {
			return hash, err
		}
		if alive != nil && was.stands(s, src, now) {
			return was.hash, nil // somebody was first
		}
	}
	a := attempt{user: c.user, password: c.password}
	if was != nil {
		a.by = newKnown(was.login, src.Name(), canonicalUser(c.user), was.subject)
	}
	id, grant, err := p.checkPassword(x, r.WithContext(ctx), src, a)
	s.logins[src.Name()].add(err)
	switch {
	case err != nil && was == nil:
		return hash, err
	case err != nil:
		return was.hash, p.basicFailed(ctx, x, src, key, alive, err)
	case alive != nil && was.subject == id.Subject:
		login := alive.view.Login
		if stored, err := p.dir.Store().LoginByID(ctx, login.ID); err == nil {
			login = *stored
		}
		err = p.takeAgain(ctx, s, login, id, grant, nil)
		if !errors.Is(err, groups.ErrNotFound) {
			x.noted = x.noted || groups.Refused(err)
			break
		}
		fallthrough // it ended meanwhile
	default:
		was, err = p.basicSignIn(ctx, x, id, grant)
	}
	if err != nil {
		p.basic.drop(key)
		return hash, err
	}
	p.basic.put(key, &basicLogin{src: src, hash: was.hash, login: was.login, subject: id.Subject, checked: now})
	return was.hash, nil
}

// basicFailed ends the session of credentials that are not right any more. A
// source that cannot be reached ends nothing, as for other sessions.
func (p *Proxy) basicFailed(ctx context.Context, x *exchange, src claims.PasswordSource, key [32]byte, alive *member, cause error) error {
	was := p.basic.get(key)
	switch {
	case was == nil:
	case errors.Is(cause, claims.ErrUnavailable) && alive != nil && was.src == src:
		until := p.now().Add(renewRetry).UnixNano()
		later := *was
		later.retry = until
		p.basic.put(key, &later)
		p.sessions.retries.Store(was.login, until)
		alive.retry.Store(until)
		p.log.Warn("password not checked again", zap.String("request_id", x.id), zap.Error(cause))
		return nil
	case errors.Is(cause, claims.ErrBadPassword), errors.Is(cause, claims.ErrDenied):
		p.basic.drop(key)
		if _, err := p.dir.EndLogins(ctx, groups.LoginFilter{ID: was.login}, "source "+src.Name(), "the password is not accepted any more", x.id); err != nil {
			p.log.Warn("session not ended", zap.String("request_id", x.id), zap.Error(err))
		}
	}
	return cause
}

// basicSignIn makes a source's statement a session that no cookie leads to.
func (p *Proxy) basicSignIn(ctx context.Context, x *exchange, id *claims.Identity, grant *claims.Grant) (*basicLogin, error) {
	l, err := p.newLogin(x.site, id, grant)
	if err != nil {
		return nil, err
	}
	in := groups.SignIn{Identity: id, Login: l, Session: &groups.Session{Used: l.Created}, Request: x.id}
	_, in.Session.Hash = newSessionID()
	_, end := x.site.step(ctx, "sync", id.Source)
	_, err = p.dir.SignIn(ctx, in)
	end(err)
	p.Stats.LoginTook.Observe(p.now().Sub(x.began))
	if err != nil {
		x.noted = groups.Refused(err)
		return nil, err
	}
	return &basicLogin{hash: in.Session.Hash, login: l.ID}, nil
}
