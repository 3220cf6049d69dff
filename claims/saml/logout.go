package saml

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"

	"github.com/groupgate/groupgate/claims"
)

var _ claims.LogoutEndpoint = (*Source)(nil)

const (
	// maxLogoutAge is how old a logout message may be when it arrives: it comes
	// by a redirect or a form that posts itself, and nobody is asked anything
	// on the way.
	maxLogoutAge = 5 * time.Minute
	// maxSessions bounds the sessions that one request names.
	maxSessions = 100
)

// formatUnspecified is what no format means (Core 8.3.1).
const formatUnspecified = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"

// formats are all that SAML names, but for that of entities.
var formats = []string{
	formatUnspecified, formatPersistent, formatEmail, formatTransient,
	"urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName",
	"urn:oasis:names:tc:SAML:1.1:nameid-format:WindowsDomainQualifiedName",
	"urn:oasis:names:tc:SAML:2.0:nameid-format:kerberos",
}

// alias is a digest of everything that makes a NameID this person's and nobody
// else's: the value within its format and qualifiers. The subject may be an
// attribute, and two NameIDs of one value are two people, so a logout is looked
// for by this alone. What is left out means what the specification says it
// means: no format is "unspecified" (Core 2.2.2), and no qualifiers are the
// provider's and ours (8.3.7).
func (n nameID) alias(idp, sp string) string {
	if n.Format == "" {
		n.Format = formatUnspecified
	}
	if n.Qualifier == "" {
		n.Qualifier = idp
	}
	if n.SPQualifier == "" {
		n.SPQualifier = sp
	}
	raw, _ := json.Marshal(n)
	sum := sha256.Sum256(raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// aliases are those that the login of a NameID in a logout may have. Entra ID
// and ADFS leave the format out there that they gave at the login. What no
// format means is ours to say (Core 8.3.1): any.
func (n nameID) aliases(idp, sp string) []string {
	if n.Format != "" {
		return []string{n.alias(idp, sp)}
	}
	var all []string
	for _, n.Format = range formats {
		all = append(all, n.alias(idp, sp))
	}
	return all
}

// RequestLogout asks the provider to end its session (Profiles 4.4.3.1), by a
// redirect where it takes one.
func (s *Source) RequestLogout(g *claims.Grant, id string) (*claims.Away, error) {
	var who loginName
	if g == nil || json.Unmarshal(g.NameID, &who) != nil || who.Value == "" {
		return nil, nil
	}
	e := s.keep.current()
	if e == nil {
		return nil, s.errorf("sign out", claims.ErrUnavailable, "no metadata of the provider")
	}
	binding, to := chosen(e.logout)
	if to == "" {
		return nil, nil
	}
	el := s.logoutMessage("LogoutRequest", id, to)
	name := add(el, element("saml:NameID"))
	for _, a := range [][2]string{{"NameQualifier", who.Qualifier}, {"SPNameQualifier", who.SPQualifier}, {"Format", who.Format}} {
		if a[1] != "" {
			name.CreateAttr(a[0], a[1])
		}
	}
	name.SetText(who.Value)
	if who.SessionIndex != "" {
		add(el, element("samlp:SessionIndex")).SetText(who.SessionIndex)
	}
	return s.send(binding, to, "SAMLRequest", el, "")
}

// chosen prefers the redirect, which needs no page between.
func chosen(addresses map[string]string) (binding, to string) {
	for _, binding := range []string{saml.HTTPRedirectBinding, saml.HTTPPostBinding} {
		if to := addresses[binding]; to != "" {
			return binding, to
		}
	}
	return "", ""
}

// ReadLogout reads a LogoutRequest or a LogoutResponse (Core 3.7). The only
// answer that is taken unsigned is one to a request of ours: it can end
// nothing. One that carries a signature is held to it.
func (s *Source) ReadLogout(r *http.Request) (*claims.LogoutMessage, error) {
	read := func(t *trust) (*carried, error) { return t.fromQuery(r.URL.RawQuery) }
	if r.Method == http.MethodPost {
		if err := r.ParseForm(); err != nil {
			return nil, s.errorf("read logout", claims.ErrProtocol, "the form is malformed")
		}
		read = func(t *trust) (*carried, error) { return t.fromForm(r.PostForm) }
	}
	var out *claims.LogoutMessage
	err := s.withTrust(r.Context(), func(t *trust) (err error) {
		defer t.guard(&err)
		c, err := read(t)
		if err != nil {
			return err
		}
		out, err = t.readLogout(c, s.sp.SloURL.String(), s.now())
		return err
	})
	switch {
	case errors.Is(err, claims.ErrUnavailable):
		return nil, s.errorf("read logout", claims.ErrUnavailable, "%w", err)
	case err != nil:
		return nil, s.errorf("read logout", claims.ErrProtocol, "%w", err)
	}
	return out, nil
}

// readLogout holds a message to Profiles 4.4.3 and 4.4.4.
func (t *trust) readLogout(c *carried, slo string, now time.Time) (*claims.LogoutMessage, error) {
	el := c.el
	kind := "LogoutResponse"
	if c.request {
		kind = "LogoutRequest"
	}
	switch {
	case !is(el, nsProtocol, kind) || attr(el, "Version") != "2.0" || attr(el, "ID") == "":
		return nil, errors.New("not a SAML 2.0 " + kind)
	case c.request && !c.signed:
		return nil, errUnsigned
	}
	switch to := attr(el, "Destination"); {
	case to == "" && c.signed: // Bindings 3.4.5.2, 3.5.5.2
		return nil, errors.New("a signed message without a Destination")
	case to != "" && to != slo:
		return nil, errors.New("a message for another address (Destination)")
	}
	issuer, err := needChild(el, nsAssertion, "Issuer")
	if err != nil {
		return nil, err
	}
	if err := t.checkIssuer(issuer); err != nil {
		return nil, err
	}
	issued, err := checkIssued(el, maxLogoutAge, t.skew, now)
	if err != nil {
		return nil, err
	}
	if !c.request {
		return readLogoutResponse(el)
	}
	if err := within(el, t.skew, now); err != nil {
		return nil, err
	}
	m := &claims.LogoutMessage{State: c.state, Logout: &claims.Logout{
		// By the latest clock that might still believe it.
		ID: attr(el, "ID"), IssuedAt: issued, Expires: issued.Add(maxLogoutAge + 2*t.skew),
	}}
	return m, t.readLogoutRequest(m, el)
}

func readLogoutResponse(el *etree.Element) (*claims.LogoutMessage, error) {
	m := &claims.LogoutMessage{InResponseTo: attr(el, "InResponseTo"), Done: true}
	switch err, no := checkStatus(el), (*refused)(nil); {
	case errors.As(err, &no):
		m.Done = false
	case err != nil:
		return nil, err
	}
	// The provider may be done while another service is not (Core 3.7.3.2).
	if status, _ := child(el, nsProtocol, "Status"); m.Done && status != nil {
		code, _ := child(status, nsProtocol, "StatusCode")
		second, err := child(code, nsProtocol, "StatusCode")
		m.Done = err == nil && second == nil
	}
	return m, nil
}

// readLogoutRequest reads who is signed out (Core 3.7.1).
func (t *trust) readLogoutRequest(m *claims.LogoutMessage, el *etree.Element) error {
	name, err := child(el, nsAssertion, "NameID")
	if err != nil {
		return err
	}
	sealed := len(children(el, nsAssertion, "EncryptedID")) + len(children(el, nsAssertion, "BaseID"))
	switch {
	case name == nil && sealed == 1:
		m.Refused = "a person named by EncryptedID or BaseID, which is not read: have the provider send a NameID"
		return nil
	case name == nil || sealed > 0:
		return errors.New("not one name of the person")
	}
	text, ok := textOf(name)
	if !ok || text == "" {
		return errors.New("a NameID that is empty or not text")
	}
	m.Logout.Aliases = nameID{text, attr(name, "Format"), attr(name, "NameQualifier"), attr(name, "SPNameQualifier")}.aliases(t.idp, t.sp)
	for _, index := range children(el, nsProtocol, "SessionIndex") {
		text, ok := textOf(index)
		if !ok || text == "" {
			// Without it the request would be for every session.
			return errors.New("a SessionIndex that is empty or not text")
		}
		m.Logout.Sessions = append(m.Logout.Sessions, text)
	}
	if len(m.Logout.Sessions) > maxSessions {
		return fmt.Errorf("more than %d sessions", maxSessions)
	}
	return nil
}

// AnswerLogout answers a request (Profiles 4.4.4.1), by a redirect where the
// provider takes one.
func (s *Source) AnswerLogout(m *claims.LogoutMessage) (*claims.Away, error) {
	e := s.keep.current()
	if e == nil {
		return nil, s.errorf("answer logout", claims.ErrUnavailable, "no metadata of the provider")
	}
	binding, to := chosen(e.logout)
	if other := e.logoutReply[binding]; other != "" {
		to = other
	}
	if to == "" {
		return nil, nil
	}
	el := s.logoutMessage("LogoutResponse", newID(), to)
	el.CreateAttr("InResponseTo", m.Logout.ID)
	status := add(el, element("samlp:Status"))
	if m.Refused == "" {
		add(status, element("samlp:StatusCode", "Value", statusSuccess))
	} else {
		code := add(status, element("samlp:StatusCode", "Value", statusPrefix+"Requester"))
		add(code, element("samlp:StatusCode", "Value", statusPrefix+"RequestUnsupported"))
	}
	state := m.State
	if len(state) > maxRelayState {
		state = "" // Bindings 3.4.3: it should not have been sent
	}
	return s.send(binding, to, "SAMLResponse", el, state)
}
