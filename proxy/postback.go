package proxy

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/groupgate/groupgate/claims"
)

// postBack is a login's second half where the answer is a form that another
// site's page has this browser post (SAML Bindings 3.5). Cookies with SameSite
// Lax do not come with it, so neither does a session; the login's own does.
func (p *Proxy) postBack(x *exchange, r *http.Request, source string) error {
	s := x.site
	src, redirects := s.sources[source].(claims.Redirecting)
	if _, posts := src.(claims.PostBack); !redirects || !posts || x.host.portal {
		return fmt.Errorf("answer by POST: %w", errSource)
	}
	x.source, x.posted = source, true
	relay, err := readPostBack(x, r)
	if err != nil {
		s.logins[source].add(err)
		p.noteMessage(x, err.Error())
		return err
	}
	kept, begun := "", false
	if len(relay) == idLength {
		kept, begun = s.bound(r, relay)
	}
	if !begun {
		return p.unsolicited(x, r, src)
	}
	f, key, ok := s.openFlow(purposeKept, kept, p.now())
	if !ok || f.ID != relay || f.Source != source || !p.used.first(f.ID, p.now()) {
		s.logins[source].add(errNoFlow)
		return fmt.Errorf("%s: %w", source, errNoFlow)
	}
	s.dropLoginCookie(x, s.loginCookie(f.ID))
	return p.land(x, r, src, f, s.claimsFlow(src, f, key, f.ID))
}

// unsolicited takes an answer that this browser did not ask for: it was begun
// at the source, or in another browser, or too long ago. The source knows
// whether it may begin a login; an answer to some request it refuses here.
// What stands in RelayState is somebody's wish and leads nowhere (RD-04).
func (p *Proxy) unsolicited(x *exchange, r *http.Request, src claims.Redirecting) error {
	f := flow{Source: src.Name(), Return: "/"}
	cf := &claims.Flow{RedirectURI: x.site.answersAt(src), Started: p.now()}
	err := p.land(x, r, src, f, cf)
	if errors.Is(err, claims.ErrProtocol) {
		// Most who come here waited too long, and need to hear that.
		err = fmt.Errorf("%w: %w", errNoFlow, err)
	}
	return err
}

// readPostBack reads the form that holds a source's answer, and answers what
// it echoes of ours. What could be meant for another binding, or stands twice,
// is refused: two readers could pick different ones (RD-06, SM-26).
func readPostBack(x *exchange, r *http.Request) (relay string, err error) {
	q, err := query(r)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"SAMLResponse", "SAMLRequest", "SAMLart", "RelayState"} {
		if q.Has(name) {
			return "", fmt.Errorf("%w: %s stands in the query", errForm, name)
		}
	}
	form, err := readForm(r, maxMessageForm)
	if err != nil {
		return "", err
	}
	switch {
	case form.Has("SAMLart"):
		return "", fmt.Errorf("%w: an artifact, which is not resolved", errForm)
	case len(form["SAMLResponse"]) != 1 || form["SAMLResponse"][0] == "":
		return "", fmt.Errorf("%w: there is not one SAMLResponse", errForm)
	case len(form["RelayState"]) > 1:
		return "", fmt.Errorf("%w: RelayState stands twice", errForm)
	}
	return form.Get("RelayState"), nil
}

// metadata is what a source has to be told of us.
func (p *Proxy) metadata(x *exchange, r *http.Request, source string) error {
	src, ok := x.site.sources[source].(claims.Publisher)
	if !ok || x.host.portal {
		return fmt.Errorf("metadata: %w", errSource)
	}
	contentType, body, err := src.Metadata()
	if err != nil {
		return fmt.Errorf("%s: metadata: %w", source, err)
	}
	ownHeaders(x.Header())
	x.Header().Set("Content-Type", contentType)
	x.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = x.Write(body) // the client may be gone
	}
	return nil
}
