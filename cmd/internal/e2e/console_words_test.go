package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// surveyed is what browser.mjs reads of a page.
type surveyed struct {
	Lang, Title    string
	Texts, Clipped []string
	Dialogs        int
}

// english are the console's English texts that another language says otherwise:
// whole ones, and those with values in them as one expression. Quoted are words
// that its help quotes from pages that are not ours.
func english(t *testing.T, lang string) (whole map[string]string, quoted map[string]bool, parts *regexp.Regexp) {
	t.Helper()
	read := func(lang string) map[string]string {
		names, err := filepath.Glob("../../../proxy/admin/ui/text/" + lang + "/*.json")
		must(t, err)
		all := map[string]string{}
		for _, name := range names {
			raw, err := os.ReadFile(name)
			must(t, err)
			must(t, json.Unmarshal(raw, &all))
		}
		if len(all) < 300 {
			t.Fatalf("%s: %d texts: too few were found", lang, len(all))
		}
		return all
	}
	own := read(lang)
	said := map[string]bool{}
	quoted = map[string]bool{}
	for _, text := range own {
		said[text] = true
		for _, m := range regexp.MustCompile(`\*\*([^*]+)\*\*`).FindAllStringSubmatch(text, -1) {
			quoted[m[1]] = true
		}
	}
	whole = map[string]string{}
	var some []string
	value := regexp.MustCompile(`%[sd]`)
	for key, text := range read("en") {
		switch fixed := value.ReplaceAllString(text, ""); {
		case said[text]:
		case fixed == text:
			whole[text] = key
		case len(strings.Fields(fixed)) >= 2: // with less, somebody's name may be like it
			some = append(some, strings.Join(each(value.Split(text, -1), regexp.QuoteMeta), ".+"))
		}
	}
	return whole, quoted, regexp.MustCompile("^(?:" + strings.Join(some, "|") + ")$")
}

func each(in []string, fn func(string) string) []string {
	out := make([]string, len(in))
	for i := range in {
		out[i] = fn(in[i])
	}
	return out
}

// Every page of the console, and every dialog on it, in the other languages, on
// a desk and on a phone: no English is left, nothing is cut off or sticks out.
func TestConsoleInEveryLanguage(t *testing.T) {
	t.Parallel()
	g := newConsole(t, `  - {source: op, claim: groups, value: eng, group: board}
  - {source: op, claim: groups, value: ops, group: odd name}
sync: {group_names: "[a-z]+", guard: {max_removed_users: 1, window: 1h}}
`)
	g.made("DELETE", "/groups/empty", nil)
	for _, name := range []string{"bob", "alice"} { // the guard stops at the second
		g.op.SetPerson(person(name))
		g.enter(t, name)
	}
	g.made("PATCH", "/groups/operations", map[string]any{"name": "operators"})
	pages := []string{
		"/groups", "/groups?query=none-such", "/groups/engineering", "/groups/board", "/groups/operators", "/rules", "/rules?query=none-such",
		"/rules?new=1&source=op&claim=groups&value=ops", "/people", "/people?query=none-such", "/people/" + g.user("alice"), "/people/" + g.user("dora"),
		"/explain", "/explain?source=op&user=" + g.user("carol"), "/sources", "/sync", "/audit", "/audit?user=none-such", "/targets", "/help/first-mapping", "/nowhere",
	}
	for _, lang := range []string{"de", "fr", "es", "cs"} {
		t.Run(lang, func(t *testing.T) {
			how := wide
			how.Locale = lang + "-" + strings.ToUpper(lang)
			s := g.surf(t, how)
			whole, quoted, parts := english(t, lang)
			judge := func(path string) {
				t.Helper()
				for _, size := range [][2]int{{1280, 800}, {390, 844}} {
					s.do(step{"size": size}, nil)
					var got surveyed
					s.do(step{"survey": true}, &got)
					at := fmt.Sprintf("%s at %d px", path, size[0])
					if got.Lang != lang || len(got.Texts) < 5 {
						t.Errorf("%s: in %q, %d texts", at, got.Lang, len(got.Texts))
					}
					for _, cut := range got.Clipped {
						t.Errorf("%s: %s", at, cut)
					}
					for _, text := range got.Texts {
						if strings.HasPrefix(path, "/help/") && quoted[text] {
							continue
						}
						if key := whole[text]; key != "" || parts.MatchString(text) {
							t.Errorf("%s: English: %q %s", at, text, key)
						}
					}
				}
			}
			s.open("/login")
			judge("/login")
			s.signIn("/groups")
			for _, section := range s.attribute("href", "header.top nav a, .who a") {
				if !slices.Contains(pages, section) {
					t.Errorf("%s is not looked at", section)
				}
			}
			for _, path := range pages {
				s.open(path)
				if path == "/nowhere" {
					s.status(http.StatusNotFound)
				} else {
					s.status(http.StatusOK)
				}
				switch {
				case strings.HasPrefix(path, "/rules?new"):
					s.see("#rule-known table")
				case strings.HasPrefix(path, "/explain?"):
					s.click("#explain .primary")
					s.see("#explain-result h2")
				}
				judge(path)
				if path == map[string]string{"de": "/sync", "fr": "/groups/board", "es": "/people", "cs": "/audit"}[lang] {
					s.judge("words-" + lang)
				}
			}
		})
	}
}
