package saml

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
)

// Formats of NameIDs (Core 8.3) that tell how long a name lasts.
const (
	formatTransient  = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
	formatPersistent = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
	formatEmail      = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
)

const maxSubject = 1024 // bytes

const stepRead = "read response"

// Authenticate reads the form that the browser posted.
func (s *Source) Authenticate(r *http.Request, f *claims.Flow) (*claims.Identity, *claims.Grant, error) {
	message, err := s.posted(r, f)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), entityTimeout)
	defer cancel()
	a, idp, err := s.accept(ctx, message, f.RequestID)
	if err != nil {
		return nil, nil, err
	}
	subject, err := s.subject(a, idp)
	if err != nil {
		return nil, nil, s.errorf(stepRead, claims.ErrProtocol, "%w", err)
	}
	grant, err := json.Marshal(loginName{a.name, a.sessionIndex})
	if err != nil {
		return nil, nil, s.errorf(stepRead, nil, "%w", err)
	}
	return &claims.Identity{
		Source: s.name, Subject: subject, Session: a.sessionIndex, Alias: a.name.alias(idp, s.cfg.EntityID), Claims: s.claims(ctx, a),
		IssuedAt: a.issued, SessionEnds: a.sessionEnds,
		StatementID: a.id, StatementUntil: a.until,
	}, &claims.Grant{NameID: grant}, nil
}

// loginName is how the provider names a person and its session.
type loginName struct {
	nameID
	SessionIndex string `json:"i,omitempty"`
}

// posted takes the response out of the form (Bindings 3.5.4).
func (s *Source) posted(r *http.Request, f *claims.Flow) ([]byte, error) {
	fail := func(format string, args ...any) ([]byte, error) {
		return nil, s.errorf(stepRead, claims.ErrProtocol, format, args...)
	}
	if r.Method != http.MethodPost {
		return fail("not posted")
	}
	if r.PostForm == nil {
		if err := r.ParseForm(); err != nil {
			return fail("the form is malformed")
		}
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || q.Has("SAMLart") || r.PostForm.Has("SAMLart") {
		return fail("an artifact, which is not taken, or a malformed query") // it would have us ask somewhere
	}
	text, relay := r.PostForm["SAMLResponse"], r.PostForm["RelayState"]
	switch {
	case len(text) != 1 || text[0] == "":
		return fail("there is not one SAMLResponse")
	case len(relay) > 1:
		return fail("there is more than one RelayState")
	case f.RequestID == "" && !s.cfg.IDPInitiated:
		return fail("nobody asked for it, and logins that the provider begins are off (idp_initiated)")
	case f.RequestID != "" && (len(relay) == 0 || f.State == "" || subtle.ConstantTimeCompare([]byte(relay[0]), []byte(f.State)) != 1):
		// The flow was found by it; this holds even if a caller got that wrong.
		return fail("RelayState is not this login's")
	}
	message, err := base64.StdEncoding.Strict().DecodeString(withoutBlanks(text[0]))
	if err != nil {
		return fail("not base64")
	}
	return message, nil
}

// withoutBlanks leaves out what encoders break lines with.
func withoutBlanks(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n", r) {
			return -1
		}
		return r
	}, s)
}

// accept holds the message to the metadata.
func (s *Source) accept(ctx context.Context, message []byte, requestID string) (a *assertion, idp string, err error) {
	err = s.withTrust(ctx, func(t *trust) (err error) {
		idp = t.idp
		select {
		case s.turns <- struct{}{}:
			defer func() { <-s.turns }()
		case <-ctx.Done():
			return fmt.Errorf("%w: too many answers at once", claims.ErrUnavailable)
		}
		a, err = t.accept(message, requestID, s.now())
		return err
	})
	var no *refused
	switch {
	case err == nil:
		return a, idp, nil
	case errors.Is(err, claims.ErrUnavailable):
		return nil, "", s.errorf("read metadata", claims.ErrUnavailable, "%w", err)
	case errors.As(err, &no) && slices.Contains([]string{"AuthnFailed", "RequestDenied", "NoPassive", "UnknownPrincipal"}, no.status):
		return nil, "", s.errorf(stepRead, claims.ErrDenied, "%w", err)
	default:
		return nil, "", s.errorf(stepRead, claims.ErrProtocol, "%w", err)
	}
}

// subject is what tells this person apart from all others of the source, for
// ever.
func (s *Source) subject(a *assertion, idp string) (string, error) {
	if s.cfg.Subject != claims.SubjectNameID {
		list, _ := a.attributes[s.cfg.Subject].([]any)
		if len(list) != 1 {
			return "", errors.New("there is not one value of the attribute that is the subject")
		}
		text, _ := list[0].(string)
		return text, checkSubject(text)
	}
	switch {
	case a.name.Format == formatTransient:
		return "", errors.New("a transient NameID, which is another at every login: have the provider send a persistent one, or name an attribute as subject")
	case a.name.Format == formatPersistent && a.name.Qualifier != "" && a.name.Qualifier != idp:
		// The same value could be another person's (Core 8.3.7).
		return "", errors.New("a NameID in the name of another provider (NameQualifier)")
	case a.name.Format == formatEmail && !s.warnedEmail.Swap(true):
		s.log.Warn("the provider names people by e-mail address, and an address can pass to another person: have it send a persistent NameID, or name an attribute as subject")
	}
	return a.name.Value, checkSubject(a.name.Value)
}

func checkSubject(subject string) error {
	switch {
	case strings.TrimSpace(subject) == "":
		return errors.New("the subject is missing or empty")
	case len(subject) > maxSubject:
		return errors.New("the subject is longer than 1024 bytes")
	}
	return nil
}

// claims are the attributes by Name, and the NameID where no attribute is
// called that.
func (s *Source) claims(ctx context.Context, a *assertion) claims.Claims {
	lists := make(map[string][]string, len(a.attributes)+1)
	var unreadable []string
	for name, value := range a.attributes {
		list, text := value.([]any)
		if !text {
			unreadable = append(unreadable, name)
			continue
		}
		lists[name] = make([]string, len(list))
		for i, v := range list {
			lists[name][i], _ = v.(string) // of text, see values
		}
	}
	if _, taken := a.attributes[claims.SubjectNameID]; !taken && a.name.Value != "" {
		lists[claims.SubjectNameID] = []string{a.name.Value}
	}
	return s.fetchOverage(ctx, claims.FromMap(lists).WithNull(unreadable...))
}

// Attributes by which Entra ID says who somebody is.
const (
	entraGroups = "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups"
	entraObject = "http://schemas.microsoft.com/identity/claims/objectidentifier"
	entraTenant = "http://schemas.microsoft.com/identity/claims/tenantid"
)

// fetchOverage asks Microsoft Graph for the groups when Entra ID sends a link
// in their place, and somebody reads them. The link itself is never followed:
// it could lead anywhere. What Graph does not tell stays unknown.
func (s *Source) fetchOverage(ctx context.Context, c claims.Claims) claims.Claims {
	if s.graph == nil || !c.GroupsElsewhere() {
		return c
	}
	read := []string{entraGroups}
	if s.needed != nil {
		read = nil
		for _, name := range s.needed() {
			if name == entraGroups || name == "groups" {
				read = append(read, name)
			}
		}
	}
	if len(read) == 0 {
		return c
	}
	var tenant *string
	if c.Resolve(entraTenant).State != claims.Absent {
		text := c.Text(entraTenant)
		tenant = &text
	}
	ids, err := s.graph.GroupsOf(ctx, c.Text(entraObject), tenant)
	if err != nil {
		s.log.Warn("Microsoft Graph did not tell the groups; they count as unknown", zap.Error(err))
		return c.WithUnresolved(err.Error())
	}
	return c.WithGroups(ids, read...)
}
