package admin

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	words "github.com/groupgate/groupgate/proxy/page"
)

//go:embed ui
var ui embed.FS

var consoleTemplates = template.Must(template.ParseFS(ui, "ui/*.html"))

// consoleWords are one language's texts: key to text, from all files of the
// language's folder.
type consoleWords struct {
	tag   string
	texts map[string]string
}

func (l *consoleWords) has(key string) bool { _, ok := l.texts[key]; return ok }

var consoleLanguages = loadWords("en", "de", "fr", "es", "cs")

// loadWords reads the embedded files. One that cannot be read is a fault of
// the build, as a template would be.
func loadWords(tags ...string) map[string]*consoleWords {
	all := map[string]*consoleWords{}
	for _, tag := range tags {
		l := &consoleWords{tag, map[string]string{}}
		names, err := fs.Glob(ui, "ui/text/"+tag+"/*.json")
		if err != nil || len(names) == 0 {
			panic("admin: no texts in " + tag)
		}
		for _, name := range names {
			raw, err := ui.ReadFile(name)
			if err != nil {
				panic(err)
			}
			var some map[string]string
			if err := json.Unmarshal(raw, &some); err != nil {
				panic("admin: " + name + ": " + err.Error())
			}
			for key, text := range some {
				if l.has(key) {
					panic("admin: " + name + ": " + key + " stands in another file too")
				}
				l.texts[key] = text
			}
		}
		all[tag] = l
	}
	return all
}

func consoleLanguage(accept string) *consoleWords { return consoleLanguages[words.In(accept).Tag] }

// frame is what every template is given.
type frame struct {
	Lang    *consoleWords
	Base    string
	Actor   string
	Public  bool
	Section string
	Title   string
	Scripts []string
	Targets bool // there are any
	Data    any
	Body    template.HTML

	now time.Time
}

// trusted is our own output.
func trusted(s string) template.HTML { return template.HTML(s) }

// navItem is one entry of the navigation.
type navItem struct {
	URL, Text string
	Here      bool
}

// Nav is the entry of a section.
func (f *frame) Nav(section string) navItem {
	return navItem{f.Path(section), f.T("nav." + section), f.Section == section}
}

// Tag is the language.
func (f *frame) Tag() string { return f.Lang.tag }

// T is the text of a key, with values for its %s and %d.
func (f *frame) T(key string, values ...any) string {
	text, ok := f.Lang.texts[key]
	if !ok {
		return key // a test holds that there is none such
	}
	if len(values) == 0 {
		return text
	}
	return fmt.Sprintf(text, values...)
}

// Path is the address of a page: Path "groups" .Name.
func (f *frame) Path(parts ...string) string { return f.Base + "/" + joined(parts) }

// API is the address of an endpoint: API "groups" .Name "members".
func (f *frame) API(parts ...string) string { return f.Base + apiPrefix + joined(parts) }

func joined(parts []string) string {
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = segmentOf(p)
	}
	return strings.Join(escaped, "/")
}

// SignOut is where the proxy signs people of the public host out. The console
// is beside it.
func (f *frame) SignOut() string { return strings.TrimSuffix(path.Dir(f.Base), "/") + "/sign_out" }

// Asset is the address of an embedded file, which changes with its content.
func (f *frame) Asset(name string) string {
	return f.Base + "/assets/" + name + "?v=" + assetVersions[name]
}

// Time writes a time for people; the zero time is a dash.
func (f *frame) Time(t time.Time) template.HTML {
	if t.IsZero() {
		return "–"
	}
	t = t.UTC()
	return template.HTML(`<time datetime="` + t.Format(time.RFC3339) + `">` + t.Format("2006-01-02 15:04") + `&#8239;UTC</time>`)
}

// JSWords are the texts that scripts need: those whose keys begin with "js.".
func (f *frame) JSWords() (string, error) {
	some := map[string]string{}
	for key, text := range f.Lang.texts {
		if name, ok := strings.CutPrefix(key, "js."); ok {
			some[name] = text
		}
	}
	raw, err := json.Marshal(some)
	return string(raw), err
}

// With makes a query of pairs; an empty value leaves its name out.
func (f *frame) With(pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return "?"
	}
	return "?" + q.Encode()
}

// Count writes a number with thin spaces.
func (f *frame) Count(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return digits
}

var assetVersions = versions()

func versions() map[string]string {
	out := map[string]string{}
	entries, err := ui.ReadDir("ui")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		if _, is := assetTypes[path.Ext(e.Name())]; is {
			raw, err := ui.ReadFile("ui/" + e.Name())
			if err != nil {
				panic(err)
			}
			sum := sha256.Sum256(raw)
			out[e.Name()] = base64.RawURLEncoding.EncodeToString(sum[:6])
		}
	}
	return out
}

var assetTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// asset serves an embedded file. It says nothing about anybody.
func (s *Server) asset(x *exchange, name string) error {
	if assetVersions[name] == "" {
		return errNoPage
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return notAllowed("GET, HEAD")
	}
	raw, err := ui.ReadFile("ui/" + name)
	if err != nil {
		return err
	}
	x.Header().Set("Content-Type", assetTypes[path.Ext(name)])
	if x.r.URL.Query().Get("v") == assetVersions[name] {
		x.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	x.WriteHeader(http.StatusOK)
	if x.r.Method != http.MethodHead {
		_, _ = x.Write(raw) // the client may be gone
	}
	return nil
}
