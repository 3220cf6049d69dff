// Package claims knows where people come from: sources that sign a person in,
// and the verified statements they make about that person.
//
// It imports nothing else of groupgate. What a statement means for a group is
// not its business (package groups); how a browser is led through a login is
// not either (package proxy). A [Source] yields an [Identity]; an Identity
// carries [Claims]; a claim resolves to one of three states, never fewer.
//
// # Design
//
// A claim is kept as the JSON the source sent, not as a list of strings:
// "absent", "null", "empty" and "of another type" are different things, and
// only [Claims.Resolve] may fold them into the three states. Everything that
// can take a membership away asks for [Complete] first.
package claims

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Bounds of what one statement may hold. Past them a claim is [Unknown], so
// that a runaway value costs neither a regular expression's time nor a
// membership.
const (
	MaxValueBytes = 8 << 10 // of one value
	MaxValues     = 50_000  // of one claim
	maxDepth      = 32      // of nested JSON
)

// Identity is what one source says about one person, verified.
type Identity struct {
	Source  string
	Subject string // the source's immutable id of the person; never empty
	Claims  Claims
	Session string // the source's own session: OIDC sid, SAML SessionIndex; may be empty
	// Alias is what the source calls the person when it says that a login is
	// over, where that is not the subject: a digest of the SAML NameID.
	Alias string

	IssuedAt time.Time // of the statement, by the source
	Expires  time.Time // of the statement, by the source; zero when it says nothing
	// SessionEnds is when the source's own session ends, and ours with it: SAML
	// SessionNotOnOrAfter. Zero when the source does not say.
	SessionEnds time.Time

	// StatementID names a statement that counts once, for this source: a SAML
	// assertion. It is too old to be believed after StatementUntil. Empty: what
	// brings such a statement cannot be sent twice.
	StatementID    string
	StatementUntil time.Time

	// Whole: a claim that Claims does not mention is not there. Otherwise a
	// refresh leaves it as an earlier statement had it.
	Whole bool
}

// Claims is one JSON object of statements about a person. The zero value has
// none. Claims are immutable and safe for concurrent use.
type Claims struct {
	o *object
	// incomplete says why a claim that is not here may still exist at the
	// source; then nothing is absent, only unknown.
	incomplete string
	// unresolved says why groups that are elsewhere (an overage) could not be
	// fetched. It is told, not stored.
	unresolved string
}

// object is the JSON object in two forms, each made from the other when it is
// first asked for: most logins only compare bytes, most syncs only read values.
type object struct {
	decode, encode sync.Once
	m              map[string]any
	raw            []byte // keys sorted
	err            error  // of encode
	broken         bool   // raw is not an object after all
}

func of(m map[string]any, incomplete string) Claims {
	o := &object{m: m}
	o.decode.Do(func() {})
	return Claims{o: o, incomplete: incomplete}
}

const unreadable = "the stored statement cannot be read"

// Stored takes back what MarshalJSON wrote. It is read when something is asked
// of it; of anything else than what MarshalJSON wrote every claim is unknown.
func Stored(raw []byte, incomplete string) Claims {
	o := &object{raw: raw}
	o.encode.Do(func() {})
	return Claims{o: o, incomplete: incomplete}
}

func (c Claims) all() map[string]any {
	if c.o == nil {
		return nil
	}
	c.o.decode.Do(func() {
		dec := json.NewDecoder(bytes.NewReader(c.o.raw))
		dec.UseNumber()
		if dec.Decode(&c.o.m) != nil || c.o.m == nil {
			c.o.m, c.o.broken = nil, true
		}
	})
	return c.o.m
}

// Parse reads one JSON object. It refuses what could be read in two ways: a
// key that stands twice in one object, two keys of one object that differ in
// case only, invalid UTF-8, nesting past 32 levels, trailing data.
func Parse(data []byte) (Claims, error) {
	if !utf8.Valid(data) {
		return Claims{}, errors.New("claims: not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := parseValue(dec, 0)
	if err != nil {
		return Claims{}, fmt.Errorf("claims: %w", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return Claims{}, errors.New("claims: not a JSON object")
	}
	if _, err := dec.Token(); err != io.EOF {
		return Claims{}, errors.New("claims: data after the JSON object")
	}
	return of(m, ""), nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	switch tok {
	case json.Delim('{'):
		return parseObject(dec, depth)
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	default:
		return tok, nil
	}
}

func parseObject(dec *json.Decoder, depth int) (any, error) {
	m := map[string]any{}
	folded := map[string]string{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key := tok.(string) // the decoder refuses any other key
		low := strings.ToLower(key)
		if other, dup := folded[low]; dup {
			if other == key {
				return nil, fmt.Errorf("key %q stands twice", key)
			}
			return nil, fmt.Errorf("keys %q and %q differ in case only", other, key)
		}
		folded[low] = key
		if m[key], err = parseValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return m, err
}

// FromMap makes claims of attributes that are lists of text, as SAML and
// LDAP have them. The map is not kept.
func FromMap(attrs map[string][]string) Claims {
	m := make(map[string]any, len(attrs))
	for k, vs := range attrs {
		list := make([]any, len(vs))
		for i, v := range vs {
			list[i] = v
		}
		m[k] = list
	}
	return of(m, "")
}

// MarshalJSON writes the object the claims were read from, with sorted keys:
// equal claims are equal bytes. The bytes are not the caller's to change.
func (c Claims) MarshalJSON() ([]byte, error) {
	if c.o == nil {
		return []byte("{}"), nil
	}
	c.o.encode.Do(func() {
		if c.o.m == nil {
			c.o.raw = []byte("{}")
			return
		}
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		c.o.err = enc.Encode(c.o.m)
		c.o.raw = bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	})
	return c.o.raw, c.o.err
}

// UnmarshalJSON is [Parse].
func (c *Claims) UnmarshalJSON(data []byte) error {
	parsed, err := Parse(data)
	if err != nil {
		return err
	}
	parsed.incomplete = c.incomplete
	*c = parsed
	return nil
}

// Names lists the top-level claims, sorted.
func (c Claims) Names() []string { return slices.Sorted(maps.Keys(c.all())) }

// Incomplete says why claims that are missing here count as [Unknown] instead
// of [Absent]; empty when nothing is missing.
func (c Claims) Incomplete() string { return c.incomplete }

// WithIncomplete marks claims that could not be read whole, such as when
// userinfo did not answer: what is not there is then unknown, never absent.
func (c Claims) WithIncomplete(why string) Claims {
	c.incomplete = why
	return c
}

// WithNull returns the claims with null under each of the names: something is
// there that is no text, so it is [Unknown].
func (c Claims) WithNull(names ...string) Claims {
	m := maps.Clone(c.all())
	if m == nil {
		m = map[string]any{}
	}
	for _, n := range names {
		m[n] = nil
	}
	return c.with(m)
}

// WithUnresolved says why groups that are elsewhere could not be fetched. It is
// told, not stored.
func (c Claims) WithUnresolved(why string) Claims {
	c.unresolved = why
	return c
}

// Without returns the claims without the named top-level ones.
func (c Claims) Without(names ...string) Claims {
	m := maps.Clone(c.all())
	for _, n := range names {
		delete(m, n)
	}
	return c.with(m)
}

// with answers other claims of the same statement.
func (c Claims) with(m map[string]any) Claims {
	out := of(m, c.incomplete)
	out.unresolved = c.unresolved
	return out
}

// Fill returns the claims with what they lack taken from other, object by
// object; where both have a value, c's stands. It joins an ID token (c) with
// userinfo (other).
func (c Claims) Fill(other Claims) Claims {
	return c.with(fill(c.all(), other.all()))
}

func fill(a, b map[string]any) map[string]any {
	out := make(map[string]any, len(a)+len(b))
	maps.Copy(out, a)
	for k, bv := range b {
		av, there := out[k]
		if !there {
			out[k] = bv
			continue
		}
		ao, aok := av.(map[string]any)
		bo, bok := bv.(map[string]any)
		if aok && bok {
			out[k] = fill(ao, bo)
		}
	}
	return out
}

// FillFromEarlier is [Claims.Fill] with the claims of an earlier statement of
// the same source: a refresh that does not mention a claim changes nothing.
// An earlier overage marker is left behind for claims that are stated now.
func (c Claims) FillFromEarlier(earlier Claims) Claims {
	old := maps.Clone(earlier.all())
	if names, ok := old["_claim_names"].(map[string]any); ok {
		names = maps.Clone(names)
		maps.DeleteFunc(names, func(k string, _ any) bool { _, now := c.all()[k]; return now })
		old["_claim_names"] = names
	}
	if _, now := c.all()["groups"]; now {
		delete(old, "hasgroups")
		delete(old, "groups.link")
		delete(old, "http://schemas.microsoft.com/claims/groups.link")
	}
	out := c.Fill(of(old, ""))
	out.incomplete = c.incomplete
	if earlier.incomplete != "" && out.incomplete == "" {
		out.incomplete = earlier.incomplete
	}
	if earlier.o != nil && earlier.o.broken && out.incomplete == "" {
		out.incomplete = unreadable
	}
	return out
}
