// Package page holds the pages people see: the chooser of sources, the forms
// for a password, errors, the refusal by group, and the good-bye, in five languages. They are embedded and
// load nothing from anywhere; [Policy] forbids it as well.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/url"
	"strconv"
	"strings"
)

//go:embed style.css
var style string

//go:embed pages.html
var pages string

var templates = template.Must(template.New("").Parse(pages))

// Policy is the Content-Security-Policy of every page: nothing but the one
// embedded style sheet, no scripts, no frames, forms to ourselves only. [Continue] and [Login] need others.
var Policy = "default-src 'none'; style-src 'sha256-" + digest(style) +
	"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Data is what one page says beside its words.
type Data interface {
	template() string
	title(w *words) string
}

// SignIn is the chooser of sources.
type SignIn struct{ Sources []Source }

// Source is one way to sign in.
type Source struct {
	Label, URL string
	Last       bool // this browser signed in by it the last time
}

// Login is the form for a user name and a password.
type Login struct {
	Source string // its label
	Action string // address that takes the form
	Token  string // what the form proves itself by
	User   string // kept from the time before
	Others string // address of the chooser; empty: there is nothing to choose
	Onward string // origin that the login leads to, when it is not ours
	Code   string // what was wrong the time before; empty: nothing
	Wait   int    // seconds, when it was tried too often
}

// Policy is [Policy] for a form after which the browser goes on: browsers hold
// form-action to redirects after the form too, and the application may send it
// to any place of its own.
func (d Login) Policy() string {
	return strings.Replace(Policy, "form-action 'self'", strings.TrimSpace("form-action 'self' https: "+d.Onward), 1)
}

// Password is the form by which a person changes the password.
type Password struct {
	User   string // whose password it is, for those that keep passwords
	Source string // its label
	Action string
	Token  string
	Min    int    // characters of a new password; 0: it does not say
	Code   string // as in Login
	Wait   int
}

// PasswordChanged says that the new password counts.
type PasswordChanged struct{}

// Error is every page that says no. User is empty for somebody who has not
// signed in; Wanted and Groups are for a refusal by group.
type Error struct {
	Code        string // which words
	Status      int
	RequestID   string
	SignIn      string // address to start again at; empty: not offered
	Reload      bool   // offer to ask for the same page again
	SignOut     string
	User, Email string
	Source      string
	Wanted      []string
	Groups      []string
}

// Continue sends a browser on with a message, by a form that posts itself and
// has a button where there are no scripts. Its answer has the policy of
// [Continue.Policy].
type Continue struct {
	To     string
	Fields map[string]string
}

// postScript is the only script on any page.
const postScript = "document.forms[0].submit()"

// Script is the text that Policy allows.
func (Continue) Script() template.JS { return postScript }

// Policy is [Policy] with the one script, for a form that goes to where the
// message does. That site may show the page in a frame: providers sign people
// out of many applications that way. Browsers hold form-action to redirects
// after the form too, and the provider may send the browser on to the next
// application, or back to us: hence ourselves and every https address.
func (d Continue) Policy() string {
	origin, next := "'none'", ""
	if u, err := url.Parse(d.To); err == nil && u.Host != "" {
		origin, next = u.Scheme+"://"+u.Host, " 'self' https:"
	}
	return "default-src 'none'; style-src 'sha256-" + digest(style) + "'; script-src 'sha256-" + digest(postScript) +
		"'; form-action " + origin + next + "; base-uri 'none'; frame-ancestors " + origin
}

// SignedOut is the good-bye.
type SignedOut struct{ SignIn string }

func (SignIn) template() string          { return "signin" }
func (Login) template() string           { return "login" }
func (Password) template() string        { return "password" }
func (PasswordChanged) template() string { return "changed" }
func (Error) template() string           { return "error" }
func (SignedOut) template() string       { return "signedout" }
func (Continue) template() string        { return "continue" }

func (SignIn) title(w *words) string          { return w.SignIn.Title }
func (Login) title(w *words) string           { return w.Login.Title }
func (Password) title(w *words) string        { return w.Password.Title }
func (PasswordChanged) title(w *words) string { return w.Changed.Title }
func (d Error) title(w *words) string         { return w.fault(d.Code).Title }
func (SignedOut) title(w *words) string       { return w.SignedOut.Title }
func (Continue) title(w *words) string        { return w.Continue.Title }

// What a page says about something that went wrong.
func (d Login) code() string    { return d.Code }
func (d Password) code() string { return d.Code }
func (d Error) code() string    { return d.Code }

// Waiting is how long, in units that every language writes alike.
func (d Login) Waiting() string { return waiting(d.Wait) }

// Waiting is as of [Login].
func (d Password) Waiting() string { return waiting(d.Wait) }

func waiting(seconds int) string {
	switch {
	case seconds <= 0:
		return ""
	case seconds <= 90:
		return strconv.Itoa(seconds) + "\u00a0s"
	}
	return strconv.Itoa((seconds+59)/60) + "\u00a0min"
}

// Invalid reports whether the fields say that they were wrong.
func (d Login) Invalid() bool { return d.Code == "wrong_password" }

// InvalidOld reports whether the old password was wrong.
func (d Password) InvalidOld() bool { return d.Code == "wrong_old_password" }

// InvalidNew reports whether the new one was.
func (d Password) InvalidNew() bool { return d.Code != "" && d.Wait == 0 && !d.InvalidOld() }

// shownGroups is how many names a page lists: enough to recognise oneself by,
// and few enough for a phone.
const shownGroups = 20

// Tags is a list of names, cut to what a page shows.
type Tags struct {
	Names []string
	Total int // 0: nothing was cut
}

func tags(names []string) Tags {
	if len(names) > shownGroups {
		return Tags{names[:shownGroups], len(names)}
	}
	return Tags{names, 0}
}

// WantedTags are the groups that a route is open to.
func (d Error) WantedTags() Tags { return tags(d.Wanted) }

// GroupTags are the person's groups.
func (d Error) GroupTags() Tags { return tags(d.Groups) }

// Render makes the page of some data in this language.
func (l *Language) Render(d Data) ([]byte, error) {
	var fault faultWords
	if e, is := d.(interface{ code() string }); is && e.code() != "" {
		fault = l.words.fault(e.code())
	}
	var body, out bytes.Buffer
	err := templates.ExecuteTemplate(&body, d.template(), struct {
		W     *words
		Fault faultWords
		D     Data
	}{&l.words, fault, d})
	if err != nil {
		return nil, err
	}
	err = templates.ExecuteTemplate(&out, "layout", struct {
		Lang, Title string
		Style       template.CSS
		Body        template.HTML
	}{l.Tag, d.title(&l.words), template.CSS(style), template.HTML(body.String())}) // both are our own output
	return out.Bytes(), err
}
