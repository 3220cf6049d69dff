package claims

import (
	"fmt"
	"strings"
)

// Check answers nil, or an error that wraps [ErrDenied] and says in plain
// words what the statement lacks. emailClaim is the claim that holds the
// e-mail address; empty is "email". Values are not part of the error.
func (q Require) Check(c Claims, emailClaim string) error {
	if emailClaim == "" {
		emailClaim = "email"
	}
	if len(q.EmailDomains) > 0 {
		if err := q.checkDomain(c.Text(emailClaim)); err != nil {
			return err
		}
	}
	if q.EmailVerified && !c.True("email_verified") {
		return fmt.Errorf("%w: the e-mail address is not verified", ErrDenied)
	}
	return nil
}

// checkDomain wants exactly one "@": an address with more is read differently
// by different programs (RFC 5321 section 4.1.2 allows it in a quoted part).
func (q Require) checkDomain(address string) error {
	if address == "" {
		return fmt.Errorf("%w: there is no e-mail address, or more than one", ErrDenied)
	}
	local, domain, found := strings.Cut(address, "@")
	if !found || local == "" || domain == "" || strings.Contains(domain, "@") {
		return fmt.Errorf("%w: the e-mail address is malformed", ErrDenied)
	}
	for _, allowed := range q.EmailDomains {
		if EqualASCII(domain, allowed) {
			return nil
		}
	}
	return fmt.Errorf("%w: the e-mail address is of a domain that is not allowed", ErrDenied)
}

// EqualASCII reports whether two texts differ in the case of ASCII letters at
// most.
func EqualASCII(a, b string) bool { return lowerASCII(a) == lowerASCII(b) }

// lowerASCII folds A to Z only. strings.ToLower would fold the Kelvin sign
// into "k" and so make a name that somebody else may choose equal to ours.
func lowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
