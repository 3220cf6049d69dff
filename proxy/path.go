package proxy

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
)

var errPath = errors.New("the path can be read in several ways")

// readings answers the path a route is matched on, and every other path that
// some application may see in its place. All must pass: what decides is never
// looser than what is forwarded.
//
// Encoded slashes, empty segments, path parameters and double encoding are
// legal and in use, so they are forwarded as they came, with all readings. Dot
// segments, backslashes and control characters, however encoded, have no
// honest use in a request and are refused.
func readings(u *url.URL) (path string, others []string, err error) {
	path = u.Path
	if path == "" || path[0] != '/' || strings.Contains(u.RawPath, "#") {
		return "", nil, errPath // a fragment is never sent (RFC 9110 section 7.1)
	}
	if u.User != nil || u.Scheme != "" && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		return "", nil, errPath // an absolute address that is none of ours to serve (RFC 9112 section 3.2.2)
	}
	odd := u.RawPath != "" // not the default encoding: something was encoded that need not be
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c < 0x20 || c == 0x7f || c == '\\':
			return "", nil, errPath
		case c == '%' || c == ';':
			odd = true
		case c == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.'):
			odd = true
		}
	}
	if !odd {
		return path, nil, nil
	}
	seen := map[string]struct{}{path: {}}
	if err := unfold(seen, path, false); err != nil {
		return "", nil, err
	}
	literal := path
	if u.RawPath != "" {
		literal = decoded(u.RawPath, true)
	}
	if err := unfold(seen, literal, true); err != nil {
		return "", nil, err
	}
	delete(seen, path)
	for other := range seen {
		others = append(others, other)
	}
	return path, others, nil
}

// maxDecodings is how often a path may be percent-encoded beyond the once that
// HTTP asks for.
const maxDecodings = 3

// unfold adds the path's readings: decoded once, twice and so on, each with
// and without its parameters, with and without its empty segments. Readers
// differ in whether an encoded slash parts segments: literal says it does not.
func unfold(seen map[string]struct{}, path string, literal bool) error {
	for depth := 0; ; depth++ {
		if err := plainSegments(path); err != nil {
			return err
		}
		seen[path] = struct{}{}
		for _, text := range []string{path, withoutParameters(path)} {
			seen[text] = struct{}{}
			seen[withoutEmpty(text)] = struct{}{}
		}
		next := decoded(path, literal)
		if next == path {
			return nil
		}
		if depth == maxDecodings {
			return errPath
		}
		path = next
	}
}

func plainSegments(path string) error {
	if strings.Contains(path, "\\") || hasControl(path) {
		return errPath
	}
	for segment := range strings.SplitSeq(path, "/") {
		name, _, _ := strings.Cut(segment, ";")
		if name == "." || name == ".." {
			return errPath
		}
	}
	return nil
}

func withoutParameters(path string) string {
	if !strings.Contains(path, ";") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.Join(segments, "/")
}

func withoutEmpty(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// decoded percent-decodes what can be and leaves the rest, as lenient readers
// do: a lone percent sign must not hide the dots behind it.
func decoded(s string, keepSlash bool) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil && !(keepSlash && n == '/') {
				b = append(b, byte(n))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
