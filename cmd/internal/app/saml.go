package app

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// pair is what a SAML provider knows us by.
type pair struct {
	key         crypto.Signer
	certificate *x509.Certificate
}

const (
	pairBits = 2048
	// pairLife is long: a provider that was told our certificate by hand checks
	// requests with its key, and few look at the date.
	pairLife = 10 * 365 * 24 * time.Hour
)

// ownPair is the pair of a SAML source: the files', or one that the store
// keeps, encrypted with the session keys.
func ownPair(ctx context.Context, name string, c *claims.SAMLConfig, publicURL string, keys [][]byte, store groups.Store, log *zap.Logger) (pair, error) {
	if c.KeyFile != "" {
		return readPair(c.KeyFile, c.CertFile)
	}
	key := "saml/" + name + "/key"
	var fresh []byte
	_, err := store.Meta(ctx, key)
	switch {
	case errors.Is(err, groups.ErrNotFound):
		// Not in the transaction below: it takes a while.
		if fresh, err = makePair(publicURL); err != nil {
			return pair{}, err
		}
	case err != nil:
		return pair{}, err
	}
	var plain []byte
	lost := false
	open := func(sealed []byte) bool {
		var err error
		if plain, err = proxy.OpenSourceKey(keys, name, sealed); err != nil {
			lost = true
			return false
		}
		// What another than the first key opens is sealed anew: that key is
		// about to go, and the provider knows us by what it opens.
		_, err = proxy.OpenSourceKey(keys[:1], name, sealed)
		return err == nil
	}
	_, made, err := kept(ctx, store, key, open, func() ([]byte, error) {
		if plain == nil && fresh == nil {
			var err error
			if fresh, err = makePair(publicURL); err != nil {
				return nil, err
			}
		}
		if plain == nil {
			plain = fresh
		}
		return proxy.SealSourceKey(keys, name, plain)
	})
	if err != nil {
		return pair{}, err
	}
	if made && lost {
		log.Error("no session key opens the key that was kept for a SAML source: it was made anew, and the provider must be given our metadata again",
			zap.String("source", name))
	}
	return parsePair(plain)
}

// anyPair is the files' pair, or one to look at a provider with and forget.
func anyPair(c *claims.SAMLConfig, publicURL string) (pair, error) {
	if c.KeyFile != "" {
		return readPair(c.KeyFile, c.CertFile)
	}
	plain, err := makePair(publicURL)
	if err != nil {
		return pair{}, err
	}
	return parsePair(plain)
}

func readPair(keyFile, certFile string) (pair, error) {
	both, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return pair{}, err
	}
	key, ok := both.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return pair{}, errors.New("key_file: not an RSA key, which is what assertions can be encrypted for")
	}
	return pair{key, both.Leaf}, nil
}

// keptPair is how a generated pair is kept.
type keptPair struct {
	Key         []byte `json:"key"` // PKCS 8
	Certificate []byte `json:"certificate"`
}

func makePair(publicURL string) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, pairBits)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(publicURL)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: u.Hostname()},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(pairLife),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, BasicConstraintsValid: true,
	}
	var both keptPair
	if both.Certificate, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		return nil, err
	}
	if both.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	return json.Marshal(both)
}

func parsePair(plain []byte) (pair, error) {
	var both keptPair
	if err := json.Unmarshal(plain, &both); err != nil {
		return pair{}, err
	}
	key, err := x509.ParsePKCS8PrivateKey(both.Key)
	if err != nil {
		return pair{}, err
	}
	signer, ok := key.(*rsa.PrivateKey)
	if !ok {
		return pair{}, errors.New("the kept key is not an RSA key")
	}
	cert, err := x509.ParseCertificate(both.Certificate)
	return pair{signer, cert}, err
}

// metadataCache keeps a provider's last good metadata in the store. Whose it is
// and by which settings it was read, the source writes into it.
type metadataCache struct {
	store groups.Store
	key   string
}

func newMetadataCache(store groups.Store, name string) *metadataCache {
	return &metadataCache{store, "saml/" + name + "/metadata"}
}

// Load answers nil when nothing was saved.
func (c *metadataCache) Load(ctx context.Context) (data []byte, err error) {
	raw, err := c.store.Meta(ctx, c.key)
	if errors.Is(err, groups.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(raw, &data)
	return data, err
}

// Save replaces what was saved.
func (c *metadataCache) Save(ctx context.Context, data []byte) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return c.store.Update(ctx, func(tx groups.Tx) error { return tx.PutMeta(ctx, c.key, raw) })
}
