package claimstest

import (
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"slices"
)

const postScript = `document.forms[0].submit()`

const postHTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>Signed in</title>
<style>{{.CSS}}</style>
</head>
<body>
<main>
<h1>Signed in</h1>
<form method="post" action="{{.To}}">
{{range .Fields}}<input type="hidden" name="{{.Name}}" value="{{.Value}}">
{{end}}<button>Continue</button>
</form>
</main>
<script>{{.Script}}</script>
</body>
</html>
`

type postField struct{ Name, Value string }

// writePostPage shows a form that sends itself, and a button where there is no
// script.
func writePostPage(w http.ResponseWriter, to string, form url.Values) {
	t, err := template.New("").Parse(postHTML)
	if err != nil {
		http.Error(w, "page", http.StatusInternalServerError)
		return
	}
	data := struct {
		CSS    template.CSS
		Script template.JS
		To     string
		Fields []postField
	}{pageCSS, postScript, to, nil}
	for name, values := range form {
		for _, v := range values {
			data.Fields = append(data.Fields, postField{name, v})
		}
	}
	css, script := sha256.Sum256([]byte(pageCSS)), sha256.Sum256([]byte(postScript))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-"+
		base64.StdEncoding.EncodeToString(css[:])+"'; script-src 'sha256-"+base64.StdEncoding.EncodeToString(script[:])+"'")
	h.Set("X-Content-Type-Options", "nosniff")
	_ = t.Execute(w, data)
}

func (idp *SAMLIdP) page(w http.ResponseWriter) {
	idp.mu.Lock()
	people := slices.Clone(idp.people)
	idp.mu.Unlock()
	data := pageData{Title: "Sign in", Text: "A SAML provider for trying things out. Choose who you are."}
	for _, p := range people {
		data.People = append(data.People, Person{Subject: p.NameID, Description: p.Description})
	}
	writePage(w, data)
}
