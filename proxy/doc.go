// Package proxy is the front door: it ends the login, decides who may pass,
// and forwards with identity headers.
//
// # The walk
//
// One request takes five steps, called in this order by [Proxy.walk]:
//
//  1. own page?  An exact prefix test sends it to our own endpoints
//     (login.go, forwardauth.go). Foreign paths never meet a ServeMux, which
//     would rewrite them.
//  2. route      Host and path find the route (route.go, path.go).
//  3. who        The cookie finds the session, in memory (session.go).
//  4. may they   Public, signed in, or one of the groups (route.go).
//  5. forward    Strip, set, stream (headers.go, forward.go).
//
// PREFIX/auth is steps 2 to 4 with the header set written on the answer.
// PREFIX/admin is the administrator's console (console.go), which somebody else
// makes: on the public host, for members of groups that the settings name, who
// are looked at anew with each request.
//
// # The trust boundary
//
// Everything a client sends is a claim. Headers we own are removed in every
// spelling an application may read as the same, on every path; X-Forwarded-...
// counts from trusted_proxies only. What the application receives under our
// names was set here, once, after ReverseProxy dropped what the client listed
// in Connection. There is one way to the upstream, [Proxy.forward], for plain
// requests, uploads, event streams and WebSockets alike.
//
// # The header contract
//
// User, e-mail and name are percent-encoded where HTTP could not carry them;
// groups are written in the configured format, sorted bytewise. See the
// README for the table, and contract section 5 for the bytes.
//
// # Design
//
// A configuration becomes a [site], which is swapped whole: a request is
// served by one site from its first step to its last. Sessions are served from
// memory and invalidated by the directory's notices, so the signed-in request
// costs a hash and a map lookup above forwarding. Where there is no directory
// (store.none) a session is sealed in its cookies, and the rest is the same:
// keeper.go. Nothing is kept for a login under way: see flow.go.
package proxy
