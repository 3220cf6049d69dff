package config

import (
	"strconv"
	"strings"
)

// suggest says what an unknown key may have been meant to be, or which keys
// there are.
func suggest(key string, known []string) string {
	if near := nearest(key, known); near != "" {
		return " (did you mean " + near + "?)"
	}
	return "; known here: " + strings.Join(known, ", ")
}

// nearest answers the word within two edits of s, and fewer than half of its
// letters; empty when there is none.
func nearest(s string, words []string) string {
	best, at := "", 3
	if len(s) > 64 {
		return ""
	}
	low := strings.ReplaceAll(strings.ToLower(s), "-", "_")
	for _, w := range words {
		if d := distance(low, strings.ReplaceAll(w, "-", "_")); d < at && 2*d < len(w) {
			best, at = w, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to turn a into b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// printable makes a word from the file fit for a message.
func printable(s string) string {
	q := quote(s)
	if q == strconv.Quote(s) && q == `"`+s+`"` {
		return s
	}
	return q
}
