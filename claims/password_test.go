package claims_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/groupgate/groupgate/claims"
)

// hash is HashPassword, which must succeed.
func hash(t *testing.T, password string) string {
	t.Helper()
	h, err := claims.HashPassword(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func fits(t *testing.T, hash, password string) bool {
	t.Helper()
	right, err := claims.CheckHash(t.Context(), hash, password)
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	return right
}

// The stored form is what other tools write and read: another implementation's
// arithmetic is the judge.
func TestHashIsArgon2id(t *testing.T) {
	t.Parallel()
	const password = "correct horse battery"
	h := hash(t, password)
	parts := strings.Split(h, "$")
	if len(parts) != 6 || strings.Join(parts[:4], "$") != "$argon2id$v=19$m=19456,t=2,p=1" {
		t.Fatalf("stored as %s", h)
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil || len(salt) != 16 {
		t.Fatalf("salt: %d bytes, %v", len(salt), err)
	}
	if want := base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(password), salt, 2, 19456, 1, 32)); parts[5] != want {
		t.Errorf("key %s, want %s", parts[5], want)
	}
	if again := hash(t, password); again == h {
		t.Error("two hashes of one password are equal: there is no salt")
	}
	if !fits(t, h, password) {
		t.Error("the password does not fit")
	}
	for _, wrong := range []string{"", "correct horse batterz", "Correct horse battery", password + " ", " " + password, password + "\x00", strings.ToUpper(password)} {
		if fits(t, h, wrong) {
			t.Errorf("%q fits", wrong)
		}
	}
}

// What looks the same is the same, and nothing else (RFC 8265 section 4.2).
func TestSpellingsOfAPassword(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, set, typed string
		same             bool
	}{
		{"composed and decomposed", "caf\u00e9 au lait", "cafe\u0301 au lait", true},
		{"a no-break space", "correct horse", "correct\u00a0horse", true},
		{"an ideographic space", "correct horse", "correct\u3000horse", true},
		{"Angstrom sign and letter", "\u212bngstrom", "\u00c5ngstrom", true},
		{"case", "Correct horse", "correct horse", false},
		{"fullwidth letters", "correct horse", "\uff43orrect horse", false},
		{"two blanks", "correct horse", "correct  horse", false},
		{"ligature", "\ufb01rst", "first", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := hash(t, c.set)
			if got := fits(t, h, c.typed); got != c.same {
				t.Errorf("%+q for %+q: %v, want %v", c.typed, c.set, got, c.same)
			}
			if !fits(t, h, c.set) {
				t.Error("control: as it was set it does not fit")
			}
		})
	}
}

// A stored password that is malformed, or hashed with parameters that are not
// ours, is never compared: what would be computed is not for the store to say.
func TestForeignHashesAreRefused(t *testing.T) {
	t.Parallel()
	const password = "correct horse battery"
	good := hash(t, password)
	parts := strings.Split(good, "$")
	with := func(i int, text string) string {
		p := append([]string(nil), parts...)
		p[i] = text
		return strings.Join(p, "$")
	}
	salt, _ := base64.RawStdEncoding.DecodeString(parts[4])
	key := func(time, memory uint32) string {
		return base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(password), salt, time, memory, 1, 32))
	}
	for name, h := range map[string]string{
		"argon2i":            with(1, "argon2i"),
		"another version":    with(2, "v=16"),
		"less memory":        strings.Replace(with(5, key(2, 8)), "m=19456", "m=8", 1),
		"less time":          strings.Replace(with(5, key(1, 19456)), "t=2", "t=1", 1),
		"hours":              with(3, "m=4194304,t=1000000,p=1"),
		"another order":      with(3, "t=2,m=19456,p=1"),
		"a parameter more":   with(3, "m=19456,t=2,p=1,keyid=a"),
		"a short key":        with(5, parts[5][:40]),
		"no key":             with(5, ""),
		"a short salt":       with(4, "AAAA"),
		"no salt":            with(4, ""),
		"padding":            good + "=",
		"a line break":       good[:len(good)-4] + "\n" + good[len(good)-4:],
		"a part more":        good + "$",
		"bits that mean nil": good[:len(good)-1] + "_",
		"text":               password,
		"bcrypt":             "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
		"a dollar":           "$",
	} {
		if right, err := claims.CheckHash(t.Context(), h, password); right || err == nil {
			t.Errorf("%s: %v, %v", name, right, err)
		} else if strings.Contains(err.Error(), parts[5][:8]) || strings.Contains(err.Error(), password) {
			t.Errorf("%s: the error holds what it is about: %v", name, err)
		}
	}
	if !fits(t, good, password) {
		t.Error("control: the good one does not fit")
	}
	if right, err := claims.CheckHash(t.Context(), "", password); right || err != nil {
		t.Errorf("nobody's hash: %v, %v", right, err)
	}
}

func TestPasswordRules(t *testing.T) {
	t.Parallel()
	cfg := claims.LocalConfig{MinPasswordLength: 12}
	for _, c := range []struct {
		name, user, password string
		rule                 claims.PasswordRule // empty: taken
		says                 string
	}{
		{"control", "alice", "correct horse", "", ""},
		{"just long enough", "alice", "twelve chars", "", ""},
		{"one too few", "alice", "elevenchars", claims.PasswordShort, "11 characters of at least 12"},
		{"letters count, not bytes", "alice", "ééééééééééé", claims.PasswordShort, "11 characters of at least 12"},
		{"accents are part of a letter", "alice", strings.Repeat("e\u0301", 11), claims.PasswordShort, "11 characters"},
		{"letters of four bytes", "alice", strings.Repeat("\U0001d49c", 12), "", ""},
		{"empty", "alice", "", claims.PasswordBlank, "empty"},
		{"blanks", "alice", strings.Repeat(" ", 20), claims.PasswordBlank, "blanks"},
		{"blanks of all kinds", "alice", strings.Repeat(" \u3000\u00a0", 10), claims.PasswordBlank, "blanks"},
		{"a NUL", "alice", "correct\x00horse battery", claims.PasswordCharacters, "control characters"},
		{"a line break", "alice", "correct horse\n", claims.PasswordCharacters, "control characters"},
		{"not UTF-8", "alice", "correct horse\xff", claims.PasswordCharacters, "UTF-8"},
		{"longest", "alice", strings.Repeat("x", 1024), "", ""},
		{"too long", "alice", strings.Repeat("x", 1025), claims.PasswordLong, "at most 1024 bytes"},
		{"the user name", "alice.of.example", "alice.of.example", claims.PasswordUserName, "user name"},
		{"the user name in another case", "alice.of.example", "Alice.Of.EXAMPLE", claims.PasswordUserName, "user name"},
		{"the user name in fullwidth letters", "alice.of.example", "\uff41lice.of.example", claims.PasswordUserName, "user name"},
		{"more than the user name", "alice.of.example", "alice.of.example!", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, err := cfg.NewPassword(t.Context(), c.user, c.password)
			if c.rule == "" {
				if err != nil || !fits(t, h, c.password) {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			rule, is := errors.AsType[*claims.PasswordRuleError](err)
			if !is || rule.Rule != c.rule || h != "" || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q, %v; want rule %q and the words %q", h, err, c.rule, c.says)
			}
			if err != nil && len(c.password) > 3 && c.rule != claims.PasswordBlank && strings.Contains(err.Error(), c.password) {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
}

// Hashing is bounded: whoever waits gives up with the context, and nobody is
// served past the bound. Not parallel: it holds what all hashing needs.
func TestHashesAtOnceAreBounded(t *testing.T) {
	places, release := claims.HoldHashing()
	if memory := places * 19; memory > 100 {
		t.Errorf("%d at once take %d MiB", places, memory)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := claims.HashPassword(ctx, "correct horse battery"); !errors.Is(err, claims.ErrUnavailable) {
		t.Errorf("past the bound: %v", err)
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	for i := range 12 {
		wg.Go(func() {
			if _, err := claims.HashPassword(t.Context(), fmt.Sprint("correct horse battery", i)); err != nil {
				t.Error(err)
			}
			done.Add(1)
		})
	}
	if n := done.Load(); n != 0 {
		t.Errorf("%d went past the bound", n)
	}
	release()
	wg.Wait()
	if n := done.Load(); n != 12 {
		t.Errorf("%d of 12 came through", n)
	}
	over, end := context.WithCancel(t.Context())
	end()
	if _, err := claims.HashPassword(over, "correct horse battery"); !errors.Is(err, claims.ErrUnavailable) {
		t.Errorf("nobody waits for it: %v", err)
	}
}

func TestUserNamesOfLocalUsers(t *testing.T) {
	t.Parallel()
	for name, fine := range map[string]bool{
		"alice": true, "Alice": true, "alice@example.com": true, "alice b": true, "élise": true, "o'brien": true,
		strings.Repeat("x", 256): true,
		"":                       false, " ": false, "alice ": false, " alice": false, "ali\x00ce": false, "alice\n": false, "\xff": false,
		"\uff41lice": false, "e\u0301lise": false, strings.Repeat("x", 257): false, "\u3000": false,
	} {
		if err := claims.CheckUserName(name); (err == nil) != fine {
			t.Errorf("%+q: %v", name, err)
		}
	}
}

func FuzzCheckHash(f *testing.F) {
	good, err := claims.HashPassword(f.Context(), "correct horse battery")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$$")
	f.Fuzz(func(t *testing.T, h string) {
		began := time.Now()
		right, err := claims.CheckHash(t.Context(), h, "another password")
		if right || err != nil && strings.Contains(err.Error(), "$") {
			t.Errorf("%v, %v", right, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %s: parameters are taken from what is stored", took)
		}
	})
}
