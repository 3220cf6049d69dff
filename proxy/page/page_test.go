package page_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/groupgate/groupgate/proxy/page"
)

// text reads one language's file, flattened to "errors.forbidden.title". A key
// that stands twice is a fault that encoding/json would not see.
func text(t *testing.T, tag string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("text", tag+".json"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	var object func(path string)
	object = func(path string) {
		for dec.More() {
			key := token[string](t, dec)
			at := strings.TrimPrefix(path+"."+key, ".")
			switch v := token[any](t, dec).(type) {
			case string:
				if _, twice := out[at]; twice {
					t.Errorf("%s: %s stands twice", tag, at)
				}
				out[at] = v
			case json.Delim:
				object(at)
			default:
				t.Errorf("%s: %s is %v", tag, at, v)
			}
		}
		token[json.Delim](t, dec) // the closing brace
	}
	token[json.Delim](t, dec)
	object("")
	return out
}

func token[T any](t *testing.T, dec *json.Decoder) T {
	t.Helper()
	got, err := dec.Token()
	if err != nil {
		t.Fatal(err)
	}
	v, ok := got.(T)
	if !ok {
		t.Fatalf("%v, which is a %T", got, got)
	}
	return v
}

var tags = []string{"en", "de", "fr", "es", "cs"}

// No language lacks a text, has one too many, or an English one by oversight.
func TestEveryLanguageHasEveryText(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(os.DirFS("text"), "*.json")
	if err != nil || len(files) != len(tags) {
		t.Fatalf("%q, %v", files, err)
	}
	placeholders := regexp.MustCompile(`%[a-z]|[{}<>]`)
	all := map[string]map[string]string{}
	for _, tag := range tags {
		all[tag] = text(t, tag)
	}
	for _, tag := range tags {
		same := map[string]string{} // text to key, of titles
		for key, english := range all["en"] {
			mine, there := all[tag][key]
			switch {
			case !there || strings.TrimSpace(mine) != mine || mine == "":
				t.Errorf("%s: %s is %q", tag, key, mine)
			case tag != "en" && mine == english:
				t.Errorf("%s: %s is the English text", tag, key)
			case !slices.Equal(placeholders.FindAllString(mine, -1), placeholders.FindAllString(english, -1)):
				t.Errorf("%s: %s has other placeholders: %q", tag, key, mine)
			}
			if strings.HasSuffix(key, ".title") {
				if other := same[mine]; other != "" {
					t.Errorf("%s: %s and %s have one title", tag, key, other)
				}
				same[mine] = key
			}
			if strings.HasSuffix(key, ".text") || strings.HasSuffix(key, ".do") {
				if !strings.HasSuffix(mine, ".") || strings.Contains(mine, "'") || strings.Contains(mine, "  ") {
					t.Errorf("%s: %s is not whole sentences in good type: %q", tag, key, mine)
				}
			}
		}
		for key := range all[tag] {
			if _, there := all["en"][key]; !there {
				t.Errorf("%s: %s is nobody's", tag, key)
			}
		}
	}
}

// In French a narrow space stands before ; ? and !, a wide one before the
// colon, and neither may break the line.
func TestFrenchSpaces(t *testing.T) {
	t.Parallel()
	bad := regexp.MustCompile("[^\u202f][;?!]|[^\u00a0]:")
	for key, s := range text(t, "fr") {
		if m := bad.FindString(s); m != "" {
			t.Errorf("%s: %q in %q", key, m, s)
		}
	}
	if !bad.MatchString("ceci ; cela") || bad.MatchString("compte\u202f?") {
		t.Error("the expression sees nothing")
	}
}

// Every code that an answer can have has its three texts, and no other code
// has any.
func TestEveryCodeHasWords(t *testing.T) {
	t.Parallel()
	codes := proxyCodes(t)
	words := text(t, "en")
	for _, code := range codes {
		for _, part := range []string{"title", "text", "do"} {
			if words["errors."+code+"."+part] == "" {
				t.Errorf("%s has no %s", code, part)
			}
		}
	}
	for key := range words {
		if parts := strings.Split(key, "."); parts[0] == "errors" && !slices.Contains(codes, parts[1]) {
			t.Errorf("%s: no answer has that code", key)
		}
	}
}

// proxyCodes reads the codes out of the one table of answers.
func proxyCodes(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "errors.go"))
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, m := range regexp.MustCompile(`\bcode: +"([a-z_]+)"`).FindAllStringSubmatch(string(raw), -1) {
		codes = append(codes, m[1])
	}
	if len(codes) < 20 || !slices.Contains(codes, "internal") {
		t.Fatalf("the table is not where this test thinks: %q", codes)
	}
	return codes
}

func TestChoosingALanguage(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("nn-NO,", 50) + "de" // past what is read
	for accept, want := range map[string]string{
		"": "en", "*": "en", "de": "de", "DE-at": "de", "de_CH": "de", "gsw": "de", "fr-CA,fr;q=0.8,en;q=0.5": "fr", "es-419,es;q=0.9": "es",
		"cs": "cs", "cs-CZ,cs;q=0.9,en;q=0.8": "cs", "en;q=0.1,de;q=0.9": "de", "de;q=0,fr": "fr", "de;q=0": "en",
		"pl,cs;q=0.5": "cs", "ja": "en", "ja,ar": "en", "en-GB,de": "en",
		// What nobody can read.
		"de;q=x": "en", "not a language": "en", "de,\x00": "en", "\xff\xfe": "en", ";;;,,,": "en",
		long: "en", "fr," + long: "fr", strings.Repeat("d", 1000): "en",
	} {
		if got := page.In(accept).Tag; got != want {
			t.Errorf("%.60q gets %s, want %s", accept, got, want)
		}
	}
}

// CVE-2022-32149 and its like: a hostile header costs no more than a short one.
func TestHostileLanguageHeaderCostsNothing(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"-", "a-", "de-DE,", "sr-Latn-x-a-b-c,", "de-u-co-phonebk-", ",", "i-", "en-GB-oed,"} {
		huge := strings.Repeat(unit, 120_000/len(unit))
		began := time.Now()
		for range 100 {
			page.In(huge)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%q again and again: 100 took %v", unit, took)
		}
	}
}

const evil = `"><script>alert(1)</script><img src=x onerror='alert(1)'>` + "`${1}`" + `&lt;<b>javascript:alert(1)//{{.}}`

// everyPage makes every page there is, with hostile data, in one language.
func everyPage(t *testing.T, l *page.Language) map[string]string {
	t.Helper()
	out := map[string]string{}
	render := func(name string, d page.Data) {
		b, err := l.Render(d)
		if err != nil {
			t.Fatalf("%s, %s: %v", l.Tag, name, err)
		}
		out[name] = string(b)
	}
	render("sign in", page.SignIn{Sources: []page.Source{{Label: evil, URL: "/_auth/start?source=" + evil}, {Label: "Other", URL: "javascript:alert(1)"}}})
	render("continue", page.Continue{To: "https://idp.example/slo?x=" + evil, Fields: map[string]string{"SAMLResponse": "QQ==", "RelayState": evil}})
	login := page.Login{Source: evil, Action: "/_auth/login/corp", Token: evil, User: evil, Others: "/_auth/sign_in?rd=" + evil, Onward: "https://eng.example.com"}
	render("login", login)
	login.Code, login.Others = "wrong_password", ""
	render("login again", login)
	login.Code, login.Wait = "too_many_attempts", 30
	render("login later", login)
	password := page.Password{User: evil, Source: evil, Action: "/_auth/password", Token: evil}
	render("password", password)
	password.Code, password.Min = "password_short", 12
	render("password again", password)
	password.Code, password.Min = "wrong_old_password", 0
	render("password wrong", password)
	render("changed", page.PasswordChanged{})
	render("signed out", page.SignedOut{SignIn: "https://portal.example.com/_auth/sign_in"})
	for _, code := range proxyCodes(t) {
		render(code, page.Error{Code: code, Status: 400, RequestID: "abcd-1", SignIn: "/_auth/sign_in"})
	}
	render("refusal", page.Error{
		Code: "forbidden", Status: 403, RequestID: "abcd-1", SignOut: "/_auth/sign_out",
		User: evil, Email: "mail " + evil, Source: evil, Wanted: []string{evil}, Groups: []string{evil, "engineering"},
	})
	render("reload", page.Error{Code: "upstream_unreachable", Status: 502, RequestID: "abcd-1", Reload: true})
	return out
}

// SC-05: names of people, groups and sources are text in every language; a
// page has no script, no handler, no style but ours, and loads nothing.
func TestPagesHoldNoForeignMarkup(t *testing.T) {
	t.Parallel()
	known := []string{"html", "head", "meta", "title", "style", "body", "main", "svg", "circle", "path", "rect", "h1", "p", "ul", "li", "a", "span", "dl", "div", "dt", "dd", "strong", "br", "code"}
	attributes := []string{"lang", "charset", "name", "content", "class", "href", "aria-hidden", "focusable",
		"viewbox", "width", "height", "fill", "stroke", "stroke-width", "stroke-linecap", "stroke-linejoin", "cx", "cy", "r", "d", "x", "y", "rx"}
	// On the pages that send a form. One of them has a script.
	form, ofForm := []string{"form", "input", "button"}, []string{"method", "action", "type", "value"}
	ofFields := []string{"id", "for", "role", "hidden", "required", "autofocus", "autocomplete", "autocapitalize", "autocorrect", "spellcheck", "aria-invalid", "aria-describedby"}
	for _, tag := range tags {
		for name, body := range everyPage(t, page.In(tag)) {
			known, attributes := known, attributes
			switch word, _, _ := strings.Cut(name, " "); word {
			case "continue":
				known, attributes = slices.Concat(known, form, []string{"script"}), slices.Concat(attributes, ofForm)
			case "login", "password":
				known, attributes = slices.Concat(known, form, []string{"label"}), slices.Concat(attributes, ofForm, ofFields)
			}
			doc := parse(t, body)
			for n := range doc.Descendants() {
				if n.Type != html.ElementNode {
					continue
				}
				if !slices.Contains(known, n.Data) {
					t.Errorf("%s, %s: there is a <%s>", tag, name, n.Data)
				}
				for _, a := range n.Attr {
					if !slices.Contains(attributes, strings.ToLower(a.Key)) {
						t.Errorf("%s, %s: <%s> has %s", tag, name, n.Data, a.Key)
					}
					if a.Key == "href" && a.Val != "" && !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "https://portal.example.com/") && !strings.HasPrefix(a.Val, "#") {
						t.Errorf("%s, %s: a link to %q", tag, name, a.Val)
					}
				}
			}
			if name == "refusal" && strings.Count(words(doc), evil) != 5 {
				t.Errorf("%s: the names are not shown as they are: %s", tag, words(doc))
			}
		}
	}
}

// SC-06: the page that sends a form says what it was given and nothing else,
// whatever that is, and the policy allows its one script and style as they are.
func TestContinue(t *testing.T) {
	t.Parallel()
	fields := map[string]string{"SAMLResponse": "PHNhbWw+", "RelayState": evil, evil: `a"b'c`}
	to := `https://idp.example:8443/slo?a=1&b="><script>alert(1)</script>`
	d := page.Continue{To: to, Fields: fields}
	for _, tag := range tags {
		b, err := page.In(tag).Render(d)
		if err != nil {
			t.Fatal(err)
		}
		policy := d.Policy()
		got, scripts, forms, buttons := map[string]string{}, 0, 0, 0
		for n := range parse(t, string(b)).Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			at := map[string]string{}
			for _, a := range n.Attr {
				at[a.Key] = a.Val
			}
			switch n.Data {
			case "script", "style":
				sum := sha256.Sum256([]byte(n.FirstChild.Data))
				if want := n.Data + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, want) {
					t.Errorf("%s: the policy %q lacks %q", tag, policy, want)
				}
				if n.Data == "script" {
					scripts++
				}
			case "form":
				forms++
				if !strings.HasPrefix(at["action"], "https://idp.example:8443/slo?a=1&b=") || strings.ContainsAny(at["action"], "<>\"") || at["method"] != "post" {
					t.Errorf("%s: the form is %v", tag, at)
				}
			case "input":
				got[at["name"]] = at["value"]
			case "button":
				buttons++
			}
		}
		if !maps.Equal(got, fields) || scripts != 1 || forms != 1 || buttons != 1 {
			t.Errorf("%s: %d scripts, %d forms, %d buttons, fields %q", tag, scripts, forms, buttons, got)
		}
		for _, want := range []string{"default-src 'none'", "form-action https://idp.example:8443", "frame-ancestors https://idp.example:8443", "base-uri 'none'"} {
			if !slices.Contains(strings.Split(policy, "; "), want) && !strings.Contains(policy, want+" ") {
				t.Errorf("the policy %q lacks %q", policy, want)
			}
		}
	}
	for _, to := range []string{"javascript:alert(1)", "data:text/html,x", "::"} {
		d := page.Continue{To: to}
		b, err := page.In("en").Render(d)
		if err != nil || strings.Contains(string(b), to) || !strings.Contains(d.Policy(), "form-action 'none';") || !strings.HasSuffix(d.Policy(), "frame-ancestors 'none'") {
			t.Errorf("%s: %v: %s", to, err, d.Policy())
		}
	}
}

// LD-16: the forms have what password managers and screen readers go by, keep
// what was typed, and say what was wrong; the policy lets them go to ourselves,
// and on by the redirects that browsers hold it to.
func TestPasswordForms(t *testing.T) {
	t.Parallel()
	d := page.Login{Source: "Company", Action: "/_auth/login/corp", Token: "tok", User: evil, Others: "/_auth/sign_in"}
	if got := d.Policy(); !strings.Contains(got, "form-action 'self' https:;") || !strings.Contains(got, "frame-ancestors 'none'") || strings.Contains(got, "script-src") {
		t.Errorf("the policy %q", got)
	}
	d.Onward = "http://eng.localhost:4180"
	if got := d.Policy(); !strings.Contains(got, "form-action 'self' https: http://eng.localhost:4180;") {
		t.Errorf("the policy %q", got)
	}
	for _, tag := range tags {
		for _, c := range []struct {
			code, said string
			wait       int
			invalid    bool
		}{{"", "", 0, false}, {"wrong_password", "", 0, true}, {"too_many_attempts", "30\u00a0s", 30, false}, {"too_many_attempts", "8\u00a0min", 421, false}} {
			d.Code, d.Wait = c.code, c.wait
			b, err := page.In(tag).Render(d)
			if err != nil {
				t.Fatal(err)
			}
			fields, alerts, labels := map[string]map[string]string{}, 0, map[string]bool{}
			doc := parse(t, string(b))
			for n := range doc.Descendants() {
				at := map[string]string{}
				for _, a := range n.Attr {
					at[a.Key] = a.Val
				}
				switch {
				case n.Data == "input":
					fields[at["name"]] = at
				case n.Data == "label":
					labels[at["for"]] = true
				case at["role"] == "alert":
					alerts++
					if said := words(n); at["id"] != "fault" || len(said) < 20 || !strings.Contains(said, c.said) {
						t.Errorf("%s: the alert %q", tag, said)
					}
				}
			}
			user, password := fields["username"], fields["password"]
			if len(fields) != 3 || fields["token"]["value"] != "tok" || user["value"] != evil || user["autocomplete"] != "username" ||
				user["autocapitalize"] != "none" || user["spellcheck"] != "false" || password["type"] != "password" ||
				password["autocomplete"] != "current-password" || password["value"] != "" || !labels["username"] || !labels["password"] {
				t.Errorf("%s, %q: %v", tag, c.code, fields)
			}
			if told := user["aria-describedby"] == "fault" && password["aria-describedby"] == "fault"; told != (alerts == 1) || told != (c.code != "") {
				t.Errorf("%s, %q: %d alerts, %v", tag, c.code, alerts, fields)
			}
			if (password["aria-invalid"] == "true") != c.invalid {
				t.Errorf("%s, %q: %v", tag, c.code, password)
			}
		}
	}
}

func parse(t *testing.T, body string) *html.Node {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// words is the text of a page's main part.
func words(doc *html.Node) string {
	var b strings.Builder
	for n := range doc.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "title" {
			b.WriteString(n.Data)
		}
	}
	return b.String()
}

// Each page of an error says what happened, what to do, and the request's id;
// and its language.
func TestErrorPagesSayThreeThings(t *testing.T) {
	t.Parallel()
	for _, tag := range tags {
		texts := text(t, tag)
		pages := everyPage(t, page.In(tag))
		for _, code := range proxyCodes(t) {
			doc := parse(t, pages[code])
			said := words(doc)
			for _, want := range []string{texts["errors."+code+".title"], texts["errors."+code+".text"], texts["errors."+code+".do"], texts["labels.quote"] + " abcd-1"} {
				if want == "" || !strings.Contains(said, want) {
					t.Errorf("%s, %s: the page lacks %q", tag, code, want)
				}
			}
			if !strings.Contains(pages[code], `<html lang="`+tag+`">`) || !strings.Contains(pages[code], "<title>") {
				t.Errorf("%s, %s: %.200s", tag, code, pages[code])
			}
		}
	}
}

// A list of groups is cut to what a page can show.
func TestLongListsAreCut(t *testing.T) {
	t.Parallel()
	groups := strings.Fields(strings.Repeat("group-name ", 300))
	b, err := page.In("de").Render(page.Error{Code: "forbidden", Status: 403, User: "bob", Wanted: groups, Groups: groups[:20]})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "<li>group-name</li>"); n != 40 || strings.Count(string(b), "Insgesamt: 300") != 1 || strings.Count(string(b), "Insgesamt:") != 1 {
		t.Errorf("%d names: %s", n, b)
	}
}

// What has no words is our fault, in words.
func TestUnknownCode(t *testing.T) {
	t.Parallel()
	b, err := page.In("en").Render(page.Error{Code: "no such code", Status: 500})
	if err != nil || !strings.Contains(string(b), "Something went wrong") || page.Message("no such code") != page.Message("internal") {
		t.Errorf("%v: %s", err, b)
	}
}
