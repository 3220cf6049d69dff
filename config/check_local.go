package config

import "github.com/groupgate/groupgate/claims"

const (
	// NIST SP 800-63B section 3.1.1.2 wants 8 at least where a password is not
	// all there is; nobody remembers what is longer than a screen.
	minPassword, maxPassword = 8, 256
)

// local checks what a source of our own users can be told. What such a person
// is called and is a member of is written where the person is made.
func (c *checker) local(at string, s *claims.Config) {
	if n := s.Local.MinPasswordLength; n < minPassword || n > maxPassword {
		c.fault(at+".local.min_password_length", "is not between %d and %d characters", minPassword, maxPassword)
	}
	if path := at + ".groups"; c.written(path) {
		c.fault(path, "means nothing for local users, whose groups nothing states: an administrator makes them members")
	}
	if path := at + ".identity"; c.written(path) {
		c.fault(path, "means nothing for local users: their names are given where they are made")
	}
	c.notVerified(at, s)
}

// notVerified refuses a condition that nobody of the source can meet.
func (c *checker) notVerified(at string, s *claims.Config) {
	if s.Require.EmailVerified {
		c.fault(at+".require.email_verified", "nobody could sign in: this kind of source says nothing about whether an address is verified")
	}
}
