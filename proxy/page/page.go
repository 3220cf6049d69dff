// Package page holds the pages people see: the chooser of sources, errors, the
// refusal by group, and the good-bye. They are embedded and load nothing from
// anywhere; [Policy] forbids it as well.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
)

//go:embed style.css
var style string

//go:embed pages.html
var pages string

var templates = template.Must(template.New("").Parse(pages))

// Policy is the Content-Security-Policy of every page: nothing but the one
// embedded style sheet, no scripts, no frames, forms to ourselves only.
var Policy = "default-src 'none'; style-src 'sha256-" + digest(style) +
	"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// SignIn is the chooser of sources.
type SignIn struct{ Sources []Source }

// Source is one way to sign in.
type Source struct{ Label, URL string }

// Error is every page that says no. User is empty for somebody who has not
// signed in; Wanted and Groups are for a refusal by group.
type Error struct {
	Status      int
	Title, Text string
	RequestID   string
	SignIn      string // address to start again at; empty: not offered
	SignOut     string
	User, Email string
	Source      string
	Wanted      []string
	Groups      []string
}

// SignedOut is the good-bye.
type SignedOut struct{ SignIn string }

// WriteSignIn writes the chooser.
func WriteSignIn(w io.Writer, d SignIn) error { return write(w, "signin", "Sign in", d) }

// WriteError writes a page that says no.
func WriteError(w io.Writer, d Error) error { return write(w, "error", d.Title, d) }

// WriteSignedOut writes the good-bye.
func WriteSignedOut(w io.Writer, d SignedOut) error { return write(w, "signedout", "Signed out", d) }

func write(w io.Writer, name, title string, data any) error {
	var body bytes.Buffer
	if err := templates.ExecuteTemplate(&body, name, data); err != nil {
		return err
	}
	var out bytes.Buffer
	err := templates.ExecuteTemplate(&out, "layout", struct {
		Title string
		Style template.CSS
		Body  template.HTML
	}{title, template.CSS(style), template.HTML(body.String())}) // both are our own output
	if err != nil {
		return err
	}
	_, err = w.Write(out.Bytes())
	return err
}
