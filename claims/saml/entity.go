package saml

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/crewjam/saml"

	"github.com/groupgate/groupgate/claims"
)

// entity is what a provider's metadata says (Metadata 2.4.3), checked. It
// never changes.
type entity struct {
	id          string
	login       map[string]string // address of single sign-on by binding
	logout      map[string]string // of single logout
	logoutReply map[string]string // where answers go, where that differs
	formats     []string          // of NameIDs
	keys        []*x509.Certificate
	wantsSigned bool
	validUntil  time.Time     // zero: it does not say
	cache       time.Duration // 0: it does not say
}

// expired reports that the metadata must not be used any more (Metadata
// 2.3.2).
func (e *entity) expired(now time.Time) bool {
	return !e.validUntil.IsZero() && !now.Before(e.validUntil)
}

// check makes an entity of what was found.
func (f *foundEntity) check() (*entity, error) {
	e := &entity{id: f.EntityID, login: map[string]string{}, logout: map[string]string{}, logoutReply: map[string]string{}}
	if e.id == "" || len(e.id) > maxEntityID {
		return nil, errors.New("the metadata has no entity id, or one of more than 1024 characters")
	}
	around, err := f.around.within(f.ValidUntil, f.CacheDuration)
	if err != nil {
		return nil, err
	}
	for _, r := range f.Roles {
		if !slices.Contains(strings.Fields(r.Protocols), nsProtocol) {
			continue // of SAML 1.1, say
		}
		if around, err = around.within(r.ValidUntil, r.CacheDuration); err != nil {
			return nil, err
		}
		if err := e.role(r); err != nil {
			return nil, err
		}
	}
	e.validUntil, e.cache = around.until, around.cache
	return e, e.complete()
}

func (e *entity) role(r role) error {
	e.wantsSigned = e.wantsSigned || r.WantsSigned == "true" || r.WantsSigned == "1"
	e.formats = append(e.formats, trimmed(r.Formats)...)
	for _, s := range r.Login {
		if err := keepAddress(e.login, s.Binding, s.Location); err != nil {
			return err
		}
	}
	for _, s := range r.Logout {
		if err := keepAddress(e.logout, s.Binding, s.Location); err != nil {
			return err
		}
		if s.ResponseLocation != "" {
			if err := keepAddress(e.logoutReply, s.Binding, s.ResponseLocation); err != nil {
				return err
			}
		}
	}
	for _, k := range r.Keys {
		if k.Use != "" && k.Use != "signing" {
			continue // an encryption key signs nothing
		}
		for _, data := range k.Info.Data {
			for _, text := range data.Certificates {
				cert, err := certificate(text)
				if err != nil {
					return err
				}
				e.keys = append(e.keys, cert)
			}
		}
	}
	return nil
}

func (e *entity) complete() error {
	switch {
	case len(e.keys) == 0:
		return errors.New("the metadata has no signing certificate")
	case len(e.keys) > maxKeys:
		return fmt.Errorf("the metadata has more than %d signing certificates", maxKeys)
	case e.login[saml.HTTPRedirectBinding] == "":
		return errors.New("the metadata has no single sign-on address for the HTTP-Redirect binding")
	}
	return nil
}

// keepAddress takes the first address of a binding that we speak. It must be
// https, or http on loopback: a browser is sent there.
func keepAddress(m map[string]string, binding, address string) error {
	if binding != saml.HTTPRedirectBinding && binding != saml.HTTPPostBinding || m[binding] != "" {
		return nil
	}
	address = strings.TrimSpace(address)
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("the metadata has an address that is none")
	case u.Scheme != "https" && (u.Scheme != "http" || !claims.IsLoopback(u.Hostname())):
		return errors.New("the metadata has an address that is not https")
	}
	m[binding] = address
	return nil
}

// certificate reads a certificate of the metadata. Its key must be one whose
// signatures are accepted; a weak one would be believed for years.
func certificate(text string) (*x509.Certificate, error) {
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, errors.New("the metadata has a certificate that is not base64")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errors.New("the metadata has a certificate that cannot be read")
	}
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("the metadata has an RSA key of less than %d bits", minRSABits)
		}
	case *ecdsa.PublicKey:
	default:
		return nil, errors.New("the metadata has a signing key that is neither RSA nor ECDSA")
	}
	return cert, nil
}

func trimmed(list []string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, strings.TrimSpace(s))
	}
	return out
}
