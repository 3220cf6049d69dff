package claims

import (
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

var (
	_ PasswordSource = (*LDAP)(nil)
	_ Refresher      = (*LDAP)(nil)
	_ Prober         = (*LDAP)(nil)
	_ Finder         = (*LDAP)(nil)
	_ Rereader       = (*LDAP)(nil)
)

// LDAPOptions is what an LDAP source is made of.
type LDAPOptions struct {
	Name   string
	Config LDAPConfig
	// Needed lists every claim that anything reads now; these are the attributes
	// that are asked for. nil: the usual ones.
	Needed func() []string
	Log    *zap.Logger      // nil: none
	Now    func() time.Time // nil: time.Now
}

// LDAP is one directory. It is safe for concurrent use.
type LDAP struct {
	name   string
	cfg    LDAPConfig
	needed func() []string
	log    *zap.Logger
	now    func() time.Time

	servers []*ldapServer
	roots   *x509.CertPool // nil: the system's
	pool    *ldapPool
	refused refusals
	// failing is why the directory could not be asked the last time.
	failing atomic.Pointer[error]
	// askedDomains are what an Active Directory said its domain is called.
	askedDomains atomic.Pointer[[]string]
}

// NewLDAP makes the source. It does not touch the network. It fails when the
// file of certificates cannot be used.
func NewLDAP(o LDAPOptions) (*LDAP, error) {
	l := &LDAP{name: o.Name, cfg: o.Config, needed: o.Needed, log: o.Log, now: o.Now}
	if l.log == nil {
		l.log = zap.NewNop()
	}
	if l.now == nil {
		l.now = time.Now
	}
	l.pool = newLDAPPool()
	var err error
	if l.servers, err = newServers(o.Config); err == nil {
		l.roots, err = readRoots(o.Config.CAFile)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.name, err)
	}
	return l, nil
}

// Name is the source's name in the configuration.
func (l *LDAP) Name() string { return l.name }

// Ready is nil unless the directory could not be reached when it was needed
// last, or refused the service account. Nobody asks it for this alone.
func (l *LDAP) Ready() error {
	if err := l.failing.Load(); err != nil {
		return l.failed("the last attempt", *err)
	}
	return nil
}

// Reread has the service account tried at the next occasion, however often it
// was refused: somebody may have put things right.
func (l *LDAP) Reread() { l.refused.forget() }
