package claims

import (
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// accountAttributes say whether an account may be used.
var accountAttributes = []string{
	"userAccountControl", "msDS-User-Account-Control-Computed", "lockoutTime", "accountExpires", "pwdLastSet", // Active Directory
	"msDS-UserAccountDisabled",         // its lightweight sister
	"nsAccountLock",                    // 389 Directory Server and its family
	"pwdAccountLockedTime", "pwdReset", // draft-behera-ldap-password-policy
	"shadowExpire",  // RFC 2307
	"loginDisabled", // eDirectory
}

// Bits of userAccountControl and of its computed part ([MS-ADTS] sections
// 2.2.16 and 3.1.1.4.5.17).
const (
	uacDisabled      = 0x2
	uacLocked        = 0x10
	uacNeverExpires  = 0x10000
	uacPasswordStale = 0x800000
)

// ldapAccount is whether an account may be used, in words. Both empty: it may.
type ldapAccount struct {
	disabled string // and every session ends
	refused  string // for now
	locked   bool   // refused is a lock, which a bind may have ended
}

// why is empty when the account may be used.
func (a ldapAccount) why() string {
	if a.disabled != "" {
		return a.disabled
	}
	return a.refused
}

// What an account can be.
const (
	accountDisabled    = "the account is disabled"
	accountExpired     = "the account has expired"
	accountGone        = "the account is gone"
	accountLocked      = "the account is locked"
	passwordExpired    = "the password has expired"
	passwordMustChange = "the password must be changed first"
	outsideHours       = "the account may not sign in at this time"
	outsideMachines    = "the account may not sign in from here"
	accountUnreadable  = "the state of the account cannot be read"
)

// accountOf reads the entry's state. A number that cannot be read counts
// against the account.
func accountOf(e *ldap.Entry, now time.Time) ldapAccount {
	unreadable := false
	number := func(attribute string) (n int64, there bool) {
		v := valueOf(e, attribute)
		if v == "" {
			unreadable = unreadable || len(valuesOf(e, attribute)) > 0
			return 0, false
		}
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		unreadable = unreadable || err != nil
		return n, err == nil
	}
	yes := func(attribute string) bool { return strings.EqualFold(valueOf(e, attribute), "true") }

	control, _ := number("userAccountControl")
	computed, isComputed := number("msDS-User-Account-Control-Computed")
	lockedAt, _ := number("lockoutTime")
	expires, _ := number("accountExpires")
	lastSet, hasLastSet := number("pwdLastSet")
	shadow, hasShadow := number("shadowExpire")
	switch {
	case control&uacDisabled != 0, yes("nsAccountLock"), yes("loginDisabled"), yes("msDS-UserAccountDisabled"):
		return ldapAccount{disabled: accountDisabled}
	case filetimePassed(expires, now), hasShadow && shadow >= 0 && now.Unix()/86400 >= shadow:
		return ldapAccount{disabled: accountExpired}
	case computed&uacLocked != 0, !isComputed && lockedAt != 0, valueOf(e, "pwdAccountLockedTime") != "":
		return ldapAccount{refused: accountLocked, locked: true}
	case computed&uacPasswordStale != 0:
		return ldapAccount{refused: passwordExpired}
	case hasLastSet && lastSet == 0 && control&uacNeverExpires == 0, yes("pwdReset"):
		return ldapAccount{refused: passwordMustChange}
	case unreadable:
		return ldapAccount{refused: accountUnreadable}
	}
	return ldapAccount{}
}

// filetimePassed reads a time of an Active Directory: hundreds of nanoseconds
// since 1601, where 0 and the greatest number mean never ([MS-ADA1] section
// 2.3).
func filetimePassed(t int64, now time.Time) bool {
	const never, perSecond, to1970 = 1<<63 - 1, 10_000_000, 11_644_473_600
	return t != 0 && t != never && t/perSecond-to1970 <= now.Unix()
}
