package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/proxy/page"
)

// singleLogout takes a message about logout that a browser brings from its
// source, and answers by the same way (SAML Profiles 4.4). What a request ends
// is what it names and not what the browser holds: its own cookie need not come
// along, and other browsers' sessions end as well. A request is answered alike
// whether anybody was signed in or not.
func (p *Proxy) singleLogout(x *exchange, r *http.Request, source string) error {
	src, ok := x.site.sources[source].(claims.LogoutEndpoint)
	if !ok || x.host.portal {
		return fmt.Errorf("single logout: %w", errSource)
	}
	x.source, x.posted = source, r.Method == http.MethodPost
	m, err := readLogout(x, r, src)
	switch {
	case err == nil && m.Logout == nil:
		return p.logoutAnswered(x, r, m)
	case err == nil && m.Refused != "":
		p.noteMessage(x, source+": "+m.Refused)
	case err == nil:
		err = p.endBySource(x, r, m.Logout)
	}
	if err != nil {
		return p.refuseLogout(x, err)
	}
	away, err := src.AnswerLogout(m)
	if err != nil {
		return err
	}
	if away == nil {
		return p.signedOut(x, r, "")
	}
	p.sendAway(x, r, away)
	return nil
}

func readLogout(x *exchange, r *http.Request, src claims.LogoutEndpoint) (*claims.LogoutMessage, error) {
	if r.Method == http.MethodPost {
		if _, err := readForm(r, maxMessageForm); err != nil {
			return nil, err
		}
	}
	m, err := src.ReadLogout(r)
	if errors.Is(err, claims.ErrProtocol) {
		err = fmt.Errorf("%w: %w", errLogout, err)
	}
	return m, err
}

// refuseLogout answers err, written down when it is about the message.
func (p *Proxy) refuseLogout(x *exchange, err error) error {
	if errors.Is(err, errLogout) {
		p.noteMessage(x, err.Error())
	}
	return err
}

// logoutAnswered ends a sign-out that went by the source. The session here was
// over before the source was asked, whatever it says. An answer that is none to
// this browser's sign-out may have come by anybody's link: nobody who is signed
// in is told otherwise by it, and a POST does not show who that is.
func (p *Proxy) logoutAnswered(x *exchange, r *http.Request, m *claims.LogoutMessage) error {
	s := x.site
	l, ok := s.recallLeaving(r, p.now())
	if !ok || !equalSecret(l.Request, m.InResponseTo) {
		here, err := p.find(s, r, "")
		if err != nil {
			return err
		}
		if here != nil || x.posted {
			return p.refuseLogout(x, fmt.Errorf("%w: an answer to no sign-out of this browser", errLogout))
		}
		return p.signedOut(x, r, "")
	}
	s.forgetLeaving(x)
	if !m.Done {
		p.log.Warn("the source did not end all of its session", zap.String("request_id", x.id), zap.String("source", x.source))
		return p.signedOut(x, r, "")
	}
	return p.signedOut(x, r, l.After)
}

// sendAway sends a browser on with a message: by a redirect, or by a page that
// posts a form.
func (p *Proxy) sendAway(x *exchange, r *http.Request, away *claims.Away) {
	if away.Form == nil {
		redirect(x, http.StatusSeeOther, away.URL)
		return
	}
	p.writePage(x, r, http.StatusOK, page.Continue{To: away.URL, Fields: away.Form})
}

// leaving is a sign-out on its way to a source that echoes too little to carry
// it (80 bytes, SAML Bindings 3.4.3). Like a login's flow it is kept in the
// browser; there is one at a time, since the first ends the session.
type leaving struct {
	Request string `json:"r"` // id of our request
	After   string `json:"a"` // where the browser goes in the end
	Began   int64  `json:"t"` // Unix seconds
}

// newRequestID is one that XML takes: it does not begin with a digit.
func newRequestID() string { return "id-" + newID() }

const leavingWord = "-leaving"

// rememberLeaving sets the cookie. It is SameSite=None because the answer may
// be a cross-site POST.
func (s *site) rememberLeaving(w http.ResponseWriter, l leaving) {
	plain, _ := json.Marshal(l) // strings and numbers only
	sealed := s.keys.sealText(purposeLeaving, plain)
	if len(sealed) > maxKept {
		l.After = "" // a browser drops a cookie that is too large without a word
		plain, _ = json.Marshal(l)
		sealed = s.keys.sealText(purposeLeaving, plain)
	}
	s.setLeaving(w, sealed, int(loginLife/time.Second))
}

func (s *site) forgetLeaving(w http.ResponseWriter) { s.setLeaving(w, "", -1) }

func (s *site) setLeaving(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: s.sessionCookie + leavingWord, Value: value, Path: "/",
		MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode,
	})
}

func (s *site) recallLeaving(r *http.Request, now time.Time) (leaving, bool) {
	for name, value := range cookies(r) {
		if name != s.sessionCookie+leavingWord {
			continue
		}
		var l leaving
		plain, err := s.keys.openText(purposeLeaving, value)
		if err != nil || json.Unmarshal(plain, &l) != nil {
			continue
		}
		age := now.Sub(time.Unix(l.Began, 0))
		return l, age < loginLife && age > -time.Minute
	}
	return leaving{}, false
}
