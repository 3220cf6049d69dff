package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// Keys of the generated secrets in the store.
const (
	metaSessionKey   = "session_key"
	metaAssertionKey = "assertion_key"
	metaAdminToken   = "admin_token_sha256"
)

// kept reads a value from the store, or makes and keeps one. Of several
// processes that start at once, one makes it.
func kept(ctx context.Context, store groups.Store, key string, usable func([]byte) bool, make func() ([]byte, error)) (value []byte, made bool, err error) {
	err = store.Update(ctx, func(tx groups.Tx) error {
		made = false
		raw, err := tx.Meta(ctx, key)
		switch {
		case err == nil:
			if err := json.Unmarshal(raw, &value); err != nil {
				return fmt.Errorf("store: %s: %w", key, err)
			}
			if usable == nil || usable(value) {
				return nil
			}
		case !errors.Is(err, groups.ErrNotFound):
			return err
		}
		if value, err = make(); err != nil {
			return err
		}
		made = true
		if raw, err = json.Marshal(value); err != nil {
			return err
		}
		return tx.PutMeta(ctx, key, raw)
	})
	return value, made, err
}

func randomBytes(n int) func() ([]byte, error) {
	return func() ([]byte, error) {
		b := make([]byte, n)
		_, err := rand.Read(b)
		return b, err
	}
}

// sessionKeys are the configured ones, or one that the store keeps.
func sessionKeys(ctx context.Context, c *config.Config, store groups.Store) ([][]byte, error) {
	var keys [][]byte
	for _, k := range c.Session.Keys {
		keys = append(keys, []byte(k))
	}
	if len(keys) > 0 {
		return keys, nil
	}
	key, _, err := kept(ctx, store, metaSessionKey, nil, randomBytes(32))
	if err != nil {
		return nil, fmt.Errorf("session key: %w", err)
	}
	return [][]byte{key}, nil
}

// signer loads the key of the assertion header, or makes one. A key that no
// session key opens is as good as lost, and made anew. Without a store it is
// made of the session keys, by each replica the same.
func signer(ctx context.Context, keys [][]byte, store groups.Store) (*proxy.Signer, error) {
	if store == nil {
		made, err := proxy.DeriveSigningKeys(keys)
		if err != nil {
			return nil, err
		}
		return proxy.NewSigner(made...)
	}
	var der []byte
	open := func(sealed []byte) bool {
		var err error
		if der, err = proxy.OpenSigningKey(keys, sealed); err != nil {
			return false
		}
		// As ownPair does: the key that opens it may be about to go.
		_, err = proxy.OpenSigningKey(keys[:1], sealed)
		return err == nil
	}
	_, _, err := kept(ctx, store, metaAssertionKey, open, func() ([]byte, error) {
		var err error
		if der == nil {
			if der, err = proxy.GenerateSigningKey(); err != nil {
				return nil, err
			}
		}
		return proxy.SealSigningKey(keys, der)
	})
	if err != nil {
		return nil, fmt.Errorf("assertion key: %w", err)
	}
	return proxy.NewSigner(der)
}

// adminToken answers the hash of the token of the API. Without a configured
// one it is generated, logged this once, and kept as a hash.
func adminToken(ctx context.Context, c *config.Config, store groups.Store, log *zap.Logger) ([32]byte, error) {
	if c.Admin.Token != "" {
		return sha256.Sum256([]byte(c.Admin.Token)), nil
	}
	token := rand.Text()
	hash, made, err := kept(ctx, store, metaAdminToken, nil, func() ([]byte, error) {
		sum := sha256.Sum256([]byte(token))
		return sum[:], nil
	})
	if err != nil {
		return [32]byte{}, fmt.Errorf("admin token: %w", err)
	}
	if made {
		log.Warn("admin.token is not set: a token for the API was generated and is shown this once", zap.String("token", token))
	}
	return [32]byte(hash), nil
}
