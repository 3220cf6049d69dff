package claims_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/groupgate/groupgate/claims"
)

var seeds = []string{
	`{"groups":["a","b"]}`, `{"groups":null}`, `{"groups":"a","Groups":"b"}`, `{"a":{"b":["c"]}}`,
	`{"_claim_names":{"groups":"src1"}}`, `{"hasgroups":true}`, `{"sub":"a","sub":"b"}`, `[]`, `{}`, `{"a":1e400}`,
	`{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":[[[[[]]]]]}`, `{"":{"":""}}`, `{"a":{}} x`,
}

// FuzzParseClaims: Parse never panics, never accepts what encoding/json
// refuses, and what it accepts it writes so that it reads the same again.
func FuzzParseClaims(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := claims.Parse(data)
		if err != nil {
			return
		}
		if !utf8.Valid(data) || !json.Valid(data) || bytes.TrimLeft(data, " \t\r\n")[0] != '{' {
			t.Fatalf("accepted %q", data)
		}
		text, err := c.MarshalJSON()
		if err != nil {
			t.Fatalf("%q does not marshal: %v", data, err)
		}
		again, err := claims.Parse(text)
		if err != nil {
			t.Fatalf("%q was written as %q: %v", data, text, err)
		}
		if second, _ := again.MarshalJSON(); !bytes.Equal(text, second) {
			t.Fatalf("%q became %q", text, second)
		}
	})
}

// FuzzResolve: whatever the claims and the name, the answer is one of the
// three states, and only a complete one has values.
func FuzzResolve(f *testing.F) {
	for _, s := range seeds {
		for _, name := range []string{"groups", "/a/b", "/groups/0", "/", "", "/a~", "/~2"} {
			f.Add([]byte(s), name)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		c, err := claims.Parse(data)
		if err != nil {
			return
		}
		r := c.Resolve(name)
		if r.State > claims.Unknown || r.State != claims.Complete && r.Values != nil || (r.State == claims.Unknown) != (r.Why != "") {
			t.Fatalf("%q of %q: %+v", name, data, r)
		}
		if incomplete := c.WithIncomplete("why").Resolve(name); incomplete.State == claims.Absent {
			t.Fatalf("%q of %q: absent though incomplete", name, data)
		}
		c.Text(name)
		c.Scalar(name)
		c.True(name)
	})
}
