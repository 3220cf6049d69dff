package claimstest

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// rdn is one step of a distinguished name: a value, or several with "+".
type rdn []assertion

type assertion struct{ attribute, value string }

var errDN = errors.New("not a distinguished name")

// parseDN reads RFC 4514, the last step first as it is written. The empty name
// has no steps.
func parseDN(s string) ([]rdn, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var steps []rdn
	for _, step := range splitDN(s, ',') {
		var one rdn
		for _, part := range splitDN(step, '+') {
			name, value, found := strings.Cut(part, "=")
			name = strings.ToLower(strings.TrimSpace(name))
			if !found || name == "" {
				return nil, errDN
			}
			plain, err := unescapeDN(value)
			if err != nil {
				return nil, err
			}
			one = append(one, assertion{name, plain})
		}
		steps = append(steps, one)
	}
	return steps, nil
}

// splitDN splits at a separator that no backslash is before.
func splitDN(s string, separator byte) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case separator:
			parts, start = append(parts, s[start:i]), i+1
		}
	}
	return append(parts, s[start:])
}

func unescapeDN(s string) (string, error) {
	s = strings.TrimLeft(s, " ")
	if encoded, isHex := strings.CutPrefix(s, "#"); isHex {
		raw, err := hex.DecodeString(strings.TrimSpace(encoded))
		if err != nil || len(raw) < 2 || int(raw[1]) != len(raw)-2 { // tag, length, value
			return "", errDN
		}
		return string(raw[2:]), nil
	}
	var b strings.Builder
	end := 0 // of what is no blank, or an escaped one
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			if s[i] != ' ' {
				end = b.Len()
			}
			continue
		}
		if i+2 < len(s) {
			if raw, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b.Write(raw)
				i, end = i+2, b.Len()
				continue
			}
		}
		if i+1 == len(s) {
			return "", errDN
		}
		i++
		b.WriteByte(s[i])
		end = b.Len()
	}
	return b.String()[:end], nil
}

// keyOf is the same text for the same name, however it is written. A text that
// is no name is itself.
func keyOf(dn string) string {
	steps, err := parseDN(dn)
	if err != nil {
		return "?" + dn
	}
	return joinKeys(steps)
}

func joinKeys(steps []rdn) string {
	keys := make([]string, len(steps))
	for i, step := range steps {
		var parts []string
		for _, a := range step {
			parts = append(parts, a.attribute+"="+escapeKey(prepare(a.value)))
		}
		slices.Sort(parts)
		keys[i] = strings.Join(parts, "+")
	}
	return strings.Join(keys, ",")
}

func escapeKey(s string) string {
	return strings.NewReplacer(`\`, `\5c`, ",", `\2c`, "+", `\2b`).Replace(s)
}

// below says whether a key is in the tree of another.
func below(key, base string) bool {
	return base == "" || key == base || strings.HasSuffix(key, ","+base)
}

// parentOf is the key of the entry above.
func parentOf(key string) string {
	_, rest, _ := strings.Cut(key, ",")
	return rest
}

// prepare makes two values one that a directory would not tell apart (RFC
// 4518): compatibility forms, case, blanks at the ends, and several of them.
func prepare(s string) string {
	return strings.Join(strings.Fields(strings.ToLower(norm.NFKC.String(s))), " ")
}
