package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"golang.org/x/crypto/acme"
)

// order gets one certificate (RFC 8555 section 7.4).
func (i *issuer) order(ctx context.Context, set *issuing, host string) (*issued, error) {
	client, err := i.account(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("account: %w", err)
	}
	o, err := client.AuthorizeOrder(ctx, acme.DomainIDs(host))
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	for _, url := range o.AuthzURLs {
		if err := i.authorize(ctx, set, client, url, host); err != nil {
			return nil, fmt.Errorf("authorization: %w", err)
		}
	}
	at := o.URI // later answers need not repeat it
	if o, err = client.WaitOrder(ctx, at); err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // a new one each time
	if err != nil {
		return nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{host}}, key)
	if err != nil {
		return nil, err
	}
	c := &issued{Directory: set.cfg.Directory}
	if c.Chain, err = finalize(ctx, client, at, o.FinalizeURL, request); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if c.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	if err := c.parse(host); err != nil {
		return nil, fmt.Errorf("the authority's certificate cannot be used: %w", err)
	}
	return c, nil
}

// finalize has the order fulfilled. x/crypto v0.57 waits for that at the
// Location of the authority's answer, which need not have one (RFC 8555 section
// 7.4): then we look where the order is.
func finalize(ctx context.Context, client *acme.Client, order, finalizeURL string, request []byte) ([][]byte, error) {
	chain, _, err := client.CreateOrderCert(ctx, finalizeURL, request, true)
	if err == nil || refusal(err) || ctx.Err() != nil {
		return chain, err
	}
	o, waited := client.WaitOrder(ctx, order)
	if waited != nil || o.Status != acme.StatusValid {
		return nil, err
	}
	return client.FetchCert(ctx, o.CertURL, true)
}

// authorize proves to the authority that the host is ours, unless it knows.
func (i *issuer) authorize(ctx context.Context, set *issuing, client *acme.Client, url, host string) error {
	z, err := client.GetAuthorization(ctx, url)
	if err != nil || z.Status == acme.StatusValid {
		return err
	}
	var found *acme.Challenge
	for _, c := range z.Challenges {
		if c.Type == "tls-alpn-01" {
			found = c
		}
	}
	if found == nil {
		return errors.New("the authority offers no tls-alpn-01 challenge")
	}
	proof, err := client.TLSALPN01ChallengeCert(found.Token, host)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(proof.PrivateKey)
	if err != nil {
		return err
	}
	if err := i.save(ctx, set, "challenge/"+host, &issued{Chain: proof.Certificate, Key: key}); err != nil {
		return err
	}
	// It proves nothing once the authority has looked.
	defer func() { _ = i.save(context.WithoutCancel(ctx), set, "challenge/"+host, nil) }()
	if _, err := client.Accept(ctx, found); err != nil {
		return err
	}
	_, err = client.WaitAuthorization(ctx, z.URI)
	return err
}

// accountKey is how the key of the account is kept.
type accountKey struct {
	Key []byte `json:"key"` // PKCS 8
}

// account answers a client that the authority knows, registering one if it
// does not.
func (i *issuer) account(ctx context.Context, set *issuing) (*acme.Client, error) {
	if c := set.client.Load(); c != nil {
		return c, nil
	}
	caller, err := acmeCaller(set.cfg.CAFile)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(set.cfg.Directory))
	use := "account/" + hex.EncodeToString(sum[:8]) // an account belongs to one authority
	kept := accountKey{}
	found, err := i.read(ctx, set, use, &kept)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(kept.Key)
	own, ok := key.(*ecdsa.PrivateKey)
	if !found || err != nil || !ok {
		if own, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
		if kept.Key, err = x509.MarshalPKCS8PrivateKey(own); err != nil {
			return nil, err
		}
		if err := i.save(ctx, set, use, kept); err != nil {
			return nil, err
		}
	}
	c := &acme.Client{Key: own, DirectoryURL: set.cfg.Directory, HTTPClient: caller, UserAgent: "groupgate/" + Version}
	var contact []string
	if set.cfg.Email != "" {
		contact = []string{"mailto:" + set.cfg.Email}
	}
	_, err = c.Register(ctx, &acme.Account{Contact: contact}, acme.AcceptTOS) // accept_terms said so
	if err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, err
	}
	set.client.Store(c)
	return c, nil
}

// acmeCaller is for talking to the authority.
func acmeCaller(caFile string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("ca_file: no certificate in it")
		}
	}
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}, nil
}

// parse makes the pair usable for a host.
func (c *issued) parse(host string) error {
	if err := c.pair(); err != nil {
		return err
	}
	return c.cert.Leaf.VerifyHostname(host)
}

// pair reads chain and key, which have to fit.
func (c *issued) pair() error {
	if len(c.Chain) == 0 {
		return errors.New("no certificate")
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(c.Key)
	if err != nil {
		return err
	}
	own, ok := key.(*ecdsa.PrivateKey)
	if !ok || !own.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("the key is not the certificate's")
	}
	c.cert = &tls.Certificate{Certificate: c.Chain, PrivateKey: own, Leaf: leaf}
	return nil
}

// refusal reports whether an error is the authority's answer, and not that
// there was none.
func refusal(err error) bool {
	var problem *acme.Error
	var authorization *acme.AuthorizationError
	var order *acme.OrderError
	return errors.As(err, &problem) || errors.As(err, &authorization) || errors.As(err, &order)
}

// rateLimit is how long the authority asks us to wait.
func rateLimit(err error) (time.Duration, bool) {
	var problem *acme.Error
	if !errors.As(err, &problem) {
		return 0, false
	}
	return acme.RateLimit(problem)
}
