package claimstest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
)

// Matching rules of Active Directory.
const (
	ruleBitAnd  = "1.2.840.113556.1.4.803"
	ruleBitOr   = "1.2.840.113556.1.4.804"
	ruleInChain = "1.2.840.113556.1.4.1941"
)

var errFilter = errors.New("not a filter")

// truth is of three kinds (RFC 4511 4.5.1.7): what is not understood is neither,
// and does not become true by a "not".
type truth int

const (
	isFalse truth = iota
	isUndefined
	isTrue
)

func truthOf(b bool) truth {
	if b {
		return isTrue
	}
	return isFalse
}

// matcher says whether an entry fits. It is made once for each search.
type matcher func(e *stored) truth

// compile reads a filter from the wire, and says it as text (RFC 4515). The
// directory is locked.
func (d *Directory) compile(p *ber.Packet, depth int) (matcher, string, error) {
	if p.ClassType != ber.ClassContext || depth > 50 {
		return nil, "", errFilter
	}
	switch p.Tag {
	case 0, 1:
		return d.compileSet(p, depth)
	case 2:
		if len(p.Children) != 1 {
			return nil, "", errFilter
		}
		inner, text, err := d.compile(p.Children[0], depth+1)
		return func(e *stored) truth { return isTrue - inner(e) }, "(!" + text + ")", err
	case 3, 5, 6, 8:
		return d.compileCompare(p)
	case 4:
		return d.compileSubstrings(p)
	case 7:
		name := p.Data.String()
		return func(e *stored) truth { return truthOf(len(d.valuesOf(e, name)) > 0) }, "(" + name + "=*)", nil
	case 9:
		return d.compileExtensible(p)
	}
	return nil, "", errFilter
}

func (d *Directory) compileSet(p *ber.Packet, depth int) (matcher, string, error) {
	var inner []matcher
	text := "(" + map[ber.Tag]string{0: "&", 1: "|"}[p.Tag]
	for _, child := range p.Children {
		m, t, err := d.compile(child, depth+1)
		if err != nil {
			return nil, "", err
		}
		inner, text = append(inner, m), text+t
	}
	if p.Tag == 0 {
		return func(e *stored) truth {
			all := isTrue
			for _, m := range inner {
				all = min(all, m(e))
			}
			return all
		}, text + ")", nil
	}
	return func(e *stored) truth {
		one := isFalse
		for _, m := range inner {
			one = max(one, m(e))
		}
		return one
	}, text + ")", nil
}

func (d *Directory) compileCompare(p *ber.Packet) (matcher, string, error) {
	if len(p.Children) != 2 {
		return nil, "", errFilter
	}
	name, wanted := p.Children[0].Data.String(), p.Children[1].Data.String()
	prepared := prepareAs(name, wanted)
	equal := func(v value) bool { return v.prepared == prepared }
	how := map[ber.Tag]struct {
		sign string
		fits func(v value) bool
	}{
		3: {"=", equal},
		5: {">=", func(v value) bool { return compareValues(v.prepared, prepared) >= 0 }},
		6: {"<=", func(v value) bool { return compareValues(v.prepared, prepared) <= 0 }},
		8: {"~=", equal},
	}[p.Tag]
	return d.anyValue(name, how.fits), "(" + name + how.sign + escapeFilterText(wanted) + ")", nil
}

func (d *Directory) anyValue(name string, fits func(v value) bool) matcher {
	return func(e *stored) truth {
		for _, v := range d.valuesOf(e, name) {
			if fits(v) {
				return isTrue
			}
		}
		return isFalse
	}
}

// compareValues compares numbers as such, everything else as text.
func compareValues(a, b string) int {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil {
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	return strings.Compare(a, b)
}

func (d *Directory) compileSubstrings(p *ber.Packet) (matcher, string, error) {
	if len(p.Children) != 2 || len(p.Children[1].Children) == 0 {
		return nil, "", errFilter
	}
	name := p.Children[0].Data.String()
	var initial, final string
	var middle []string
	text := "(" + name + "="
	for _, part := range p.Children[1].Children {
		s := part.Data.String()
		prepared := prepareAs(name, s)
		switch part.Tag {
		case 0:
			initial = prepared
			text += escapeFilterText(s)
		case 1:
			middle = append(middle, prepared)
			text += "*" + escapeFilterText(s)
		case 2:
			final = prepared
			text += "*" + escapeFilterText(s)
		default:
			return nil, "", errFilter
		}
	}
	if last := p.Children[1].Children[len(p.Children[1].Children)-1]; last.Tag != 2 {
		text += "*"
	}
	return d.anyValue(name, func(v value) bool {
		rest, fits := strings.CutPrefix(v.prepared, initial)
		for _, m := range middle {
			if fits {
				_, rest, fits = strings.Cut(rest, m)
			}
		}
		return fits && strings.HasSuffix(rest, final)
	}), text + ")", nil
}

func (d *Directory) compileExtensible(p *ber.Packet) (matcher, string, error) {
	var rule, name, wanted string
	dn := false
	for _, child := range p.Children {
		switch child.Tag {
		case 1:
			rule = child.Data.String()
		case 2:
			name = child.Data.String()
		case 3:
			wanted = child.Data.String()
		case 4:
			dn = true
		}
	}
	text := "(" + name
	if dn {
		text += ":dn"
	}
	if rule != "" {
		text += ":" + rule
	}
	text += ":=" + escapeFilterText(wanted) + ")"
	// Every other server takes a rule it does not know for one that is neither
	// true nor false: success, with nothing.
	unknown := func(*stored) truth { return isUndefined }
	if !d.opts.AD || dn {
		return unknown, text, nil
	}
	switch rule {
	case ruleInChain:
		if d.knobs.InChainEmpty {
			return func(*stored) truth { return isFalse }, text, nil
		}
		var fits map[string]bool
		switch strings.ToLower(name) {
		case "member":
			fits = reachable(keyOf(wanted), d.groupsOfKey)
		case "memberof":
			fits = reachable(keyOf(wanted), d.membersOfKey)
		}
		return func(e *stored) truth { return truthOf(fits[e.key]) }, text, nil
	case ruleBitAnd, ruleBitOr:
		mask, err := strconv.ParseInt(wanted, 10, 64)
		if err != nil {
			return unknown, text, nil
		}
		return d.anyValue(name, func(v value) bool {
			n, err := strconv.ParseInt(v.raw, 10, 64)
			return err == nil && (rule == ruleBitAnd && n&mask == mask || rule == ruleBitOr && n&mask != 0)
		}), text, nil
	}
	return unknown, text, nil
}

// reachable is everything that next leads to, in one step or more.
func reachable(from string, next func(key string) []string) map[string]bool {
	seen := map[string]bool{}
	for queue := next(from); len(queue) > 0; {
		var later []string
		for _, key := range queue {
			if !seen[key] {
				seen[key] = true
				later = append(later, next(key)...)
			}
		}
		queue = later
	}
	return seen
}

func escapeFilterText(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || strings.IndexByte(`()*\`, c) >= 0 {
			fmt.Fprintf(&b, `\%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
