package claims

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// How passwords are kept: argon2id (RFC 9106) with the least memory that OWASP
// recommends, since a sidecar has little. Parameters are not read from what is
// stored: who could write there could make a check take minutes, and a user
// with others would be told from one that does not exist by the time it takes.
const (
	hashMemory  = 19 << 10 // KiB
	hashTime    = 2
	hashThreads = 1
	hashSalt    = 16 // bytes
	hashKey     = 32
)

// hashBegins is how every stored password begins, in the PHC string format.
var hashBegins = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, hashMemory, hashTime, hashThreads)

// hashesAtOnce bounds what hashing takes of the machine. It is the process's:
// a source that a reload replaced may still be checking passwords.
const hashesAtOnce = 4

var hashing = make(chan struct{}, hashesAtOnce)

// errHash is a stored password that HashPassword did not write. It holds
// nothing of it.
var errHash = errors.New("the stored password is not one of ours")

// HashPassword writes a password as [Account] keeps it. Two that look the same
// are the same (RFC 8265 section 4.2). It does not look at rules, see
// [LocalConfig.NewPassword]. It waits while others are being hashed; errors:
// ErrUnavailable when the context ends meanwhile.
func HashPassword(ctx context.Context, password string) (string, error) {
	text, err := opaque(password)
	if err != nil {
		return "", err
	}
	salt := make([]byte, hashSalt)
	_, _ = rand.Read(salt) // never fails
	key, err := deriveKey(ctx, text, salt)
	if err != nil {
		return "", err
	}
	enc := base64.RawStdEncoding
	return hashBegins + enc.EncodeToString(salt) + "$" + enc.EncodeToString(key), nil
}

// checkHash reports whether it is the password of the hash. An empty hash is
// nobody's, and takes as long.
func checkHash(ctx context.Context, hash, password string) (bool, error) {
	text, err := opaque(password)
	if err != nil {
		return false, nil // it cannot have been anybody's
	}
	salt, want := make([]byte, hashSalt), make([]byte, hashKey)
	if hash != "" {
		if salt, want, err = parseHash(hash); err != nil {
			return false, err
		}
	}
	key, err := deriveKey(ctx, text, salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(key, want) == 1 && hash != "", nil
}

func parseHash(hash string) (salt, key []byte, err error) {
	rest, ours := strings.CutPrefix(hash, hashBegins)
	saltText, keyText, two := strings.Cut(rest, "$")
	if !ours || !two || strings.ContainsAny(rest, "\r\n") { // which base64 would skip
		return nil, nil, errHash
	}
	enc := base64.RawStdEncoding.Strict()
	salt, errSalt := enc.DecodeString(saltText)
	key, errKey := enc.DecodeString(keyText)
	if errSalt != nil || errKey != nil || len(salt) != hashSalt || len(key) != hashKey {
		return nil, nil, errHash
	}
	return salt, key, nil
}

func deriveKey(ctx context.Context, text string, salt []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil { // select would choose at random
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	select {
	case hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: other passwords are being checked: %w", ErrUnavailable, ctx.Err())
	}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(text), salt, hashTime, hashMemory, hashThreads, hashKey), nil
}

// opaque is a password as it is compared: the OpaqueString profile of RFC 8265
// takes spellings together that look the same, and keeps case.
func opaque(password string) (string, error) {
	if !utf8.ValidString(password) {
		return "", &PasswordRuleError{Rule: PasswordCharacters}
	}
	text, err := precis.OpaqueString.String(password)
	if err != nil {
		return "", &PasswordRuleError{Rule: PasswordCharacters}
	}
	return text, nil
}

// NewPassword checks a password that somebody wants to have, and writes it as
// [Account] keeps it. Errors: [PasswordRuleError], ErrUnavailable.
func (c LocalConfig) NewPassword(ctx context.Context, user, password string) (hash string, err error) {
	if err := c.checkPassword(user, password); err != nil {
		return "", err
	}
	return HashPassword(ctx, password)
}

func (c LocalConfig) checkPassword(user, password string) error {
	switch {
	case len(password) > maxTypedPassword:
		return &PasswordRuleError{Rule: PasswordLong, Length: len(password), Limit: maxTypedPassword}
	case strings.TrimSpace(password) == "":
		return &PasswordRuleError{Rule: PasswordBlank}
	}
	text, err := opaque(password)
	if err != nil {
		return err
	}
	// Characters are counted as they are compared: "é" is one, however typed.
	n := utf8.RuneCountInString(text)
	switch {
	case n < c.MinPasswordLength:
		return &PasswordRuleError{Rule: PasswordShort, Length: n, Limit: c.MinPasswordLength}
	case strings.EqualFold(norm.NFKC.String(text), norm.NFKC.String(user)):
		return &PasswordRuleError{Rule: PasswordUserName}
	}
	return nil
}
