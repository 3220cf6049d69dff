package groups

import "github.com/groupgate/groupgate/claims"

// canonicalDN is the one spelling of a distinguished name that rules and values
// are compared in. Sources that follow groups compare them the same way.
func canonicalDN(s string) (string, error) { return claims.CanonicalDN(s) }
