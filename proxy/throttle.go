package proxy

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/groupgate/groupgate/groups"
)

// What a password may be tried how often, contract section 8.
const (
	userLimit     = 10  // a minute, of one person
	networkLimit  = 100 // a minute, of one client network
	throttleSpan  = time.Minute
	firstBlock    = 30 * time.Second
	longestBlock  = 15 * time.Minute
	offenceMemory = time.Hour // of quiet, after which an offence is forgotten
	// maxThrottled bounds the memory, whatever anybody types.
	maxThrottled = 100_000
)

// errThrottled: the password was tried too often. Nobody was asked.
var errThrottled = errors.New("too many attempts")

// throttledError is errThrottled with the time until another attempt counts.
type throttledError struct {
	wait  time.Duration
	began bool // this very attempt was the one too many
}

func (e *throttledError) Error() string {
	return fmt.Sprintf("%v: wait %d s", errThrottled, e.seconds())
}
func (e *throttledError) Unwrap() error { return errThrottled }

// seconds is never less than the wait.
func (e *throttledError) seconds() int { return int((e.wait + time.Second - 1) / time.Second) }

// throttleKey is what attempts are counted for. Only a hash is kept: what was
// typed into a field for a name may be a password.
type throttleKey struct {
	limit int
	hash  [16]byte
}

func newThrottleKey(limit int, parts ...string) throttleKey {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d %s", len(part), part) // lengths keep the parts apart
	}
	return throttleKey{limit, [16]byte(h.Sum(nil))}
}

// throttle counts attempts to sign in with a password, on forms and by HTTP
// Basic alike. It lives in memory, outlives reloads, and is asked by attempts
// only: who is signed in never comes here.
type throttle struct {
	mu   sync.Mutex
	keys map[[16]byte]*list.Element // of *attempts
	// The longest unused is in front. Who tried too often is in a list apart:
	// a flood of other names does not make it forgotten.
	quiet, offenders list.List
	base             time.Time // the clock may be set: what is kept is time since
}

// attempts is what is known of one key.
type attempts struct {
	hash    [16]byte
	at      []time.Duration // of the last minute's, the oldest first
	latest  time.Duration   // when the last one was, which may be longer ago
	blocked time.Duration   // until then
	blocks  int             // how often it came to that
}

// take counts one attempt for all keys, or for none of them: then it answers
// how long to wait. What is asked while it is blocked makes the wait no longer.
func (t *throttle) take(now time.Time, keys ...throttleKey) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys == nil {
		t.keys, t.base = map[[16]byte]*list.Element{}, now
	}
	at := now.Sub(t.base)
	t.forget(at)
	refused := throttledError{}
	for _, k := range keys {
		wait, began := t.check(at, k)
		refused.wait, refused.began = max(refused.wait, wait), refused.began || began
	}
	if refused.wait > 0 {
		return &refused
	}
	for _, k := range keys {
		a := t.entry(k.hash)
		a.at, a.latest = append(a.at, at), at
	}
	return nil
}

// check says how long a key has to wait. One attempt too many begins a block,
// each twice as long as the one before; after it there is room for at least
// one.
func (t *throttle) check(at time.Duration, k throttleKey) (wait time.Duration, began bool) {
	e := t.keys[k.hash]
	if e == nil {
		return 0, false
	}
	a := e.Value.(*attempts)
	if a.blocks > 0 && at-a.last() >= offenceMemory {
		t.drop(&t.offenders, e)
		return 0, false
	}
	a.at = slices.DeleteFunc(a.at, func(then time.Duration) bool { return at-then >= throttleSpan })
	if at < a.blocked {
		return a.blocked - at, false
	}
	if len(a.at) < k.limit {
		return 0, false
	}
	block := longestBlock
	if a.blocks < 10 { // 30 s ten times doubled is far past the longest
		block = min(longestBlock, firstBlock<<a.blocks)
	}
	a.blocks++
	a.blocked = max(at+block, a.at[len(a.at)-k.limit]+throttleSpan)
	if a.blocks == 1 {
		t.quiet.Remove(e)
		e = t.offenders.PushBack(a)
		t.keys[k.hash] = e
	}
	t.offenders.MoveToBack(e)
	return a.blocked - at, true
}

// entry finds what is known of a key, or makes room for it.
func (t *throttle) entry(hash [16]byte) *attempts {
	e := t.keys[hash]
	switch {
	case e == nil:
		if len(t.keys) >= maxThrottled {
			t.dropOldest()
		}
		e = t.quiet.PushBack(&attempts{hash: hash})
		t.keys[hash] = e
	case e.Value.(*attempts).blocks > 0:
		t.offenders.MoveToBack(e)
	default:
		t.quiet.MoveToBack(e)
	}
	return e.Value.(*attempts)
}

func (t *throttle) dropOldest() {
	from := &t.quiet
	if from.Len() == 0 {
		from = &t.offenders
	}
	t.drop(from, from.Front())
}

func (t *throttle) drop(from *list.List, e *list.Element) {
	delete(t.keys, e.Value.(*attempts).hash)
	from.Remove(e)
}

// forget drops what says nothing any more.
func (t *throttle) forget(at time.Duration) {
	for e := t.quiet.Front(); e != nil && at-e.Value.(*attempts).last() >= throttleSpan; e = t.quiet.Front() {
		t.drop(&t.quiet, e)
	}
	for e := t.offenders.Front(); e != nil && at-e.Value.(*attempts).last() >= offenceMemory; e = t.offenders.Front() {
		t.drop(&t.offenders, e)
	}
}

// last is when a key was quiet from.
func (a *attempts) last() time.Duration { return max(a.blocked, a.latest) }

// sweep forgets while nobody tries anything.
func (t *throttle) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now.Sub(t.base))
}

// takeAttempt counts one attempt for all keys, or for none of them. Memory is
// asked first: it knows no more than all there is, and what it refuses costs
// the store nothing. Where replicas share the store, what all of them saw
// decides; of one replica one attempt at a time, lest a flood of them undo
// each other's transactions.
func (p *Proxy) takeAttempt(ctx context.Context, keys ...throttleKey) error {
	now := p.now()
	if err := p.throttle.take(now, keys...); err != nil || !p.dir.Replicas() {
		return err
	}
	select {
	case p.counting <- struct{}{}:
		defer func() { <-p.counting }()
	case <-ctx.Done():
		return fmt.Errorf("attempt not counted: %w: %w", groups.ErrUnavailable, ctx.Err())
	}
	hashes := make([][16]byte, len(keys))
	for i, k := range keys {
		hashes[i] = k.hash
	}
	var refused error
	err := p.dir.CountAttempts(ctx, hashes, func(noted []json.RawMessage) ([]json.RawMessage, time.Time) {
		var all throttle
		all.restore(hashes, noted)
		refused = all.take(now, keys...)
		return all.noted(hashes), now.Add(longestBlock + offenceMemory)
	})
	if err != nil {
		return fmt.Errorf("attempt not counted: %w", err)
	}
	return refused
}

// notedAttempts is what replicas tell each other of one key; times are
// nanoseconds since 1970.
type notedAttempts struct {
	At      []time.Duration `json:"at,omitempty"`
	Latest  time.Duration   `json:"latest"`
	Blocked time.Duration   `json:"blocked,omitempty"`
	Blocks  int             `json:"blocks,omitempty"`
}

// restore fills an empty throttle with what was noted. What cannot be read
// counts as nothing: a version after this one may write it otherwise.
func (t *throttle) restore(hashes [][16]byte, noted []json.RawMessage) {
	t.keys, t.base = map[[16]byte]*list.Element{}, time.Unix(0, 0)
	for i, body := range noted {
		var n notedAttempts
		if body == nil || json.Unmarshal(body, &n) != nil {
			continue
		}
		in := &t.quiet
		if n.Blocks > 0 {
			in = &t.offenders
		}
		t.keys[hashes[i]] = in.PushBack(&attempts{hash: hashes[i], at: n.At, latest: n.Latest, blocked: n.Blocked, blocks: n.Blocks})
	}
}

// noted is what restore takes; nil for a key of which nothing is known.
func (t *throttle) noted(hashes [][16]byte) []json.RawMessage {
	out := make([]json.RawMessage, len(hashes))
	for i, hash := range hashes {
		e := t.keys[hash]
		if e == nil {
			continue
		}
		a := e.Value.(*attempts)
		out[i], _ = json.Marshal(notedAttempts{a.at, a.latest, a.blocked, a.blocks}) // numbers
	}
	return out
}

// maxUserName bounds a user name, in bytes. A longer one is nobody's.
const maxUserName = 256

// canonicalUser is a user name without the differences that a directory may
// overlook: `CORP\Alice`, `alice@corp`, full-width letters and blanks around it
// are one name. Two people whose names differ in less share what they may try;
// it never decides who somebody is.
func canonicalUser(name string) string {
	if len(name) > maxUserName {
		return "" // no source takes it: one bucket for all such
	}
	fold := cases.Fold()
	for range 8 { // each round may bring to light what the next one takes
		before := name
		name = norm.NFKC.String(fold.String(norm.NFKC.String(strings.ToValidUTF8(name, "\ufffd"))))
		name = strings.Join(strings.Fields(strings.Map(visible, name)), " ")
		name = withoutDomain(name)
		if name == before {
			break
		}
	}
	return name
}

// visible leaves out what RFC 4518 section 2.2 maps to nothing.
func visible(r rune) rune {
	switch {
	case r == 0xad, r == 0x34f, r == 0x1806, r >= 0x180b && r <= 0x180e, r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e,
		r >= 0x2060 && r <= 0x206f, r >= 0xfe00 && r <= 0xfe0f, r == 0xfeff, r == 0xfffc, r >= 0xe0000 && r <= 0xe0fff:
		return -1
	case r < ' ' && r != '\t' && r != '\n' && r != '\v' && r != '\f' && r != '\r', r >= 0x7f && r <= 0x9f && r != 0x85:
		return -1
	}
	return r
}

// withoutDomain takes `DOMAIN\` and `@domain` off, unless nothing is left.
func withoutDomain(name string) string {
	if i := strings.LastIndexByte(name, '\\'); i >= 0 && i < len(name)-1 {
		name = name[i+1:]
	}
	if i := strings.IndexByte(name, '@'); i > 0 {
		name = name[:i]
	}
	return name
}

// clientNetwork is where a request comes from, as far as somebody we trust
// says so: the /24 of an IPv4 address, the /56 of an IPv6 one.
func clientNetwork(x *exchange, r *http.Request) string {
	addr := x.peer.addr
	if x.peer.trusted {
		addr = x.site.forwardedFor(r, addr)
	}
	if !addr.IsValid() {
		return "a local socket"
	}
	bits := 24
	if addr.Is6() {
		bits = 56
	}
	network, err := addr.Prefix(bits)
	if err != nil {
		return addr.String()
	}
	return network.String()
}

// forwardedFor reads X-Forwarded-For from the right: each trusted proxy says
// who came to it, and the first that is no such proxy is the client. What stands
// left of that anybody may have written.
func (s *site) forwardedFor(r *http.Request, addr netip.Addr) netip.Addr {
	said := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, text := range slices.Backward(said) {
		text = strings.TrimSpace(text)
		next, err := netip.ParseAddr(text)
		if err != nil {
			with, err := netip.ParseAddrPort(text)
			if err != nil {
				return addr
			}
			next = with.Addr()
		}
		addr = next.Unmap().WithZone("")
		if !slices.ContainsFunc(s.trusted, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			return addr
		}
	}
	return addr
}
