package proxy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// keyring seals what leaves this process and must come back unread and
// unchanged: the state of a login, a handover between hosts, tokens at rest.
// The first key writes, all read. Each purpose has keys of its own, derived by
// HKDF (RFC 5869), so that nothing sealed for one purpose opens for another.
type keyring struct {
	masters [][]byte
	aeads   map[string][]cipher.AEAD
}

// Purposes of the keyring.
const (
	purposeState    = "login state"
	purposeKept     = "login in the browser"
	purposeHandover = "portal handover"
	purposeGrant    = "source grant"
	purposeSignOut  = "sign-out state"
	purposeLeaving  = "sign-out in the browser"
	purposeForm     = "login form"
	purposeChange   = "change of a password"
	purposeKnown    = "known browser"
	purposeSigning  = "assertion signing key"
	purposeSource   = "key of a source"
	purposeTLS      = "key of the listener"
	purposeSession  = "session in the browser"
	macNonce        = "nonce"
	macVerifier     = "code verifier"
	macRequest      = "request id"
)

// minKeyBytes is what contract section 3 asks of a session key.
const minKeyBytes = 32

func newKeyring(masters [][]byte) (*keyring, error) {
	if len(masters) == 0 {
		return nil, errors.New("no session key")
	}
	k := &keyring{masters: masters, aeads: map[string][]cipher.AEAD{}}
	for i, m := range masters {
		if len(m) < minKeyBytes {
			return nil, fmt.Errorf("session key %d has %d bytes, at least %d are needed", i+1, len(m), minKeyBytes)
		}
		for _, purpose := range []string{purposeState, purposeKept, purposeHandover, purposeGrant, purposeSignOut, purposeLeaving, purposeForm, purposeChange, purposeKnown, purposeSigning, purposeSource, purposeTLS, purposeSession} {
			aead, err := deriveAEAD(m, purpose)
			if err != nil {
				return nil, err
			}
			k.aeads[purpose] = append(k.aeads[purpose], aead)
		}
	}
	return k, nil
}

func deriveAEAD(master []byte, purpose string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, master, nil, "groupgate seal "+purpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal encrypts and authenticates plain together with context.
func (k *keyring) seal(purpose string, plain []byte, context string) []byte {
	return k.aeads[purpose][0].Seal(nil, nil, plain, []byte(context))
}

var errSeal = errors.New("not sealed by us")

// open is the reverse of seal, with any of the keys.
func (k *keyring) open(purpose string, sealed []byte, context string) ([]byte, error) {
	for _, aead := range k.aeads[purpose] {
		if plain, err := aead.Open(nil, nil, sealed, []byte(context)); err == nil {
			return plain, nil
		}
	}
	return nil, errSeal
}

func (k *keyring) sealText(purpose string, plain []byte) string {
	return base64.RawURLEncoding.EncodeToString(k.seal(purpose, plain, ""))
}

func (k *keyring) openText(purpose, text string) ([]byte, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, errSeal
	}
	return k.open(purpose, sealed, "")
}

// derive makes a secret of a login's id that only holders of the key can: the
// nonce and the code verifier need no place of their own to be kept in. index
// picks the key: a login that began before a rotation ends after it.
func (k *keyring) derive(index int, use, id string) string {
	return base64.RawURLEncoding.EncodeToString(k.mac(index, use, id))
}

// requestID is the id of a login's request in the form that XML wants of one
// (an NCName, SAML Core 1.3.4).
func (k *keyring) requestID(index int, id string) string {
	return "id-" + hex.EncodeToString(k.mac(index, macRequest, id))
}

func (k *keyring) mac(index int, use, id string) []byte {
	mac := hmac.New(sha256.New, k.masters[index])
	mac.Write([]byte("groupgate " + use + "\x00" + id))
	return mac.Sum(nil)
}
