package proxy

import (
	"net/url"
	"strings"
)

// maxReturn bounds an address to return to; a longer one is forgotten.
const maxReturn = 2048

// returnPath answers a path on our own origin that is safe to redirect to, or
// "/" when rd is anything else. It is an allow-list: a path of plain bytes
// that no reader can take for another origin, whatever it decodes, folds or
// strips first.
func returnPath(rd string) string {
	if safePath(rd) {
		return rd
	}
	return "/"
}

func safePath(rd string) bool {
	if rd == "" || len(rd) > maxReturn || rd[0] != '/' {
		return false
	}
	path, _, _ := strings.Cut(rd, "?")
	path, _, _ = strings.Cut(path, "#")
	for i := 0; i < len(rd); i++ {
		// Blanks, controls and backslashes are stripped or turned into slashes
		// by some browser, bytes outside ASCII normalised.
		if c := rd[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	u, err := url.Parse(rd)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return false
	}
	return plainPath(path)
}

// plainPath reports whether a path means the same however often it is decoded:
// no empty or dot segments, no backslash, no control character.
func plainPath(path string) bool {
	for range 3 {
		for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
			name, _, _ := strings.Cut(segment, ";")
			if name == "." || name == ".." {
				return false
			}
		}
		if strings.Contains(path, "//") || strings.ContainsAny(path, "\\") || hasControl(path) {
			return false
		}
		next, err := url.PathUnescape(path)
		if err != nil {
			return false
		}
		if next == path {
			return true
		}
		path = next
	}
	return false
}

func hasControl(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// returnAddress reads rd as it stands in a login's request: a path on the
// public host, or an absolute address on the public host or a portal. It
// answers the portal (nil for the public host) and the path.
func (s *site) returnAddress(rd string) (portal *host, path string) {
	if len(rd) > maxReturn {
		return nil, "/"
	}
	for _, h := range s.sites {
		rest, ours := strings.CutPrefix(rd, h.origin)
		if !ours {
			continue
		}
		if rest == "" {
			rest = "/"
		}
		if rest[0] != '/' {
			continue // https://portal.example.com.evil.example
		}
		if h.portal {
			return h, returnPath(rest)
		}
		return nil, returnPath(rest)
	}
	return nil, returnPath(rd)
}
