// Package saml signs people in at SAML 2.0 identity providers, by the Web
// Browser SSO profile (Profiles 4.1).
//
// # Design
//
// A message passes four gates, each in a file of its own: its bytes are
// counted before anything parses them (scan.go); its shape leaves a signature
// one element to be about, and nothing of that kind anywhere else
// (response.go); the signature is checked, and the element is parsed anew from
// the bytes that were signed (signature.go); what those bytes say is held to
// the profile (assertion.go). Nothing outside the signed bytes is used but to
// refuse.
//
// What is trusted is the provider's metadata (metadata.go), kept through
// outages (keep.go).
package saml

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/crewjam/saml"
	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
)

var (
	_ claims.Source    = (*Source)(nil)
	_ claims.Starter   = (*Source)(nil)
	_ claims.Prober    = (*Source)(nil)
	_ claims.Ager      = (*Source)(nil)
	_ claims.Expirer   = (*Source)(nil)
	_ claims.Rereader  = (*Source)(nil)
	_ claims.PostBack  = (*Source)(nil)
	_ claims.Publisher = (*Source)(nil)
)

// Cache keeps the last good metadata through a restart. What it holds decides
// who can sign in, so nobody else may write there.
type Cache interface {
	// Load answers nil when nothing was saved.
	Load(ctx context.Context) ([]byte, error)
	Save(ctx context.Context, data []byte) error
}

// Options is what a SAML source is made of.
type Options struct {
	Name   string
	Config claims.SAMLConfig
	Origin string // public_url
	Prefix string
	// Key and Certificate are ours: requests are signed with the key and
	// assertions encrypted for it. It is an RSA key.
	Key         crypto.Signer
	Certificate *x509.Certificate
	// Needed lists every claim that anything reads now: Microsoft Graph is
	// asked only for groups that one of them names. nil: always.
	Needed func() []string
	// Client's Transport and Timeout are used when set; redirects are never
	// followed.
	Client *http.Client
	Cache  Cache            // nil: none
	Graph  *claims.Graph    // nil: made of Config.Graph, if that is there
	Log    *zap.Logger      // nil: none
	Now    func() time.Time // nil: time.Now
}

// Source is one SAML identity provider. It is safe for concurrent use.
type Source struct {
	name   string
	cfg    claims.SAMLConfig
	sp     saml.ServiceProvider // who we are; never changes
	key    *rsa.PrivateKey
	needed func() []string
	graph  *claims.Graph // nil: overages stay unknown
	keep   *keeper
	log    *zap.Logger
	now    func() time.Time

	// turns bounds how many answers are looked at at once: anybody can send
	// one, and each costs a decryption and a tree.
	turns chan struct{}

	panics      atomic.Int64
	warnedEmail atomic.Bool
}

// New makes the source. It does not touch the network: the metadata is read by
// [Source.Start], or by the first login when that did not succeed yet. It fails
// when our key is no RSA key, or the certificate of the metadata is none.
func New(opts Options) (*Source, error) {
	key, ok := opts.Key.(*rsa.PrivateKey)
	if !ok || opts.Certificate == nil {
		return nil, fmt.Errorf("%s: a SAML source needs an RSA key and its certificate", opts.Name)
	}
	trusted, err := signer(opts.Config.MetadataCertificate)
	if err != nil {
		return nil, fmt.Errorf("%s: metadata_certificate %w", opts.Name, err)
	}
	s := &Source{
		name: opts.Name, cfg: opts.Config, key: key, needed: opts.Needed, graph: opts.Graph,
		log: opts.Log, now: opts.Now, turns: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	s.log = s.log.With(zap.String("source", s.name))
	if s.now == nil {
		s.now = time.Now
	}
	if s.cfg.Subject == "" {
		s.cfg.Subject = claims.SubjectNameID
	}
	if g := s.cfg.GraphSettings(); g != nil && s.graph == nil {
		s.graph = claims.NewGraph(*g, opts.Client, s.now)
	}
	base := opts.Origin + opts.Prefix + "/saml/" + s.name
	if s.cfg.EntityID == "" {
		s.cfg.EntityID = base + "/metadata"
	}
	s.sp = saml.ServiceProvider{
		EntityID: s.cfg.EntityID, Key: key, Certificate: opts.Certificate, SignatureMethod: rsaSHA256,
		AcsURL: address(base + "/acs"), SloURL: address(base + "/slo"),
	}
	s.keep = &keeper{
		cfg: s.cfg, trusted: trusted, client: claims.SafeClient(opts.Client, readTimeout), cache: opts.Cache, log: s.log, now: s.now,
		least: leastRefresh, wake: make(chan struct{}, 1),
	}
	return s, nil
}

func address(text string) url.URL {
	u, err := url.Parse(text)
	if err != nil { // a checked configuration has none of these
		return url.URL{}
	}
	return *u
}

func signer(text string) (*x509.Certificate, error) {
	if text == "" {
		return nil, nil
	}
	return claims.ParseCertificate(text)
}

// Name is the source's name in the configuration.
func (s *Source) Name() string { return s.name }

// PostBack says that answers are forms.
func (s *Source) PostBack() {}

// Start reads the metadata in the background, and again before it gets old,
// until the context ends. It returns at once.
func (s *Source) Start(ctx context.Context) { go s.keep.run(ctx) }

// Reread has the metadata read now, in the background.
func (s *Source) Reread() {
	select {
	case s.keep.wake <- struct{}{}:
	default: // somebody asked already
	}
}

// Ready is nil while metadata is there that holds.
func (s *Source) Ready() error {
	if s.keep.current() != nil {
		return nil
	}
	s.keep.mu.Lock()
	err := s.keep.err
	s.keep.mu.Unlock()
	switch {
	case s.keep.have.Load() != nil:
		err = errors.New("the metadata has expired (validUntil)")
	case err == nil:
		err = errors.New("not read yet")
	}
	return s.errorf("read metadata", claims.ErrUnavailable, "%w", err)
}

// MetadataAge is that of the provider's metadata.
func (s *Source) MetadataAge(now time.Time) (age time.Duration, known bool) {
	e := s.keep.have.Load()
	if e == nil {
		return 0, false
	}
	return max(0, now.Sub(e.read)), true
}

// Expires is when the first of the provider's signing certificates that still
// hold runs out, and when its metadata does.
func (s *Source) Expires() (certificate, metadata time.Time) {
	e := s.keep.have.Load()
	if e == nil {
		return time.Time{}, time.Time{}
	}
	return e.certificateEnds(s.now()), e.validUntil
}

// Panics counts messages that made a library fail; each was refused.
func (s *Source) Panics() int64 { return s.panics.Load() }

// Probe reads the metadata afresh.
func (s *Source) Probe(ctx context.Context) (string, error) {
	const step = "read metadata"
	if err := s.keep.load(ctx); err != nil {
		return "", s.errorf(step, claims.ErrUnavailable, "%w", err)
	}
	e := s.keep.current()
	if e == nil {
		return "", s.errorf(step, claims.ErrUnavailable, "it has expired (validUntil)")
	}
	certificates := "1 certificate"
	if n := len(e.keys); n != 1 {
		certificates = fmt.Sprintf("%d certificates", n)
	}
	line := fmt.Sprintf("identity provider %s, %s, the first until %s, metadata read %s", e.id, certificates,
		e.certificateEnds(s.now()).UTC().Format(time.DateOnly), e.read.UTC().Format(time.RFC3339))
	if !e.validUntil.IsZero() {
		line += ", valid until " + e.validUntil.UTC().Format(time.RFC3339)
	}
	if s.graph != nil {
		if err := s.graph.Probe(ctx); err != nil {
			return "", s.errorf("ask Microsoft Graph for a token", claims.ErrUnavailable, "%w", err)
		}
		line += ", Microsoft Graph"
	}
	return line + s.nameIDWarning(e), nil
}

// nameIDWarning says what the provider offers as NameID where that makes no
// good subject.
func (s *Source) nameIDWarning(e *known) string {
	if s.cfg.Subject != claims.SubjectNameID || len(e.formats) == 0 {
		return ""
	}
	onlyMail, onlyTransient := true, true
	for _, f := range e.formats {
		onlyMail = onlyMail && f == formatEmail
		onlyTransient = onlyTransient && f == formatTransient
	}
	switch {
	case onlyMail:
		return "; warning: it offers e-mail addresses alone as NameID, and those pass from one person to another: name an attribute as subject"
	case onlyTransient:
		return "; warning: it offers transient NameIDs alone, which are another at every login: name an attribute as subject"
	}
	return ""
}

// trust is what a message is held to now.
func (s *Source) trust(e *known) *trust {
	return &trust{
		idp: e.id, keys: e.keys, sp: s.cfg.EntityID, acs: s.sp.AcsURL, key: s.key, skew: s.cfg.ClockSkew, noted: s.notePanic,
	}
}

// notePanic counts what a library's panic refused. What it panicked with may
// hold text of the message.
func (s *Source) notePanic(any) {
	s.panics.Add(1)
	s.log.Error("a message made a library panic; it was refused", zap.Stack("stack"))
}

// errorf makes "source: step: kind: cause".
func (s *Source) errorf(step string, kind error, format string, args ...any) error {
	cause := fmt.Errorf(format, args...)
	if kind == nil || errors.Is(cause, kind) {
		return fmt.Errorf("%s: %s: %w", s.name, step, cause)
	}
	return fmt.Errorf("%s: %s: %w: %w", s.name, step, kind, cause)
}

// withTrust calls fn with what is trusted now, and once more with what the
// provider's metadata says after that when a signature fits no key: it may have
// changed keys. What an encrypted assertion hides counts as no fitting key
// whatever it is, so that nobody can tell.
func (s *Source) withTrust(ctx context.Context, fn func(*trust) error) error {
	ctx, cancel := context.WithTimeout(ctx, entityTimeout)
	defer cancel()
	e, err := s.keep.entity(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", claims.ErrUnavailable, err)
	}
	err = fn(s.trust(e))
	if errors.Is(err, errForeign) || errors.Is(err, errDecrypt) {
		_ = s.keep.renew(ctx, e) // whether that failed does not make the message better
		if newer := s.keep.current(); newer != nil && newer != e {
			err = fn(s.trust(newer))
		}
	}
	return err
}
