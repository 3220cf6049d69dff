package admin

import (
	"fmt"
	"html/template"
	"strings"
)

// Who audit events, memberships and the guard name as the one who did it. A
// person is written with a mark in front, because a user may be called
// "administrator": what stands without it is no person. Events of before the
// mark was made name persons without it, and stay as they are.
const (
	actorAPI   = "api"           // a program, by the token
	actorToken = "administrator" // the console, by the token
	personMark = "user:"
)

// personActor is how a person is named. Nobody stays nobody.
func personActor(name string) string {
	if name == "" {
		return ""
	}
	return personMark + name
}

// Others that are not persons: what a rule's change did, a source that ended a
// session, a program beside the server.
const (
	actorRules         = "rules"
	actorConfiguration = "configuration"
	actorCommand       = "command line"
	sourceMark         = "source "
)

// By is who did something, for people to read: a person by name, and what is no
// person in a badge, which no user name can look like.
func (f *frame) By(actor string) template.HTML {
	if name, is := strings.CutPrefix(actor, personMark); is {
		return template.HTML(template.HTMLEscapeString(name))
	}
	text := ""
	switch actor {
	case actorAPI:
		text = f.T("actor.api")
	case actorToken:
		text = f.T("actor.token")
	case actorRules:
		text = f.T("actor.rules")
	case actorConfiguration:
		text = f.T("actor.configuration")
	case actorCommand:
		text = f.T("actor.command")
	default:
		name, is := strings.CutPrefix(actor, sourceMark)
		if !is {
			return template.HTML(template.HTMLEscapeString(actor)) // a person of before
		}
		text = f.T("actor.source", name)
	}
	return template.HTML(`<span class="badge">` + template.HTMLEscapeString(text) + `</span>`)
}

// ByIn is a text with who did it in it.
func (f *frame) ByIn(key, actor string) template.HTML {
	return template.HTML(fmt.Sprintf(template.HTMLEscapeString(f.T(key)), f.By(actor)))
}
