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
	"strconv"
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

	IssuedAt time.Time // of the statement, by the source
	Expires  time.Time // of the statement, by the source; zero when it says nothing
}

// State says what is known about a claim.
type State uint8

// The three states of a claim.
const (
	// Absent: the statement does not mention the claim at all.
	Absent State = iota
	// Complete: the claim is there with zero or more usable text values. Only
	// a complete claim may take memberships away.
	Complete
	// Unknown: something is there, or should be, but it is not a full list of
	// text values: null, another type, an overage marker, a partial read.
	Unknown
)

func (s State) String() string {
	switch s {
	case Absent:
		return "absent"
	case Complete:
		return "complete"
	default:
		return "unknown"
	}
}

// MarshalText writes the state's word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Resolution is what [Claims.Resolve] found.
type Resolution struct {
	State  State    `json:"state"`
	Values []string `json:"values,omitempty"` // of a complete claim: in the source's order, without duplicates and empty strings
	Why    string   `json:"why,omitempty"`    // of an unknown claim
}

// Claims is one JSON object of statements about a person. The zero value has
// none. Claims are immutable and safe for concurrent use.
type Claims struct {
	o *object
	// incomplete says why a claim that is not here may still exist at the
	// source; then nothing is absent, only unknown.
	incomplete string
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
	return Claims{o, incomplete}
}

const unreadable = "the stored statement cannot be read"

// Stored takes back what MarshalJSON wrote. It is read when something is asked
// of it; of anything else than what MarshalJSON wrote every claim is unknown.
func Stored(raw []byte, incomplete string) Claims {
	o := &object{raw: raw}
	o.encode.Do(func() {})
	return Claims{o, incomplete}
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

// Resolve reads one claim by its name, or by a JSON Pointer (RFC 6901) when
// the name begins with "/", and folds what it finds into one of three states.
func (c Claims) Resolve(name string) Resolution {
	if why := c.overage(name); why != "" {
		return Resolution{State: Unknown, Why: why}
	}
	v, found, why := c.find(name)
	switch {
	case why != "":
		return Resolution{State: Unknown, Why: why}
	case !found && c.incomplete != "":
		return Resolution{State: Unknown, Why: c.incomplete}
	case !found:
		return Resolution{State: Absent}
	}
	return resolveValue(v)
}

func resolveValue(v any) Resolution {
	switch v := v.(type) {
	case string:
		return usable([]any{v})
	case []any:
		return usable(v)
	case nil:
		return Resolution{State: Unknown, Why: "the claim is null"}
	default:
		return Resolution{State: Unknown, Why: "the claim is " + typeName(v) + ", not text"}
	}
}

func usable(list []any) Resolution {
	if len(list) > MaxValues {
		return Resolution{State: Unknown, Why: fmt.Sprintf("more than %d values", MaxValues)}
	}
	values := make([]string, 0, len(list))
	seen := make(map[string]struct{}, len(list))
	for i, e := range list {
		s, ok := e.(string)
		if !ok {
			return Resolution{State: Unknown, Why: fmt.Sprintf("value %d of the list is %s, not text", i+1, typeName(e))}
		}
		if len(s) > MaxValueBytes {
			return Resolution{State: Unknown, Why: fmt.Sprintf("value %d of the list is longer than %d bytes", i+1, MaxValueBytes)}
		}
		if s == "" {
			continue
		}
		if _, dup := seen[s]; dup {
			continue
		}
		seen[s] = struct{}{}
		values = append(values, s)
	}
	return Resolution{State: Complete, Values: values}
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number, float64:
		return "a number"
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	default:
		return "of an unexpected type"
	}
}

// overage recognises the markers by which Entra ID says that the groups are
// somewhere else: distributed claims (OpenID Connect Core 5.6.2), hasgroups,
// and the link attribute of its SAML tokens. A marked claim is never absent.
func (c Claims) overage(name string) string {
	base, _, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !strings.HasPrefix(name, "/") {
		base = name
	}
	switch names := c.all()["_claim_names"].(type) {
	case nil:
	case map[string]any:
		if _, marked := names[base]; marked {
			return "overage: the source says the values are elsewhere (_claim_names)"
		}
	default:
		return "overage: _claim_names is not an object"
	}
	if base == "groups" || base == "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups" {
		if v, there := c.all()["hasgroups"]; there && v != false && v != "false" {
			return "overage: the source says there are more groups than it sends (hasgroups)"
		}
		for _, link := range []string{"groups.link", "http://schemas.microsoft.com/claims/groups.link"} {
			if _, there := c.all()[link]; there {
				return "overage: the source sends a link in place of the groups (groups.link)"
			}
		}
	}
	return ""
}

// find walks to a claim. A step through something that has no members is not
// the same as a missing member: the first is unknown, the second absent.
func (c Claims) find(name string) (v any, found bool, why string) {
	if c.all(); c.o != nil && c.o.broken {
		return nil, false, unreadable
	}
	if !strings.HasPrefix(name, "/") {
		v, found = c.all()[name]
		return v, found, ""
	}
	m := c.all()
	v = m
	if m == nil {
		return nil, false, ""
	}
	for token := range strings.SplitSeq(name[1:], "/") {
		token = unescapePointer.Replace(token)
		switch at := v.(type) {
		case map[string]any:
			if v, found = at[token]; !found {
				return nil, false, ""
			}
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || strconv.Itoa(i) != token {
				return nil, false, fmt.Sprintf("%q is not an index of a list", token)
			}
			if i < 0 || i >= len(at) {
				return nil, false, ""
			}
			v = at[i]
		default:
			return nil, false, "on the way to the claim there is " + typeName(v)
		}
	}
	return v, true, ""
}

var unescapePointer = strings.NewReplacer("~1", "/", "~0", "~")

// CheckName says what is wrong with the name of a claim: empty, or a JSON
// Pointer with an escape that RFC 6901 does not know.
func CheckName(name string) error {
	if name == "" {
		return errors.New("the name of a claim is empty")
	}
	if !strings.HasPrefix(name, "/") {
		return nil
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '~' && (i+1 == len(name) || name[i+1] != '0' && name[i+1] != '1') {
			return fmt.Errorf("JSON Pointer %q: \"~\" must be written \"~0\", and \"/\" in a name \"~1\" (RFC 6901)", name)
		}
	}
	return nil
}

// Text returns the claim's only value, or "" when there is none, when it is
// not text, or when there are several.
func (c Claims) Text(name string) string {
	if r := c.Resolve(name); r.State == Complete && len(r.Values) == 1 {
		return r.Values[0]
	}
	return ""
}

// Scalar returns a claim as one line of text: text as it is, a number or a
// boolean as JSON writes it. ok is false for everything else.
func (c Claims) Scalar(name string) (text string, ok bool) {
	v, found, _ := c.find(name)
	if !found {
		return "", false
	}
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	default:
		return "", false
	}
}

// True reports whether a claim is the boolean true, or the text "true", which
// is how some providers write it.
func (c Claims) True(name string) bool {
	v, _, _ := c.find(name)
	return v == true || v == "true"
}

// Without returns the claims without the named top-level ones.
func (c Claims) Without(names ...string) Claims {
	m := maps.Clone(c.all())
	for _, n := range names {
		delete(m, n)
	}
	return of(m, c.incomplete)
}

// Fill returns the claims with what they lack taken from other, object by
// object; where both have a value, c's stands. It joins an ID token (c) with
// userinfo (other).
func (c Claims) Fill(other Claims) Claims {
	return of(fill(c.all(), other.all()), c.incomplete)
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
