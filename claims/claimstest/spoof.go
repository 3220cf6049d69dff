package claimstest

import "strings"

// Evil is the value of everything that a client must not be able to say.
const Evil = "evil-canary"

// Spoof is one way to speak in our name: header lines as they go over the
// wire, and trailer lines where there is a body.
type Spoof struct {
	Name            string
	Lines, Trailers []string
}

// Spoofs is every way to say one of these headers, and to say where a request
// came from. It is one table for every door there is: the proxy's own, and
// those of the servers that people put in front of it.
func Spoofs(names ...string) []Spoof {
	var all []Spoof
	one := func(name string, lines ...string) { all = append(all, Spoof{Name: name, Lines: lines}) }
	for _, owned := range names {
		for _, spelling := range []string{
			owned, strings.ToLower(owned), strings.ToUpper(owned), strings.ReplaceAll(owned, "-", "_"),
			strings.ReplaceAll(owned, "-", "."), strings.Replace(owned, "-", "_", 1), strings.Replace(owned, "X-", "X_", 1),
			strings.ReplaceAll(strings.ToLower(owned), "-", "_"), strings.ReplaceAll(owned, "-", "~"), strings.ReplaceAll(owned, "-", "!"),
		} {
			one("PX-01 PX-02 "+spelling, spelling+": "+Evil)
		}
		one("PX-01 twice "+owned, owned+": "+Evil, strings.ToLower(owned)+": "+Evil, owned+": ")
		one("PX-03 PX-04 Connection names "+owned, "Connection: "+owned, owned+": "+Evil)
		all = append(all, Spoof{Name: "PX-05 trailer " + owned, Trailers: []string{owned + ": " + Evil}})
	}
	one("PX-03 Connection names them with close", "Connection: close, X-Forwarded-User, x-forwarded-groups", "X-Forwarded-User: "+Evil)
	one("PX-03 Connection twice", "Connection: x-forwarded-user", "Connection: X-FORWARDED-GROUPS", "x-forwarded-groups: "+Evil)
	one("PX-04 Connection names Cookie", "Connection: Cookie, Host, X-Request-Id")
	one("PX-10 where it came from", "X-Forwarded-For: "+Evil, "X-Forwarded-Host: "+Evil, "X-Forwarded-Proto: "+Evil, "Forwarded: for="+Evil,
		"X-Forwarded-Uri: /"+Evil, "X-Forwarded-Prefix: "+Evil, "X-Forwarded-Port: "+Evil, "X-Forwarded-Method: "+Evil, "X-Real-Ip: "+Evil,
		"X-Original-Url: /"+Evil, "X-Rewrite-Url: /"+Evil, "X_Forwarded_Host: "+Evil, "X.Real.Ip: "+Evil, "x-original-uri: "+Evil)
	all = append(all, Spoof{Name: "PX-05 trailer in disguise", Trailers: []string{"X_Forwarded_Groups: " + Evil, "x.forwarded.user: " + Evil, "X-Real-Ip: " + Evil, "Cookie: a=" + Evil}})
	return all
}
