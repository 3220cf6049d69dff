package migrate

import (
	"encoding/json"
	"regexp"
	"strings"
)

// output is YAML on the way: a line and what it came from.
type output struct {
	lines []struct{ text, comment string }
}

func (o *output) line(indent int, text, comment string) {
	o.lines = append(o.lines, struct{ text, comment string }{strings.Repeat("  ", indent) + text, comment})
}

// String puts comments beside short lines, and above long ones.
func (o *output) String() string {
	const column, longest = 44, 72
	var b strings.Builder
	for _, l := range o.lines {
		pad := column - len([]rune(l.text))
		switch {
		case l.comment == "":
			b.WriteString(l.text + "\n")
		case len([]rune(l.text)) > longest:
			indent := l.text[:len(l.text)-len(strings.TrimLeft(l.text, " "))]
			b.WriteString(indent + "# " + l.comment + "\n" + l.text + "\n")
		default:
			b.WriteString(l.text + strings.Repeat(" ", max(pad, 1)) + "# " + l.comment + "\n")
		}
	}
	return b.String()
}

// plain is text that means itself in YAML, in a list in brackets too.
var plain = regexp.MustCompile(`^([A-Za-z/][A-Za-z0-9/._@-]*|https?://[A-Za-z0-9._:/-]*[A-Za-z0-9/])$`)

// quoted writes text for YAML. A JSON string is one of YAML (YAML 1.2 section 1.3).
func quoted(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
	default:
		if plain.MatchString(s) {
			return s
		}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // text always can be
	return strings.TrimSpace(b.String())
}

func list(items []string) string {
	out := make([]string, len(items))
	for i, s := range items {
		out[i] = quoted(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// env is a reference to an environment variable.
func env(name string) string { return `"${env:` + name + `}"` }

// file is a reference to what a file holds. A path with a brace in it cannot
// be referred to.
func file(path string) (string, bool) {
	return quoted("${file:" + path + "}"), !strings.ContainsAny(path, "}")
}
