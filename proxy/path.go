package proxy

import (
	"errors"
	"net/url"
	"strings"
)

var (
	errPath = errors.New("the path can be read in several ways")
)

// readings answers the path a route is matched on, and a second reading when
// an application may well see another path than we do. Both must pass: what
// decides is never looser than what is forwarded.
//
// Encoded slashes, empty segments, path parameters and double encoding are
// legal and in use, so they are forwarded as they came, with two readings. Dot
// segments, backslashes and control characters, however encoded, have no
// honest use in a request and are refused.
func readings(u *url.URL) (path, other string, err error) {
	path = u.Path
	if path == "" || path[0] != '/' {
		return "", "", errPath
	}
	odd := u.RawPath != "" // not the default encoding: something was encoded that need not be
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c < 0x20 || c == 0x7f || c == '\\':
			return "", "", errPath
		case c == '%' || c == ';':
			odd = true
		case c == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.'):
			odd = true
		}
	}
	if !odd {
		return path, "", nil
	}
	other, err = flatten(path)
	if err != nil || other == path {
		other = ""
	}
	return path, other, err
}

// flatten reads a path the way the most eager application would: decoded until
// nothing changes, parameters gone, empty segments joined.
func flatten(path string) (string, error) {
	for range 3 {
		next, err := url.PathUnescape(path)
		if err != nil || next == path {
			break // a lone percent sign is just that
		}
		path = next
	}
	if strings.Contains(path, "\\") || hasControl(path) {
		return "", errPath
	}
	var b strings.Builder
	for segment := range strings.SplitSeq(path, "/") {
		name, _, _ := strings.Cut(segment, ";")
		switch name {
		case ".", "..":
			return "", errPath
		case "":
			continue
		}
		b.WriteByte('/')
		b.WriteString(name)
	}
	if b.Len() == 0 || strings.HasSuffix(path, "/") {
		b.WriteByte('/')
	}
	return b.String(), nil
}
