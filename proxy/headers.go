package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/groupgate/groupgate/groups"
)

// headerRules is a compiled HeadersConfig: the only place that knows the
// identity headers. It strips, renders and sets them.
type headerRules struct {
	cfg    HeadersConfig
	names  [4]string // user, e-mail, name, groups; canonical
	claims []claimHeader
	// owned holds every name we own as it comes out of Go's parser, and
	// folded in the form of foldName.
	owned  map[string]struct{}
	folded map[string]struct{}
	exact  map[string]struct{} // of "only"
	prefix []string            // of "only", without the star
}

type claimHeader struct{ name, claim string }

const omittedSuffix = "-Omitted"

// CompileHeaders checks nothing that the configuration has checked already.
func compileHeaders(cfg HeadersConfig) *headerRules {
	h := &headerRules{cfg: cfg, owned: map[string]struct{}{}, folded: map[string]struct{}{}, exact: map[string]struct{}{}}
	preset := headerPresets[cfg.Preset]
	for i, written := range []string{cfg.User, cfg.Email, cfg.Name, cfg.Groups} {
		name := preset[i]
		if written != "" {
			name = written
		}
		h.names[i] = http.CanonicalHeaderKey(name)
		h.own(h.names[i])
	}
	h.own(h.names[3] + omittedSuffix)
	if cfg.Assertion != "" {
		h.cfg.Assertion = http.CanonicalHeaderKey(cfg.Assertion)
		h.own(h.cfg.Assertion)
	}
	for name, claim := range cfg.Claims {
		h.claims = append(h.claims, claimHeader{http.CanonicalHeaderKey(name), claim})
		h.own(http.CanonicalHeaderKey(name))
	}
	slices.SortFunc(h.claims, func(a, b claimHeader) int { return strings.Compare(a.name, b.name) })
	for _, pattern := range cfg.Only {
		if p, star := strings.CutSuffix(pattern, "*"); star {
			h.prefix = append(h.prefix, p)
		} else {
			h.exact[pattern] = struct{}{}
		}
	}
	return h
}

func (h *headerRules) own(name string) {
	h.owned[name] = struct{}{}
	h.folded[foldName(name)] = struct{}{}
}

// foldName is how an application may read a header's name: CGI and its heirs
// make X_Forwarded_User and X-Forwarded-User the same.
func foldName(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case c >= 'A' && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		default:
			b[i] = '-'
		}
	}
	return string(b)
}

// owns reports whether a header of this name is ours alone to set.
func (h *headerRules) owns(name string) bool {
	if _, ours := h.owned[name]; ours {
		return true
	}
	_, ours := h.folded[foldName(name)]
	return ours
}

// plainName reports whether Go's parser brings a name into one spelling:
// letters, digits and "-". Only another can be a disguise.
func plainName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// forwarding are the headers that say how a request came here or where it
// should go. From a peer that is not trusted they are a client's claim.
var forwarding = func() map[string]struct{} {
	m := map[string]struct{}{}
	for _, name := range []string{
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Uri", "X-Forwarded-Prefix",
		"X-Forwarded-Port", "X-Forwarded-Method", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Scheme",
		"X-Real-Ip", "X-Original-Url", "X-Rewrite-Url", "X-Original-Uri", "X-Original-Method", "X-Original-Host",
	} {
		m[name] = struct{}{}
		m[foldName(name)] = struct{}{}
	}
	return m
}()

// stripRequest removes what a client must not say: every spelling of our own
// names, and unless the peer is trusted, where the request came from.
func (h *headerRules) stripRequest(header http.Header, trusted bool) {
	for name := range header {
		plain := plainName(name)
		if plain {
			if _, ours := h.owned[name]; ours {
				delete(header, name)
			} else if _, from := forwarding[name]; from && !trusted {
				delete(header, name)
			}
			continue
		}
		folded := foldName(name)
		_, from := forwarding[folded]
		if _, ours := h.folded[folded]; ours || from {
			delete(header, name)
		}
	}
}

// rendered is the header lines of one person, ready to be set. It is made once
// for every change of the person and shared by all requests.
type rendered struct {
	lines []headerLine
	// err is errOverflow when the groups do not fit and may not be cut.
	err    error
	groups []string // what the assertion holds: filtered, never cut
}

type headerLine struct {
	name   string
	values []string // shared: nobody may change it
}

var errOverflow = errors.New("the groups header would be too long")

// set writes the lines. The slices are capped, so that an append by a later
// reader copies them.
func (rd *rendered) set(header http.Header) {
	for _, l := range rd.lines {
		header[l.name] = l.values[:len(l.values):len(l.values)]
	}
}

// setAll writes every name we own: those without a value as an empty line, so
// that a front proxy that copies them overwrites the client's own.
func (h *headerRules) setAll(header http.Header, rd *rendered) {
	for name := range h.owned {
		if name != h.names[3]+omittedSuffix || h.cfg.OnOverflow == OverflowOmit {
			header[name] = []string{""}
		}
	}
	if rd != nil {
		rd.set(header)
	}
}

// render makes the lines of a person.
func (h *headerRules) render(v *groups.View) *rendered {
	rd := &rendered{groups: h.filter(v.Groups)}
	add := func(name string, values ...string) {
		rd.lines = append(rd.lines, headerLine{name, values})
	}
	for i, value := range []string{v.User.Name, v.User.Email, v.User.Display} {
		if value != "" {
			add(h.names[i], encodeText(value))
		}
	}
	for _, c := range h.claims {
		if value := claimValue(v, c.claim); value != "" {
			add(c.name, value)
		}
	}
	lines, omitted := h.groupLines(rd.groups)
	switch {
	case omitted > 0 && h.cfg.OnOverflow == OverflowError:
		rd.err = fmt.Errorf("%d groups: %w", len(rd.groups), errOverflow)
		return rd
	case omitted > 0:
		add(h.names[3]+omittedSuffix, strconv.Itoa(omitted))
	}
	if len(lines) > 0 {
		add(h.names[3], lines...)
	}
	return rd
}

// filter is "only": which groups this upstream may see.
func (h *headerRules) filter(all []string) []string {
	if len(h.cfg.Only) == 0 {
		return all
	}
	out := []string{}
	for _, g := range all {
		if _, named := h.exact[g]; named || slices.ContainsFunc(h.prefix, func(p string) bool { return strings.HasPrefix(g, p) }) {
			out = append(out, g)
		}
	}
	return out
}

// groupLines writes the groups header. What does not fit into max_bytes is
// left out at whole names, from the end of the order, and counted.
func (h *headerRules) groupLines(names []string) (lines []string, omitted int) {
	switch h.cfg.GroupsFormat {
	case JSON:
		line, n := jsonList(names, h.cfg.MaxBytes)
		return []string{line}, n
	case Repeated:
		size := 0
		for i, n := range names {
			line := encodeName(n)
			if size += len(line); size > h.cfg.MaxBytes {
				return lines, len(names) - i
			}
			lines = append(lines, line)
		}
		return lines, 0
	default:
		var b strings.Builder
		for i, n := range names {
			enc := encodeName(n)
			need := len(enc)
			if i > 0 {
				need++
			}
			if b.Len()+need > h.cfg.MaxBytes {
				return []string{b.String()}, len(names) - i
			}
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(enc)
		}
		return []string{b.String()}, 0
	}
}

// encodeName writes a group's name so that splitting a list at "," and
// percent-decoding gives exactly the names (contract section 5).
func encodeName(s string) string { return percent(s, true) }

// encodeText is encodeName for a value that stands alone: commas may stay.
func encodeText(s string) string { return percent(s, false) }

func percent(s string, list bool) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = !mustEncode(s, i, list)
	}
	if plain {
		return s
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := 0; i < len(s); i++ {
		if mustEncode(s, i, list) {
			b.Write([]byte{'%', hex[s[i]>>4], hex[s[i]&15]})
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func mustEncode(s string, i int, list bool) bool {
	c := s[i]
	return c < 0x20 || c > 0x7e || c == '%' || list && c == ',' ||
		c == ' ' && (i == 0 || i == len(s)-1) // HTTP would trim it
}

// decodeName is the reverse of encodeName. Text that no name encodes to stays
// as it is.
func decodeName(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if i+2 >= len(s) {
				return s
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return s
			}
			b.WriteByte(byte(n))
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// jsonList writes names as one JSON array of at most limit bytes, ASCII only.
func jsonList(names []string, limit int) (line string, omitted int) {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, n := range names {
		enc := asciiJSON(n)
		need := len(enc) + 1 // and the closing bracket
		if i > 0 {
			need++
		}
		if b.Len()+need > limit {
			omitted = len(names) - i
			break
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(enc)
	}
	b.WriteByte(']')
	return b.String(), omitted
}

func asciiJSON(s string) string {
	raw, _ := json.Marshal(s) // a string always marshals
	var b strings.Builder
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		switch {
		case r < 0x7f:
			b.WriteByte(byte(r))
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		raw = raw[n:]
	}
	return b.String()
}

// claimValue is any other claim as a header: text and numbers as they are, a
// list of text as groups are written.
func claimValue(v *groups.View, claim string) string {
	if text, ok := v.Claims.Scalar(claim); ok {
		return encodeText(text)
	}
	res := v.Claims.Resolve(claim)
	enc := make([]string, len(res.Values))
	for i, s := range res.Values {
		enc[i] = encodeName(s)
	}
	return strings.Join(enc, ",")
}

// HeaderLines renders what the upstream gets about a person: name and value of
// each line, in the order of the names. The problem is empty, or says why the
// request would not be forwarded. The assertion is not among them: it is made
// anew for each minute.
func HeaderLines(cfg HeadersConfig, v *groups.View) (lines [][2]string, problem string) {
	rd := compileHeaders(cfg).render(v)
	for _, l := range rd.lines {
		for _, value := range l.values {
			lines = append(lines, [2]string{l.name, value})
		}
	}
	slices.SortStableFunc(lines, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	if rd.err != nil {
		problem = rd.err.Error()
	}
	return lines, problem
}
