package claims

import "strings"

const eachDepth = 4 // levels of objects that Each goes into

var escapePointer = strings.NewReplacer("~", "~0", "/", "~1")

// Each calls fn for every claim that [Claims.Resolve] finds complete, by the
// name that Resolve takes: members of objects by a JSON Pointer. The order is
// not said.
func (c Claims) Each(fn func(name string, values []string)) {
	for name, v := range c.all() {
		if c.marked(name) != "" {
			continue
		}
		pointer := "/" + escapePointer.Replace(name)
		if !strings.HasPrefix(name, "/") && name != "" {
			each(name, pointer, v, eachDepth, fn)
			continue
		}
		each(pointer, pointer, v, eachDepth, fn)
	}
}

func each(name, pointer string, v any, depth int, fn func(string, []string)) {
	if m, object := v.(map[string]any); object {
		for key, inner := range m {
			if depth > 0 {
				below := pointer + "/" + escapePointer.Replace(key)
				each(below, below, inner, depth-1, fn)
			}
		}
		return
	}
	if r := resolveValue(v); r.State == Complete {
		fn(name, r.Values)
	}
}
