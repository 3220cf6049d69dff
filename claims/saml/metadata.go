package saml

import (
	"bytes"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
)

// Bounds of metadata. A federation's file lists thousands of entities; it is
// read as a stream, and only the one entity is kept.
const (
	maxMetadata   = 128 << 20 // bytes
	maxEntity     = 1 << 20   // bytes of the one entity, and of any one token
	maxSigned     = 16 << 20  // bytes of metadata whose signature is asked for
	maxKeys       = 32
	maxCandidates = 10   // providers that are counted where none is named
	maxEntityID   = 1024 // characters (Core 8.3.6)
	minRSABits    = 2048
)

// Faults that tell an administrator what to do.
var (
	errNoXML    = errors.New("the metadata is not well-formed XML in UTF-8")
	errNoneSuch = errors.New("the metadata has no such identity provider")
	errSeveral  = errors.New("the metadata has several identity providers: say which with idp_entity_id")
)

// readMetadata finds one entity in metadata. want pins which; when it is empty
// there must be one provider alone. trusted, when set, is whose signature the
// whole must have.
func readMetadata(in io.Reader, want string, trusted *x509.Certificate, now time.Time) (*entity, error) {
	if trusted != nil {
		all, err := io.ReadAll(io.LimitReader(in, maxSigned+1))
		if err != nil {
			return nil, errors.New("the metadata broke off")
		}
		if len(all) > maxSigned {
			return nil, fmt.Errorf("signed metadata of more than %d bytes", maxSigned)
		}
		// Before a tree is built of it, and of all of it.
		if err := walkTokens(newTokens(bytes.NewReader(all))); err != nil {
			return nil, err
		}
		signed, err := signedMetadata(all, trusted)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(signed)
	}
	found, err := findEntities(in, want)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, errNoneSuch
	case len(found) > 1 && want != "":
		return nil, errors.New("the metadata has the provider twice")
	case len(found) > 1:
		return nil, errSeveral
	}
	e, err := found[0].check()
	if err != nil {
		return nil, err
	}
	if e.expired(now) {
		return nil, errors.New("the metadata has expired (validUntil)")
	}
	return e, nil
}

// signedMetadata answers the signed bytes of metadata that is signed as a
// whole.
func signedMetadata(all []byte, trusted *x509.Certificate) (raw []byte, err error) {
	defer func() {
		if recover() != nil {
			raw, err = nil, errors.New("the metadata makes a library fail")
		}
	}()
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(bytes.TrimPrefix(all, byteOrderMark)); err != nil || doc.Root() == nil {
		return nil, errNoXML
	}
	root, err := verified(doc.Root(), []*x509.Certificate{trusted})
	if err != nil {
		return nil, fmt.Errorf("the metadata's signature: %w", err)
	}
	out := etree.NewDocument()
	out.SetRoot(root)
	return out.WriteToBytes()
}

// bounds are the shortest of what every enclosing element allows.
type bounds struct {
	until time.Time
	cache time.Duration
}

// within answers the bounds of an element inside of b. A validUntil that
// cannot be read must not come to mean "for ever"; a cacheDuration is only
// advice.
func (b bounds) within(validUntil, cacheDuration string) (bounds, error) {
	if validUntil = strings.TrimSpace(validUntil); validUntil != "" {
		var at saml.RelaxedTime
		if at.UnmarshalText([]byte(validUntil)) != nil {
			return b, errors.New("the metadata has a validUntil that is not a time")
		}
		if until := time.Time(at); b.until.IsZero() || until.Before(b.until) {
			b.until = until
		}
	}
	var cache saml.Duration
	if cache.UnmarshalText([]byte(strings.TrimSpace(cacheDuration))) == nil && cache > 0 && (b.cache == 0 || time.Duration(cache) < b.cache) {
		b.cache = time.Duration(cache)
	}
	return b, nil
}

// foundEntity is an entity that is a provider, and what was around it.
type foundEntity struct {
	descriptor
	around bounds
}

// What is read of an EntityDescriptor. The library's own types refuse a whole
// entity for an address of something that nobody uses, and keep one
// certificate of a key that has two.
type (
	descriptor struct {
		EntityID      string `xml:"entityID,attr"`
		ValidUntil    string `xml:"validUntil,attr"`
		CacheDuration string `xml:"cacheDuration,attr"`
		Roles         []role `xml:"urn:oasis:names:tc:SAML:2.0:metadata IDPSSODescriptor"`
	}
	role struct {
		Protocols     string          `xml:"protocolSupportEnumeration,attr"`
		WantsSigned   string          `xml:"WantAuthnRequestsSigned,attr"`
		ValidUntil    string          `xml:"validUntil,attr"`
		CacheDuration string          `xml:"cacheDuration,attr"`
		Keys          []keyDescriptor `xml:"urn:oasis:names:tc:SAML:2.0:metadata KeyDescriptor"`
		Logout        []endpoint      `xml:"urn:oasis:names:tc:SAML:2.0:metadata SingleLogoutService"`
		Formats       []string        `xml:"urn:oasis:names:tc:SAML:2.0:metadata NameIDFormat"`
		Login         []endpoint      `xml:"urn:oasis:names:tc:SAML:2.0:metadata SingleSignOnService"`
	}
	endpoint struct {
		Binding          string `xml:"Binding,attr"`
		Location         string `xml:"Location,attr"`
		ResponseLocation string `xml:"ResponseLocation,attr"`
	}
	keyDescriptor struct {
		Use  string `xml:"use,attr"`
		Info struct {
			Data []struct {
				Certificates []string `xml:"http://www.w3.org/2000/09/xmldsig# X509Certificate"`
			} `xml:"http://www.w3.org/2000/09/xmldsig# X509Data"`
		} `xml:"http://www.w3.org/2000/09/xmldsig# KeyInfo"`
	}
)

// findEntities answers the providers that may be meant, and keeps nothing of
// what it passes.
func findEntities(in io.Reader, want string) ([]foundEntity, error) {
	tokens := newTokens(in)
	s := &search{tokens: tokens, dec: xml.NewTokenDecoder(tokens), want: want}
	for {
		tok, err := s.dec.Token()
		if err != nil {
			return nil, tokens.fault(err)
		}
		if el, ok := tok.(xml.StartElement); ok {
			if err := s.element(el, bounds{}, true); err != nil {
				return nil, err
			}
			return s.found, s.end()
		}
	}
}

type search struct {
	tokens *tokens
	dec    *xml.Decoder
	want   string
	found  []foundEntity
}

// element reads an EntityDescriptor or walks through an EntitiesDescriptor;
// neither means anything elsewhere.
func (s *search) element(el xml.StartElement, around bounds, root bool) error {
	switch el.Name {
	case xml.Name{Space: nsMetadata, Local: "EntitiesDescriptor"}:
		return s.group(el, around)
	case xml.Name{Space: nsMetadata, Local: "EntityDescriptor"}:
		return s.entity(el, around)
	}
	if root {
		return errors.New("the document is not SAML metadata")
	}
	return s.tokens.fault(s.dec.Skip())
}

func (s *search) group(el xml.StartElement, around bounds) error {
	around, err := around.within(attribute(el, "validUntil"), attribute(el, "cacheDuration"))
	if err != nil {
		return err
	}
	for {
		tok, err := s.dec.Token()
		if err != nil {
			return s.tokens.fault(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if err := s.element(tok, around, false); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		}
	}
}

func (s *search) entity(el xml.StartElement, around bounds) error {
	if s.want != "" && attribute(el, "entityID") != s.want || len(s.found) >= maxCandidates {
		return s.tokens.fault(s.dec.Skip())
	}
	s.tokens.limit(maxEntity)
	defer s.tokens.limit(0)
	f := foundEntity{around: around}
	if err := s.dec.DecodeElement(&f.descriptor, &el); err != nil {
		return s.tokens.fault(err)
	}
	if len(f.Roles) > 0 {
		s.found = append(s.found, f)
	}
	return nil
}

// end wants nothing behind the root element.
func (s *search) end() error {
	for {
		tok, err := s.dec.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return s.tokens.fault(err)
		}
		switch tok := tok.(type) {
		case xml.CharData:
			if len(bytes.TrimSpace(tok)) > 0 {
				return errNoXML
			}
		case xml.StartElement:
			return errNoXML
		}
	}
}

func attribute(el xml.StartElement, name string) string {
	for _, a := range el.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
