package claims_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// LD-18: whatever bytes come in place of one answer, nobody is signed in whose
// password is wrong, unless they are the answer that signs people in.
func FuzzLDAPAnswer(f *testing.F) {
	r := newLDAPRig(f, claimstest.DirectoryOptions{}, func(o *claims.LDAPOptions, d *claimstest.Directory) {
		o.Config.URL = claims.URLs{d.URL} // in clear: a handshake each would be most of the work
	})
	for step := range byte(4) {
		for _, m := range claimstest.MalformedAnswers() {
			kind := "search"
			if step%3 == 0 {
				kind = "bind"
			}
			f.Add(step, m.Bytes(kind, 1))
		}
	}
	f.Add(byte(3), []byte("\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00")) // success
	f.Add(byte(3), []byte("\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x31\x04\x00\x04\x00")) // invalidCredentials
	f.Fuzz(func(t *testing.T, step byte, raw []byte) {
		var mu sync.Mutex
		seen := map[string]byte{}
		r.d.Lie(func(k *claimstest.DirectoryKnobs) {
			k.CloseAfterRaw = true
			k.Raw = func(kind string, _ int64) []byte {
				mu.Lock()
				defer mu.Unlock()
				n := seen[kind]
				seen[kind]++
				// 0: the service account's bind; 1: what the server is; 2: the
				// person's entry; 3: the person's bind.
				at := map[string]byte{"bind": 3 * n, "search": 1 + n}[kind]
				if at == step%4 {
					return append([]byte{}, raw...)
				}
				return nil
			}
		})
		r.d.DropConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		began := time.Now()
		id, _, err := r.src.CheckPassword(ctx, claims.Credentials{User: "alice", Password: "a wrong pass phrase"})
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("took %v", took)
		}
		if err == nil && (step%4 != 3 || !saysSuccess(raw)) {
			t.Fatalf("signed in %+v", id)
		}
		if err != nil && !errors.Is(err, claims.ErrBadPassword) && !errors.Is(err, claims.ErrUnavailable) && !errors.Is(err, claims.ErrDenied) {
			t.Fatalf("an error that nobody knows: %v", err)
		}
	})
}

// saysSuccess reports whether the bytes could be a bind's success at all: its
// tag, and a result code of 0 in some length.
func saysSuccess(raw []byte) bool {
	codes := [][]byte{{0x0a, 1, 0}, {0x0a, 2, 0, 0}, {0x0a, 3, 0, 0, 0}, {0x0a, 4, 0, 0, 0, 0}}
	return bytes.IndexByte(raw, 0x61) >= 0 && slices.ContainsFunc(codes, func(c []byte) bool { return bytes.Contains(raw, c) })
}

// LD-01: a typed name makes a filter that the server can read, and leads to
// nobody but who has that name.
func FuzzLDAPUser(f *testing.F) {
	r := newLDAPRig(f, claimstest.DirectoryOptions{AD: true}, func(o *claims.LDAPOptions, d *claimstest.Directory) {
		o.Config.URL = claims.URLs{d.URL}
	})
	for _, user := range []string{
		"alice", " ALICE ", "alice@example.com", `EXAMPLE\alice`, "*", "*)(uid=*))(|(uid=*", `\2a`, "a\x00", "\xff", "{user}", "", "ａｌｉｃｅ", "bob)(cn=*",
	} {
		f.Add(user)
	}
	alice := r.d.Subject(r.d.PersonDN("alice"))
	f.Fuzz(func(t *testing.T, user string) {
		whose := ""
		_, _, err := r.src.CheckPassword(context.Background(), claims.Credentials{User: user, Password: alicePassword, Attempt: func(s string) error {
			whose = s
			return nil
		}})
		name := strings.Join(strings.Fields(strings.ToLower(norm.NFKC.String(user))), " ")
		for _, around := range []string{`example\`, `example.com\`} {
			name = strings.TrimPrefix(name, around)
		}
		for _, around := range []string{"@example", "@example.com"} {
			name = strings.TrimSuffix(name, around)
		}
		name = strings.TrimSpace(name)
		switch {
		case err == nil && (whose != alice || name != "alice"):
			t.Fatalf("%q signed in as %s", user, whose)
		case err != nil && !errors.Is(err, claims.ErrBadPassword):
			t.Fatalf("%q: %v", user, err)
		case whose != "" && !slices.Contains([]string{"alice", "bob"}, name):
			t.Fatalf("%q leads to %s", user, whose)
		}
	})
}
