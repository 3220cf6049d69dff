package claims

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

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
	base := topLevel(name)
	why := c.marked(base)
	if why != "" && (base == "groups" || base == entraGroups) && c.unresolved != "" {
		why = "overage, and Microsoft Graph did not help: " + c.unresolved
	}
	return why
}

// topLevel is the claim that a name or JSON Pointer leads into.
func topLevel(name string) string {
	pointer, ok := strings.CutPrefix(name, "/")
	if !ok {
		return name
	}
	base, _, _ := strings.Cut(pointer, "/")
	return base
}

// entraGroups is how Entra ID names the groups in SAML.
const entraGroups = "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups"

// overageMarks are the claims that say that others are somewhere else; the last
// two are links.
var overageMarks = []string{"_claim_names", "hasgroups", "groups.link", "http://schemas.microsoft.com/claims/groups.link"}

// marked is overage for a top-level claim.
func (c Claims) marked(base string) string {
	switch names := c.all()["_claim_names"].(type) {
	case nil:
	case map[string]any:
		if _, marked := names[base]; marked {
			return "overage: the source says the values are elsewhere (_claim_names)"
		}
	default:
		return "overage: _claim_names is not an object"
	}
	if base == "groups" || base == entraGroups {
		if v, there := c.all()["hasgroups"]; there && v != false && v != "false" {
			return "overage: the source says there are more groups than it sends (hasgroups)"
		}
		for _, link := range overageMarks[2:] {
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
