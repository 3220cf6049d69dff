package proxy

import (
	"net/http"
	"time"
)

// successor is what a browser's cookies are replaced with.
type successor struct {
	text  string
	stamp int64
}

// carry puts a session's newer cookies on an answer, when the browser is to have
// them: after a renewal, and so that the cookies tell any replica that the
// session is used. Such an answer is nobody's to keep.
func (x *exchange) carry(h http.Header) {
	m := x.member
	if m == nil || m.carried == nil {
		return
	}
	next := m.due(x.p.now().UnixNano())
	if next == nil {
		return
	}
	x.site.setPieces(h, next.text, time.Unix(0, m.expires).Sub(x.p.now()), m.carried.pieces)
	h.Set("Cache-Control", "no-store")
	for _, name := range []string{"Cdn-Cache-Control", "Surrogate-Control", "Expires"} {
		h.Del(name)
	}
}

// restampEvery is how old the time of the last use in a cookie may be, against
// an idle time.
func (s *site) restampEvery() time.Duration { return min(s.idle/12, 5*time.Minute) }

// due is what the browser's cookies are to be replaced with, or nil.
func (m *member) due(now int64) *successor {
	of, every := m.carried, int64(m.site.restampEvery())
	if next := of.next.Load(); next != nil && now-next.stamp < every {
		return next
	}
	if of.session.Generation == of.generation && now-of.stamp < every {
		return nil
	}
	c := *of.session
	c.Used = max(m.used.Load(), of.stamp) / int64(time.Millisecond)
	text, err := m.site.sealSession(&c)
	if err != nil {
		return nil // what was sealed before is no larger now
	}
	next := &successor{text, c.Used * int64(time.Millisecond)}
	of.next.Store(next)
	return next
}
