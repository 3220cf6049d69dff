package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// address reads an absolute URL of a server: scheme and host, and nothing
// that would end up in a log (userinfo) or mean nothing there (query,
// fragment). Its errors do not repeat the text.
func address(raw string) (*url.URL, error) {
	if strings.ContainsAny(raw, " \t\r\n") {
		return nil, errors.New("has a blank or a line break in it")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL (scheme://host)")
	case u.Scheme == "" || u.Opaque != "" || u.Host == "":
		return nil, errors.New("is not an absolute URL (scheme://host)")
	case u.User != nil:
		return nil, errors.New("has a user name in it")
	case u.RawQuery != "" || u.ForceQuery:
		return nil, errors.New("has a query")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, errors.New("has a fragment")
	case u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		return nil, errors.New("has no host, or a colon without a port")
	case u.Port() != "" && !validPort(u.Port(), 1):
		return nil, errors.New("has a port outside 1 to 65535")
	}
	return u, nil
}

// secure accepts https, and http on loopback, where nobody can listen in.
func secure(u *url.URL) error {
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	case u.Scheme == "http":
		return errors.New("must be https: plain http is accepted on loopback only")
	}
	return errors.New("must be an https URL")
}

// loopback is of the host as written; it asks no resolver, whose answer could
// change.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// origin brings an origin into the spelling browsers use (RFC 6454 section 4).
func origin(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if port := u.Port(); u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return u.Scheme + "://" + host
}

func validPort(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= least && n <= 65535 && strconv.Itoa(n) == s
}

// checkUpstream accepts http(s)://host, h2c://host:port and unix:/path.
func checkUpstream(raw string) error {
	if name, ok := strings.CutPrefix(raw, "unix:"); ok {
		return checkSocket(name)
	}
	u, err := address(raw)
	switch {
	case err != nil:
		return err
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "h2c":
		return errors.New("must be http://, https://, h2c://host:port or unix:/path")
	case u.Path != "" && u.Path != "/":
		// A path here would silently shift every path a route decides about.
		return errors.New("has a path: requests are forwarded with the path they came with")
	case u.Scheme == "h2c" && u.Port() == "":
		return errors.New("needs a port: h2c://host:port")
	}
	return nil
}

// checkSocket wants an absolute path: a socket must not depend on where the
// process was started.
func checkSocket(name string) error {
	if !path.IsAbs(name) || name == "/" || strings.ContainsRune(name, 0) {
		return errors.New("needs an absolute path: unix:/path")
	}
	return nil
}

// checkListen accepts host:port, :port and unix:/path.
func checkListen(s string) error {
	if name, ok := strings.CutPrefix(s, "unix:"); ok {
		return checkSocket(name)
	}
	host, port, err := net.SplitHostPort(s)
	switch {
	case err != nil:
		return errors.New("is not an address such as :4180, 127.0.0.1:4180 or unix:/path")
	case !validPort(port, 0):
		return errors.New("has a port outside 0 to 65535")
	case host != "" && checkHostname(host) != nil:
		return errors.New("has a host that is neither a name nor an address")
	}
	return nil
}

// sameListener reports whether two listen addresses cannot be had at once.
func sameListener(a, b string) bool {
	if a == b {
		return true
	}
	ah, ap, err := net.SplitHostPort(a)
	bh, bp, err2 := net.SplitHostPort(b)
	if err != nil || err2 != nil || ap != bp || ap == "0" {
		return false
	}
	return anyHost(ah) || anyHost(bh) || strings.EqualFold(ah, bh)
}

func anyHost(h string) bool { return h == "" || h == "0.0.0.0" || h == "::" }

// checkHostname accepts an IP address, or labels of letters, digits, "-" and
// "_" (which is no host name by RFC 1123 and is used all the same).
func checkHostname(h string) error {
	if ip, err := netip.ParseAddr(h); err == nil && ip.Zone() == "" {
		return nil
	}
	if len(h) > 253 {
		return errors.New("is longer than 253 characters")
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return errors.New("is not a host name")
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && !alphanumeric(c) {
				return errors.New("is not a host name")
			}
		}
	}
	return nil
}

// checkHost accepts what a Host header can be: a host name with or without a
// port.
func checkHost(s string) error {
	if strings.Contains(s, "/") {
		return errors.New("is a host alone, without scheme and path")
	}
	host, port := s, ""
	if h, p, err := net.SplitHostPort(s); err == nil {
		if host, port = h, p; !validPort(p, 1) {
			return errors.New("has a port outside 1 to 65535")
		}
	} else if inner, ok := strings.CutPrefix(s, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	if err := checkHostname(host); err != nil {
		return err
	}
	if port == "" && strings.Contains(host, ":") && !strings.HasPrefix(s, "[") {
		return errors.New("must have an IPv6 address in brackets")
	}
	return nil
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// checkPath accepts a path that reads the same however often it is cleaned
// and decoded, so that a rule about it cannot be walked around.
func checkPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return errors.New(`must begin with "/"`)
	case strings.ContainsAny(p, "?#"):
		return errors.New("has a query or a fragment")
	case strings.Contains(p, "%"):
		return errors.New("has a percent escape: write the path decoded")
	case strings.Contains(p, "//"):
		return errors.New(`has "//" in it`)
	case strings.ContainsAny(p, `\*`):
		return errors.New(`has a backslash or "*" in it: a path is a plain prefix`)
	}
	for segment := range strings.SplitSeq(p, "/") {
		if segment == "." || segment == ".." {
			return errors.New(`has a "." or ".." segment`)
		}
	}
	for _, c := range p {
		if c <= ' ' || c == 0x7f {
			return errors.New("has a blank or a control character in it")
		}
	}
	return nil
}
