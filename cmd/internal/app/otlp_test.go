package app

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// A collector may take a part of the spans alone; what it answers beside that,
// and what is no such answer, rejects nothing.
func TestRejectedSpansAreCounted(t *testing.T) {
	t.Parallel()
	varint := func(field protowire.Number, n uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), n)
	}
	inside := func(field protowire.Number, parts ...[]byte) []byte {
		var body []byte
		for _, p := range parts {
			body = append(body, p...)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), body)
	}
	words := inside(2, []byte("why"))
	for name, tt := range map[string]struct {
		answer []byte
		want   uint64
	}{
		"all taken":              {nil, 0},
		"some rejected":          {inside(1, varint(1, 7), words), 7},
		"the words come first":   {inside(1, words, varint(1, 300)), 300},
		"something of later":     {append(inside(9, []byte("x")), inside(1, varint(1, 2))...), 2},
		"words alone":            {inside(1, words), 0},
		"another type":           {varint(1, 7), 0},
		"cut off":                {inside(1, varint(1, 7))[:3], 0},
		"a page":                 {[]byte("<html>out of order</html>"), 0},
		"a length that is a lie": {[]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, 0},
	} {
		if got := rejected(tt.answer); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
