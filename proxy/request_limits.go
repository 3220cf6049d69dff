package proxy

import (
	"cmp"
	"net/http"
	"strings"
	"time"
)

// ownLimit is how long a client may take for what we do not pass on: the body
// of a request that we answer ourselves, what is left of one that the upstream
// did not want, and the reading of an answer of ours. net/http would wait for
// each of them without end (SC-13).
//
// Bodies on their way to an upstream and its answers have no limit: slow
// uploads, long polls and downloads that are paused are honest, and what such
// a client holds is one connection of those that the listener counts.
const ownLimit = 15 * time.Second

// limitBody bounds the reading of what is left of a request's body, by us or
// by net/http, which reads some of it to keep the connection. Past the limit
// an HTTP/1 connection is closed, after our answer. Not before the upstream
// has answered: the deadline is the connection's. The first call counts.
func (x *exchange) limitBody(r *http.Request) {
	if r.ContentLength != 0 && !x.limited {
		x.limited = true
		// Not supported by a test's recorder, which needs none.
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Now().Add(cmp.Or(x.within, ownLimit)))
	}
}

// limitAnswer bounds the writing of an answer of ours: a client that does not
// read, or opens no window (HTTP/2), would hold it for ever. net/http takes the
// limit off the connection before its next request.
func (x *exchange) limitAnswer() {
	_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(time.Now().Add(cmp.Or(x.within, ownLimit)))
}

// lastRequest reports whether the connection ends with a request, because
// somebody else may see another end of it. A message with both a length and an
// encoding, and an encoded one of HTTP/1.0, must be the last of its connection
// (RFC 9112 section 6.1); net/http reads both and tells nobody. So every one
// that could have been such a message is the last: what a proxy in front took
// for its body is then never read as the next person's request (PX-12).
func lastRequest(r *http.Request) bool {
	return r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0)
}

// clearHTTP2 reports whether the head of an HTTP/2 request says one thing, in
// words that HTTP/1 has as well. net/http lets through what it can read itself;
// what goes on to an upstream in HTTP/1 must not be read as something else
// there (PX-13).
func clearHTTP2(r *http.Request) bool {
	// RFC 9113 section 8.3.1: the path begins with a slash. A blank would end it
	// in the request line of HTTP/1.
	if !strings.HasPrefix(r.RequestURI, "/") || strings.Contains(r.RequestURI, " ") {
		return false
	}
	// The same section: a host beside :authority names the same.
	for _, host := range r.Header["Host"] {
		if host != r.Host {
			return false
		}
	}
	// Section 8.1.1: the length is that of the body. Of one that is there, the
	// server sees to it.
	length := r.Header["Content-Length"]
	return len(length) == 0 || len(length) == 1 && (r.ContentLength != 0 || length[0] == "0")
}
