package claims

import (
	"slices"
	"strings"
)

// Keep returns the claims with nothing but what the names lead to. Those of
// whole stay as they are. Of a complete claim that is among values alone, the
// values stay that want takes; the others resolve to what they did before, but
// for the words that say why one is unknown. Marks of an overage always stay.
func (c Claims) Keep(whole, values []string, want func(claim, value string) bool) Claims {
	if c.o != nil {
		if c.all(); c.o.broken {
			return c
		}
	}
	names := map[string][]string{} // by the top-level claim they lead into
	cut := map[string]bool{}
	for i, list := range [][]string{values, whole} {
		for _, name := range list {
			if base := topLevel(name); !slices.Contains(names[base], name) {
				names[base] = append(names[base], name)
			}
			cut[name] = i == 0
		}
	}
	out := map[string]any{}
	for _, mark := range overageMarks {
		if v, there := c.all()[mark]; there {
			out[mark] = v
		}
	}
	for base, led := range names {
		v, there := c.all()[unescapePointer.Replace(base)]
		if !there {
			continue
		}
		if len(led) == 1 {
			v = keepAt(v, led[0], func(v any) any {
				if !cut[led[0]] {
					return v
				}
				return keepValues(v, func(value string) bool { return want(led[0], value) })
			})
		}
		out[unescapePointer.Replace(base)] = v
	}
	return c.with(out)
}

// keepAt rebuilds the way through objects to the one claim in v that is read,
// and nothing beside it. Where the way is another, v stays.
func keepAt(v any, name string, edit func(any) any) any {
	pointer, ok := strings.CutPrefix(name, "/")
	if !ok {
		return edit(v)
	}
	_, rest, below := strings.Cut(pointer, "/")
	return keepBelow(v, rest, below, edit)
}

func keepBelow(v any, rest string, below bool, edit func(any) any) any {
	if !below {
		return edit(v)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return v // a list, or nothing that has members: unknown stays so
	}
	token, rest, below := strings.Cut(rest, "/")
	token = unescapePointer.Replace(token)
	inner, there := m[token]
	if !there {
		return map[string]any{}
	}
	return map[string]any{token: keepBelow(inner, rest, below, edit)}
}

// keepValues keeps some values of a complete claim; of an unknown one only that
// it is unknown.
func keepValues(v any, want func(string) bool) any {
	res := resolveValue(v)
	if res.State != Complete {
		return nil
	}
	kept := []any{}
	for _, value := range res.Values {
		if want(value) {
			kept = append(kept, value)
		}
	}
	return kept
}
