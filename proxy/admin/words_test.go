package admin_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sameWords are texts that are right in another language although they are the
// English ones: names, and words that the languages share.
var sameWords = map[string]string{
	"SSO": "de fr es cs", "DN": "de fr es cs", "CSV": "de fr es cs", "Token": "de", "Claim": "de", "Manual": "es", "Control": "es", "Host": "de es",
	"E-mail": "fr cs", "Description": "fr", "Sessions": "fr", "Condition": "fr", "absent": "fr", "Source": "fr", "Sources": "fr",
	"Verdict": "fr", "Actions": "fr", "Console": "fr", "exact": "fr", "Name": "de", "Claims (JSON)": "de", "Header": "de", "Person": "de", "Export": "de cs", "Import": "de cs",
	"OpenID Connect": "de fr es cs", "SAML 2.0": "de fr es cs", "(SSO: %s)": "de es cs", "Problem": "de",
}

// readTexts reads a language's files as the console does.
func readTexts(t *testing.T, lang string) map[string]string {
	t.Helper()
	names, err := filepath.Glob("ui/text/" + lang + "/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no texts in %s: %v", lang, err)
	}
	all := map[string]string{}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var some map[string]string
		if err := json.Unmarshal(raw, &some); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		maps.Copy(all, some)
	}
	return all
}

var verb = regexp.MustCompile(`%[^%\s]|%%`)

// Every language says everything, in its own words, with the same values in the
// same order.
func TestEveryLanguageSaysEverything(t *testing.T) {
	t.Parallel()
	english := readTexts(t, "en")
	if len(english) < 40 {
		t.Fatalf("%d English texts: too few were found", len(english))
	}
	for key, text := range english {
		if strings.TrimSpace(text) != text || text == "" {
			t.Errorf("en: %s begins or ends with a blank, or is empty", key)
		}
	}
	for _, lang := range []string{"de", "fr", "es", "cs"} {
		texts := readTexts(t, lang)
		for key, text := range english {
			own, there := texts[key]
			switch {
			case !there:
				t.Errorf("%s: %s is missing", lang, key)
			case !slices.Equal(verb.FindAllString(own, -1), verb.FindAllString(text, -1)):
				t.Errorf("%s: %s has other values than in English: %q, %q", lang, key, own, text)
			case own == text && letters.MatchString(text) && !slices.Contains(strings.Fields(sameWords[text]), lang):
				t.Errorf("%s: %s is the English text %q", lang, key, text)
			case strings.TrimSpace(own) != own || own == "":
				t.Errorf("%s: %s begins or ends with a blank, or is empty", lang, key)
			}
		}
		for key := range texts {
			if _, there := english[key]; !there {
				t.Errorf("%s: %s is not there in English", lang, key)
			}
		}
	}
}

var (
	letters = regexp.MustCompile(`[A-Za-z]{2}`)
	asks    = regexp.MustCompile(`\bT "([^"]+)"|\bT\("([^"]+)"[,)]|title:\s+"([^"]+)"`)
	says    = regexp.MustCompile(`\bsay\(\s*"([^"]+)"\s*[,)]`)
)

// uses are the texts that templates, scripts and code ask for: whole keys,
// beginnings of keys that are put together, and what is asked for for certain.
func uses(t *testing.T) (whole, begun map[string]bool, certain map[string]string) {
	t.Helper()
	whole, begun, certain = map[string]bool{}, map[string]bool{}, map[string]string{}
	for _, pattern := range []string{"ui/*.html", "ui/*.js", "*.go"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			prefix, sure := "", asks
			if strings.HasSuffix(name, ".js") {
				prefix, sure = "js.", says
			}
			for _, m := range literals(string(raw)) {
				if strings.HasSuffix(m, ".") || strings.HasSuffix(m, "_") {
					begun[prefix+m] = true
				}
				whole[prefix+m] = true
			}
			for _, m := range sure.FindAllStringSubmatch(string(raw), -1) {
				key := m[1]
				for _, other := range m[2:] {
					key += other
				}
				if !strings.HasSuffix(key, ".") && !strings.ContainsAny(key, "% ") {
					certain[prefix+key] = name
				}
			}
		}
	}
	return whole, begun, certain
}

var literal = regexp.MustCompile("[\"'`]([a-z][a-z0-9_.-]*)")

// literals are the keys that stand behind a quote, up to the next one or to
// where a value is put in.
func literals(text string) (out []string) {
	for _, m := range literal.FindAllStringSubmatchIndex(text, -1) {
		if m[3] < len(text) && strings.IndexByte("\"'`%$", text[m[3]]) >= 0 {
			out = append(out, text[m[2]:m[3]])
		}
	}
	return out
}

// Every text that is asked for is there, and every text is asked for.
func TestTextsAreThoseThatAreUsed(t *testing.T) {
	t.Parallel()
	english := readTexts(t, "en")
	whole, begun, certain := uses(t)
	if len(certain) < 20 {
		t.Fatalf("%d uses of texts: too few were found", len(certain))
	}
	for key, file := range certain {
		if _, there := english[key]; !there {
			t.Errorf("%s asks for %s, which is not there", file, key)
		}
	}
	for key := range english {
		if whole[key] {
			continue
		}
		put := false
		for i := range key {
			put = put || (key[i] == '.' || key[i] == '_') && begun[key[:i+1]] && key[:i+1] != "js."
		}
		if !put {
			t.Errorf("nothing uses %s", key)
		}
	}
}
