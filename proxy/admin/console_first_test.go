package admin_test

import (
	"html"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	helpBlock = regexp.MustCompile(`(?s)<h1>(.*?)</h1>|<h2[^>]*>(.*?)</h2>|<pre>(.*?)</pre>|<p(?: class="([a-z-]+)")?>(.*?)</p>|<dt>(.*?)</dt><dd><code>(.*?)</code></dd>`)
	tag       = regexp.MustCompile(`<[^>]*>`)
)

// helpBlocks are the blocks of the help page, written as Markdown; see are
// those that say what is to be seen.
func helpBlocks(t *testing.T, page string) (blocks, see []string) {
	t.Helper()
	_, main, found := strings.Cut(page, "</noscript>")
	if !found {
		t.Fatalf("no page:\n%s", page)
	}
	main = strings.NewReplacer("<b>", "**", "</b>", "**").Replace(main)
	for _, m := range helpBlock.FindAllStringSubmatch(main, -1) {
		inline := func(s string) string {
			return html.UnescapeString(tag.ReplaceAllString(strings.NewReplacer("<code>", "`", "</code>", "`").Replace(s), ""))
		}
		switch {
		case m[1] != "":
			blocks = append(blocks, "# "+inline(m[1]))
		case m[2] != "":
			blocks = append(blocks, "## "+inline(m[2]))
		case m[3] != "":
			blocks = append(blocks, "``` "+inline(m[3])+" ```")
		case m[6] != "":
			blocks = append(blocks, "- "+inline(m[6])+": `"+inline(m[7])+"`")
		default:
			blocks = append(blocks, inline(m[5]))
			if m[4] == "first-see" {
				see = append(see, inline(m[5]))
			}
		}
	}
	return blocks, see
}

// FIRST-MAPPING.md and the page of the console say the same, word by word.
func TestFirstMappingIsTheSameInTheConsole(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	blocks, see := helpBlocks(t, a.visit("GET", "/help/first-mapping", a.console()).Body.String())
	raw, err := os.ReadFile("FIRST-MAPPING.md")
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for _, block := range strings.Split(strings.ReplaceAll(string(raw), "\n- ", "\n\n- "), "\n\n") {
		if words := strings.Join(strings.Fields(block), " "); words != "" {
			written = append(written, words)
		}
	}
	for i := range max(len(blocks), len(written)) {
		at := func(all []string) string {
			if i < len(all) {
				return all[i]
			}
			return "nothing"
		}
		if at(blocks) != at(written) {
			t.Fatalf("block %d: the console has\n%s\nFIRST-MAPPING.md has\n%s", i+1, at(blocks), at(written))
		}
	}
	// What follows the document knows expectations by their beginning.
	for _, block := range blocks {
		if strings.HasPrefix(block, "You see ") != slices.Contains(see, block) {
			t.Errorf("is it to be seen or to be done? %s", block)
		}
	}
	if len(see) < 10 {
		t.Errorf("only %d things are to be seen", len(see))
	}
}

var (
	otherKey = regexp.MustCompile(`\{([a-z._]+)[^{}]*\}`)
	marks    = regexp.MustCompile("\\{[^{}]+\\}|`[^`]+`|\\*\\*[^*]+\\*\\*|\\b(?:PAGE|CONSOLE|TOKEN)\\b")
)

// Every language has the same steps: the same things to click, to open and to
// see, in the same order, by the words that the console has for them.
func TestFirstMappingHasTheSameStepsInEveryLanguage(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	cookie, english := a.console(), readTexts(t, "en")
	for _, lang := range []string{"en", "de", "fr", "es", "cs"} {
		texts := readTexts(t, lang)
		for key, text := range english {
			if !strings.HasPrefix(key, "first.") {
				continue
			}
			if want, got := marks.FindAllString(text, -1), marks.FindAllString(texts[key], -1); !slices.Equal(got, want) {
				t.Errorf("%s: %s has %q, in English %q", lang, key, got, want)
			}
			for _, m := range otherKey.FindAllStringSubmatch(text, -1) {
				if texts[m[1]] == "" {
					t.Errorf("%s: %s names the text %s, which is not there", lang, key, m[1])
				}
			}
		}
		w := a.visit("GET", "/help/first-mapping", cookie, func(r *http.Request) { r.Header.Set("Accept-Language", lang) })
		_, page, _ := strings.Cut(w.Body.String(), "<main")
		if w.Code != 200 || strings.ContainsAny(page, "{}*") || strings.Contains(page, "%!") || strings.Contains(page, "first.1") {
			t.Errorf("%s: %d, a text is not put in:\n%s", lang, w.Code, page)
		}
		for _, key := range []string{"rules.add", "rules.f_claim", "js.rules_save"} {
			if !strings.Contains(page, html.EscapeString(texts[key])) {
				t.Errorf("%s: the page does not say %q", lang, texts[key])
			}
		}
	}
}

// Who has nothing yet is led there, and so is everybody from the head of a page.
func TestTheWayToFirstMapping(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	cookie := a.console()
	link := `href="/help/first-mapping"`
	for path, want := range map[string]int{"/groups": 2, "/rules?group=none-such": 2, "/rules?query=none-such": 1, "/people": 1, "/help/first-mapping": 1} {
		if n := strings.Count(a.visit("GET", path, cookie).Body.String(), link); n != want {
			t.Errorf("%s has %d links, want %d", path, n, want)
		}
	}
	ok[any](a, 201, "POST", "/groups", `{"name": "board"}`)
	if n := strings.Count(a.visit("GET", "/groups", cookie).Body.String(), link); n != 1 {
		t.Errorf("with a group there are %d links", n)
	}
	if body := a.public("GET", "/help/first-mapping", "").Body.String(); !strings.Contains(body, `href="/_auth/admin/help/first-mapping"`) {
		t.Errorf("on the public host:\n%s", body)
	}
}
