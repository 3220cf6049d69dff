package saml

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// read takes what is used out of a verified assertion, and holds it to
// Profiles 4.1.4.2 and 4.1.4.3.
func (t *trust) read(el *etree.Element, requestID string, now time.Time) (*assertion, error) {
	if attr(el, "Version") != "2.0" || attr(el, "ID") == "" {
		return nil, errors.New("not a SAML 2.0 assertion")
	}
	issuer, err := needChild(el, nsAssertion, "Issuer")
	if err != nil {
		return nil, err
	}
	if err := t.checkIssuer(issuer); err != nil {
		return nil, err
	}
	issued, err := checkIssued(el, maxAge, t.skew, now)
	if err != nil {
		return nil, err
	}
	a := &assertion{id: attr(el, "ID"), issued: issued, until: issued.Add(maxAge + 2*t.skew + maxDrift)}
	if err := t.checkConditions(el, now); err != nil {
		return nil, err
	}
	if err := t.readSubject(a, el, requestID, now); err != nil {
		return nil, err
	}
	if err := readSession(a, el, t.skew, now); err != nil {
		return nil, err
	}
	a.attributes, err = readAttributes(el)
	return a, err
}

// checkConditions wants a time and an audience. Every restriction must name
// us; within one, any audience may (Core 2.5.1.4). A condition that we do not
// know could forbid this very use (Core 2.5.1.1).
func (t *trust) checkConditions(el *etree.Element, now time.Time) error {
	conditions, err := needChild(el, nsAssertion, "Conditions")
	if err != nil {
		return err
	}
	if err := within(conditions, t.skew, now); err != nil {
		return err
	}
	restrictions := 0
	for _, c := range conditions.ChildElements() {
		switch {
		case is(c, nsAssertion, "AudienceRestriction"):
			restrictions++
			named := slices.ContainsFunc(children(c, nsAssertion, "Audience"), func(a *etree.Element) bool {
				text, ok := textOf(a)
				return ok && strings.TrimSpace(text) == t.sp
			})
			if !named {
				return errors.New("meant for another audience (AudienceRestriction): the provider must know us as our entity_id")
			}
		case is(c, nsAssertion, "OneTimeUse"), is(c, nsAssertion, "ProxyRestriction"):
		default:
			return errors.New("a condition that is not known")
		}
	}
	if restrictions == 0 {
		return errors.New("meant for nobody in particular (no AudienceRestriction)")
	}
	return nil
}

// within checks NotBefore and NotOnOrAfter where they are there.
func within(el *etree.Element, skew time.Duration, now time.Time) error {
	if hasAttr(el, "NotBefore") {
		at, err := instant(el, "NotBefore")
		if err != nil {
			return err
		}
		if at.After(now.Add(skew)) {
			return errors.New("not valid yet (NotBefore): do the clocks agree?")
		}
	}
	if hasAttr(el, "NotOnOrAfter") {
		at, err := instant(el, "NotOnOrAfter")
		if err != nil {
			return err
		}
		if !now.Before(at.Add(skew)) {
			return errors.New("expired (NotOnOrAfter): do the clocks agree?")
		}
	}
	return nil
}

// readSubject wants a NameID and a bearer confirmation that holds.
func (t *trust) readSubject(a *assertion, el *etree.Element, requestID string, now time.Time) error {
	subject, err := needChild(el, nsAssertion, "Subject")
	if err != nil {
		return err
	}
	for _, unread := range []string{"EncryptedID", "BaseID"} {
		if len(children(subject, nsAssertion, unread)) > 0 {
			return errors.New("a subject as " + unread + ", which is not read: have the provider encrypt the assertion instead")
		}
	}
	name, err := child(subject, nsAssertion, "NameID")
	if err != nil {
		return err
	}
	if name != nil {
		text, ok := textOf(name)
		if !ok {
			return errors.New("a NameID that is not text")
		}
		a.name = nameID{text, attr(name, "Format"), attr(name, "NameQualifier"), attr(name, "SPNameQualifier")}
	}
	why := errors.New("no bearer confirmation (SubjectConfirmation)")
	for _, c := range children(subject, nsAssertion, "SubjectConfirmation") {
		if attr(c, "Method") != bearer {
			continue
		}
		if why = t.confirmed(c, requestID, now); why == nil {
			return nil
		}
	}
	return why
}

func (t *trust) confirmed(el *etree.Element, requestID string, now time.Time) error {
	data, err := needChild(el, nsAssertion, "SubjectConfirmationData")
	if err != nil {
		return err
	}
	switch {
	case attr(data, "Recipient") != t.acs.String():
		return errors.New("confirmed for another address (Recipient)")
	case hasAttr(data, "InResponseTo") != (requestID != "") || attr(data, "InResponseTo") != requestID:
		return errors.New("not confirmed for this browser's request (InResponseTo)")
	case !hasAttr(data, "NotOnOrAfter"):
		return errors.New("confirmed for ever (no NotOnOrAfter)")
	}
	return within(data, t.skew, now)
}

// readSession wants the statement that the person signed in, which names the
// provider's session.
func readSession(a *assertion, el *etree.Element, skew time.Duration, now time.Time) error {
	statements := children(el, nsAssertion, "AuthnStatement")
	if len(statements) == 0 {
		return errors.New("nobody signed in (no AuthnStatement)")
	}
	for _, s := range statements {
		if index := attr(s, "SessionIndex"); index != "" && a.sessionIndex == "" {
			a.sessionIndex = index
		}
		if !hasAttr(s, "SessionNotOnOrAfter") {
			continue
		}
		at, err := instant(s, "SessionNotOnOrAfter")
		if err != nil {
			return err
		}
		if !now.Before(at.Add(skew)) {
			return errors.New("the provider's session is over (SessionNotOnOrAfter)")
		}
		if a.sessionEnds.IsZero() || at.Before(a.sessionEnds) {
			a.sessionEnds = at
		}
	}
	return nil
}

// readAttributes unites all statements by Name: FriendlyName is for people and
// proves nothing (Core 2.7.3.1). An attribute with a value that is not text
// becomes null, which is unknown and never empty.
func readAttributes(el *etree.Element) (map[string]any, error) {
	all := map[string]any{}
	for _, statement := range children(el, nsAssertion, "AttributeStatement") {
		if len(children(statement, nsAssertion, "EncryptedAttribute")) > 0 {
			return nil, errors.New("an encrypted attribute, which is not read: have the provider encrypt the assertion instead")
		}
		for _, a := range children(statement, nsAssertion, "Attribute") {
			name := attr(a, "Name")
			if name == "" {
				return nil, errors.New("an attribute without a Name")
			}
			before, there := all[name]
			list, text := before.([]any)
			if there && !text {
				continue // it is unknown already
			}
			all[name] = values(list, a)
		}
	}
	return all, nil
}

// values appends an attribute's values to list; nil when one is not text.
func values(list []any, a *etree.Element) any {
	if list == nil {
		list = []any{}
	}
	for _, v := range children(a, nsAssertion, "AttributeValue") {
		text, ok := textOf(v)
		if !ok || isNil(v) {
			return nil
		}
		list = append(list, text)
	}
	return list
}

func isNil(el *etree.Element) bool {
	for _, a := range el.Attr {
		if a.Key == "nil" && a.NamespaceURI() == nsInstance && (a.Value == "true" || a.Value == "1") {
			return true
		}
	}
	return false
}
