package claimstest

import (
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
	"slices"
)

// pageCSS is the whole look: no script, nothing from elsewhere.
const pageCSS = `
:root{color-scheme:light dark;--bg:#f4f5f7;--card:#fff;--text:#1d2430;--soft:#5b6575;--line:#d5dae2;--accent:#2456c9}
@media (prefers-color-scheme:dark){:root{--bg:#14171c;--card:#1e232b;--text:#e8ebf0;--soft:#a0a9b8;--line:#353d4a;--accent:#86a8ff}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1rem;background:var(--bg);color:var(--text);font:1rem/1.5 system-ui,sans-serif}
main{width:100%;max-width:26rem;padding:1.75rem;background:var(--card);border:1px solid var(--line);border-radius:.75rem}
h1{margin:0 0 .25rem;font-size:1.3rem}
p{margin:0 0 1.25rem;color:var(--soft)}
button{display:block;width:100%;margin:0 0 .6rem;padding:.75rem 1rem;text-align:left;font:inherit;color:inherit;background:none;border:1px solid var(--line);border-radius:.5rem;cursor:pointer}
button:hover,button:focus-visible{border-color:var(--accent);outline:2px solid var(--accent);outline-offset:1px}
strong{display:block}
small{color:var(--soft)}
.plain{margin:.4rem 0 0;border:0;text-align:center;color:var(--soft)}
`

const pageHTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{.Title}}</title>
<style>{{.CSS}}</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{if .People}}<form method="post">
{{range .People}}<button name="person" value="{{.Subject}}"><strong>{{.Subject}}</strong>{{with .Description}}<small>{{.}}</small>{{end}}</button>
{{end}}<button class="plain" name="cancel" value="yes">Cancel</button>
</form>
{{end}}</main>
</body>
</html>
`

type pageData struct {
	Title, Text string
	CSS         template.CSS
	People      []Person
}

func (op *OP) page(w http.ResponseWriter) {
	op.mu.Lock()
	people := slices.Clone(op.people)
	op.mu.Unlock()
	writePage(w, pageData{Title: "Sign in", Text: "A provider for trying things out. Choose who you are.", People: people})
}

func (op *OP) signedOutPage(w http.ResponseWriter) {
	writePage(w, pageData{Title: "Signed out", Text: "You may close this page."})
}

func writePage(w http.ResponseWriter, data pageData) {
	t, err := template.New("").Parse(pageHTML)
	if err != nil {
		http.Error(w, "page", http.StatusInternalServerError)
		return
	}
	data.CSS = pageCSS
	sum := sha256.Sum256([]byte(pageCSS))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	// No form-action: browsers apply it to the redirects after the form too,
	// and those lead to the client.
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-"+
		base64.StdEncoding.EncodeToString(sum[:])+"'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	_ = t.Execute(w, data)
}
