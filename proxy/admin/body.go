package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groupgate/groupgate/claims"
)

// Bounds of bodies, in bytes.
const (
	maxBody = 1 << 20
	maxPlan = 8 << 20 // a complete set of rules
	maxCSV  = 32 << 20
)

// decode reads a JSON body strictly: one object, no unknown key, no key twice
// or in two cases, nothing after it.
func (x *exchange) decode(v any, limit int64, types ...string) error {
	if err := x.wantType(append(types, "application/json")...); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(x.ResponseWriter, x.r.Body, limit))
	if err != nil {
		return bodyFault(err)
	}
	// encoding/json takes the last of two equal keys and does not tell their
	// case apart; what a check in front of us read might be another one.
	if _, err := claims.Parse(body); err != nil {
		return badRequest("The body cannot be read: %s.", strings.TrimPrefix(err.Error(), "claims: "))
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if p, ok := errors.AsType[*problem](err); ok {
			return p
		}
		if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return badRequest("The body cannot be read: %q does not take a %s.", t.Field, kindOf(t.Value))
		}
		return badRequest("The body cannot be read: %s.", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// decodeIfAny is decode for a body that may be left out, or be null.
func (x *exchange) decodeIfAny(v any, limit int64) error {
	body, err := io.ReadAll(http.MaxBytesReader(x.ResponseWriter, x.r.Body, limit))
	if err != nil {
		return bodyFault(err)
	}
	if said := string(bytes.TrimSpace(body)); said == "" || said == "null" {
		return nil
	}
	x.r.Body = io.NopCloser(bytes.NewReader(body))
	return x.decode(v, limit)
}

// kindOf is a JSON type without the number that encoding/json puts beside it.
func kindOf(value string) string {
	kind, _, _ := strings.Cut(value, " ")
	return kind
}

// bodyFault is a body that did not arrive: too long, cut off, or late.
func bodyFault(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	return badRequest("The body did not arrive whole.")
}

func (x *exchange) wantType(types ...string) error {
	t, params, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	charset := params["charset"]
	if err != nil || !slices.Contains(types, t) || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return newProblem(415, "unsupported-media-type", "Unsupported media type", "This endpoint takes "+strings.Join(types, " or ")+" in UTF-8.")
	}
	return nil
}

// writeJSON is how every JSON answer is written.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		status = http.StatusInternalServerError
		buf.Reset()
		buf.WriteString("{}\n")
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // the client may be gone
}

func (x *exchange) ok(v any) error {
	writeJSON(x, http.StatusOK, "application/json", v)
	return nil
}

func (x *exchange) created(location string, v any) error {
	x.Header().Set("Location", x.from.base+location)
	writeJSON(x, http.StatusCreated, "application/json", v)
	return nil
}

func (x *exchange) done() error {
	x.WriteHeader(http.StatusNoContent)
	return nil
}

// query reads the parameters of an address. One that stands twice is refused,
// not chosen from.
func (x *exchange) query() (url.Values, error) {
	q, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("The query is malformed.")
	}
	for name, values := range q {
		if len(values) > 1 {
			return nil, badRequest("The parameter %q stands twice.", name)
		}
		if !plain(values[0]) {
			return nil, badRequest("The parameter %q is not text in UTF-8.", name)
		}
	}
	return q, nil
}

// list is a page of a list.
type list[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// page is which part of a list is asked for.
type page struct {
	q     url.Values
	limit int
	after string // what the cursor holds; empty for the first page
	kind  string
}

// page reads limit and after. A cursor is opaque, and good for its own list
// only.
func (x *exchange) page(kind string) (*page, error) {
	q, err := x.query()
	if err != nil {
		return nil, err
	}
	p := &page{q: q, limit: 50, kind: kind}
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 500 {
			return nil, badRequest("limit is a number from 1 to 500.")
		}
		p.limit = n
	}
	if s := q.Get("after"); s != "" {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
		after, mine := strings.CutPrefix(string(raw), kind+":")
		if err != nil || !mine || after == "" || !plain(after) {
			return nil, p.badCursor()
		}
		p.after = after
	}
	return p, nil
}

// sorted is page for a list with several orders: sort is one of them, or is
// left out for the first, which has no name. A cursor is good for its own order
// only.
func (x *exchange) sorted(kind string, orders ...string) (p *page, by string, err error) {
	q, err := x.query()
	if err != nil {
		return nil, "", err
	}
	if by = q.Get("sort"); by != "" {
		if !slices.Contains(orders, by) {
			return nil, "", badRequest("sort is %s, or is left out.", strings.Join(orders, " or "))
		}
		kind += "-" + by
	}
	p, err = x.page(kind)
	return p, by, err
}

// address is the query of another page of the same list; values are its
// filters, by name.
func (p *page) address(after string, names ...string) string {
	q := url.Values{}
	for _, name := range append(names, "limit") {
		put(q, name, p.q.Get(name))
	}
	put(q, "after", after)
	return "?" + q.Encode()
}

func (p *page) badCursor() error {
	return badRequest("after is not what an earlier page of this list gave as next.")
}

// cut makes a page of up to limit+1 items, the last of which says that there
// are more. key is the cursor's text of an item.
func cut[T any](p *page, items []T, key func(T) string) list[T] {
	if items == nil {
		items = []T{}
	}
	if len(items) <= p.limit {
		return list[T]{Items: items}
	}
	items = items[:p.limit]
	cursor := p.kind + ":" + key(items[p.limit-1])
	return list[T]{Items: items, Next: base64.RawURLEncoding.EncodeToString([]byte(cursor))}
}

// each turns every item of a page into what the outside sees.
func each[A, B any](in list[A], fn func(A) B) list[B] {
	out := list[B]{Items: make([]B, len(in.Items)), Next: in.Next}
	for i := range in.Items {
		out.Items[i] = fn(in.Items[i])
	}
	return out
}

// timeParam reads an RFC 3339 time; an absent one is zero.
func timeParam(q url.Values, name string) (time.Time, error) {
	if q.Get(name) == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, q.Get(name))
	if err != nil {
		return at, badRequest("%s is not a time like 2026-01-31T12:00:00Z (RFC 3339).", name)
	}
	return at, nil
}

// boolParam reads true or false; an absent one is false.
func boolParam(q url.Values, name string) (bool, error) {
	switch q.Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, badRequest("%s is true or false.", name)
}

// tag is a strong entity tag over the parts.
func tag(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(strconv.Itoa(len(p)) + ":" + p))
	}
	return `"` + hex.EncodeToString(h.Sum(nil)[:12]) + `"`
}

// precondition looks at If-Match and If-None-Match (RFC 9110, 13.1) of a
// write. An empty etag is of what does not exist.
func (x *exchange) precondition(etag string) error {
	if lines := x.r.Header.Values("If-Match"); len(lines) > 0 && !names(lines, etag) {
		return errNoMatch
	}
	if lines := x.r.Header.Values("If-None-Match"); len(lines) > 0 && names(lines, etag) {
		return errNoMatch
	}
	return nil
}

// names reports whether a list of entity tags holds this one. Ours hold no
// commas. A weak tag is never one of ours.
func names(lines []string, etag string) bool {
	if etag == "" {
		return false
	}
	for t := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		if t = strings.TrimSpace(t); t == etag || t == "*" {
			return true
		}
	}
	return false
}
