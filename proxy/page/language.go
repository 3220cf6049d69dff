package page

import (
	"embed"
	"encoding/json"
	"strings"

	"golang.org/x/text/language"
)

//go:embed text/*.json
var texts embed.FS

// Language is one language that pages are written in.
type Language struct {
	Tag   string // BCP 47
	words words
}

// words are a language's texts, one file in text/.
type words struct {
	SignIn struct {
		Title string `json:"title"`
		Lead  string `json:"lead"`
		Last  string `json:"last"` // beside the source of the last time
	} `json:"sign_in"`
	Login struct {
		Title    string `json:"title"`
		User     string `json:"user"`     // field
		Password string `json:"password"` // field
		Others   string `json:"others"`   // link to the chooser
	} `json:"login"`
	Password struct {
		Title string `json:"title"`
		Lead  string `json:"lead"`
		Old   string `json:"old"`   // field
		New   string `json:"new"`   // field
		Again string `json:"again"` // field
		Min   string `json:"min"`   // before a number of characters
		Save  string `json:"save"`  // button
	} `json:"password"`
	Changed struct {
		Title string `json:"title"`
		Lead  string `json:"lead"`
	} `json:"changed"`
	SignedOut struct {
		Title string `json:"title"`
		Lead  string `json:"lead"`
		Again string `json:"again"`
	} `json:"signed_out"`
	Continue struct {
		Title string `json:"title"`
		Lead  string `json:"lead"`
		Go    string `json:"go"`
	} `json:"continue"`
	Labels struct {
		User      string `json:"user"`       // who is signed in
		Source    string `json:"source"`     // by which source
		Wanted    string `json:"wanted"`     // the groups that a page is open to
		Groups    string `json:"groups"`     // the person's
		NoGroups  string `json:"no_groups"`  // in place of an empty list
		Total     string `json:"total"`      // before the number of a list that is cut
		SignIn    string `json:"sign_in"`    // button
		SignOut   string `json:"sign_out"`   // button
		Reload    string `json:"reload"`     // button
		Wait      string `json:"wait"`       // before a time such as "30 s"
		StartPage string `json:"start_page"` // link
		Quote     string `json:"quote"`      // before the request's id
	} `json:"labels"`
	Errors map[string]faultWords `json:"errors"` // by code
}

// faultWords say what happened, and what the person can do.
type faultWords struct {
	Title string `json:"title"`
	Text  string `json:"text"`
	Do    string `json:"do"`
}

// fault answers the words of a code. A test holds that every code has some.
func (w *words) fault(code string) faultWords {
	if f, ok := w.Errors[code]; ok {
		return f
	}
	return w.Errors["internal"]
}

// languages are those that pages are written in; the first is for everybody
// else.
var languages = load("en", "de", "fr", "es", "cs")

var matcher = language.NewMatcher(tagsOf(languages))

// load reads the embedded files. One that cannot be read is a fault of the
// build, as a template would be.
func load(tags ...string) []*Language {
	all := make([]*Language, len(tags))
	for i, tag := range tags {
		raw, err := texts.ReadFile("text/" + tag + ".json")
		if err != nil {
			panic(err)
		}
		all[i] = &Language{Tag: tag}
		dec := json.NewDecoder(strings.NewReader(string(raw)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&all[i].words); err != nil {
			panic("page: text/" + tag + ".json: " + err.Error())
		}
	}
	return all
}

func tagsOf(all []*Language) []language.Tag {
	tags := make([]language.Tag, len(all))
	for i, l := range all {
		tags[i] = language.MustParse(l.Tag)
	}
	return tags
}

// maxAccepted bounds how much of an Accept-Language header is read: more than
// browsers send, and too little to keep a parser busy.
const maxAccepted = 256

// In chooses by an Accept-Language header (RFC 9110 section 12.5.4). What
// cannot be read, or asks for none of our languages, gets English.
func In(accept string) *Language {
	if len(accept) > maxAccepted {
		end := strings.LastIndexByte(accept[:maxAccepted], ',')
		if end < 0 {
			return languages[0]
		}
		accept = accept[:end]
	}
	wanted, _, err := language.ParseAcceptLanguage(accept)
	if err != nil {
		return languages[0]
	}
	_, i, _ := matcher.Match(wanted...)
	return languages[i]
}

// Message is what happened, in English, for the answers that scripts get.
func Message(code string) string { return languages[0].words.fault(code).Text }
