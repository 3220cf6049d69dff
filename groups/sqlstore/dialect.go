package sqlstore

import (
	"regexp"
	"strings"
)

// Statements are written once for SQLite and PostgreSQL. Where the two have no
// word in common, the text has one of these:
//
//	texts($1), ids($1)  a JSON array as a table with the column value, or after "in"
//	tuples($1)          a JSON array of arrays as a table with the column value
//	least, greatest     of the values in brackets
//
// and of SQLite's own words instr, unhex, the unary plus that keeps a column
// from its index, and "cross join ... on", which joins in that order.
//
// A text is translated when it is met for the first time.

var (
	sets      = regexp.MustCompile(`\b(in )?(texts|ids|tuples)\((\$\d+)\)`)
	extremes  = strings.NewReplacer("least(", "min(", "greatest(", "max(")
	ordered   = regexp.MustCompile(`cross join (\w+(?: \w+)?) on\b`)
	unhexed   = regexp.MustCompile(`unhex\(([^()]*)\)`)
	unindexed = strings.NewReplacer("+u.", "u.", "instr(", "strpos(")
)

func sqliteText(text string) string {
	text = sets.ReplaceAllStringFunc(text, func(m string) string {
		parts := sets.FindStringSubmatch(m)
		if parts[2] == "tuples" {
			return "jsonb_each(" + parts[3] + ")" // saves writing and reading each row as text again
		}
		return parts[1] + "(select value from json_each(" + parts[3] + "))"
	})
	return extremes.Replace(text)
}

func postgresText(text string) string {
	text = sets.ReplaceAllStringFunc(text, func(m string) string {
		parts := sets.FindStringSubmatch(m)
		column := "value"
		switch parts[2] {
		case "tuples":
			return "json_array_elements(" + parts[3] + "::json)"
		case "ids":
			column = "value::bigint as value"
		}
		set := "(select " + column + " from json_array_elements_text(" + parts[3] + "::json))"
		if parts[1] != "" { // each by the index, however many there seem to be
			return "= any(array" + set + ")"
		}
		return set
	})
	text = ordered.ReplaceAllString(text, "join $1 on")
	text = unhexed.ReplaceAllString(text, "decode($1, 'hex')")
	return unindexed.Replace(text)
}
