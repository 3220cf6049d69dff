package claims_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims"
)

// RT-09: an address has one at sign, and its whole domain counts.
func TestRequire(t *testing.T) {
	t.Parallel()
	domain := claims.Require{EmailDomains: []string{"Example.com", "k.test"}}
	verified := claims.Require{EmailVerified: true}
	for _, c := range []struct {
		name    string
		require claims.Require
		json    string
		claim   string
		ok      bool
	}{
		{"nothing required", claims.Require{}, `{}`, "", true},
		{"the domain", domain, `{"email":"a@example.com"}`, "", true},
		{"the domain in another case", domain, `{"email":"a@EXAMPLE.COM"}`, "", true},
		{"the e-mail in another claim", domain, `{"mail":"a@example.com"}`, "mail", true},
		{"the e-mail as a list of one", domain, `{"email":["a@example.com"]}`, "", true},
		{"another claim is not looked at", domain, `{"email":"a@example.com"}`, "mail", false},
		{"another domain", domain, `{"email":"a@example.org"}`, "", false},
		{"a subdomain", domain, `{"email":"a@sub.example.com"}`, "", false},
		{"a longer domain", domain, `{"email":"a@notexample.com"}`, "", false},
		{"the domain as a prefix", domain, `{"email":"a@example.com.evil.test"}`, "", false},
		{"two at signs", domain, `{"email":"a@evil.test@example.com"}`, "", false},
		{"a quoted at sign", domain, `{"email":"\"a@evil.test\"@example.com"}`, "", false},
		{"no local part", domain, `{"email":"@example.com"}`, "", false},
		{"no domain", domain, `{"email":"a@"}`, "", false},
		{"no at sign", domain, `{"email":"example.com"}`, "", false},
		{"a trailing dot", domain, `{"email":"a@example.com."}`, "", false},
		{"a trailing blank", domain, `{"email":"a@example.com "}`, "", false},
		{"the Kelvin sign is no k", domain, `{"email":"a@\u212a.test"}`, "", false},
		{"k itself", domain, `{"email":"a@K.test"}`, "", true},
		{"no e-mail", domain, `{}`, "", false},
		{"two e-mails", domain, `{"email":["a@example.com","b@example.com"]}`, "", false},
		{"e-mail null", domain, `{"email":null}`, "", false},
		{"verified", verified, `{"email_verified":true}`, "", true},
		{"verified as text", verified, `{"email_verified":"true"}`, "", true},
		{"not verified", verified, `{"email_verified":false}`, "", false},
		{"verified missing", verified, `{"email":"a@example.com"}`, "", false},
		{"verified as a number", verified, `{"email_verified":1}`, "", false},
		{"verified in another case", verified, `{"Email_Verified":true}`, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := c.require.Check(parse(t, c.json), c.claim)
			if (err == nil) != c.ok {
				t.Fatalf("error %v, want ok %v", err, c.ok)
			}
			if err != nil && (!errors.Is(err, claims.ErrDenied) || strings.Contains(err.Error(), "evil")) {
				t.Errorf("error %v: want ErrDenied without the address", err)
			}
		})
	}
}
