package main

import (
	_ "embed"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
)

//go:embed application.html
var applicationHTML string

// line is one header line as it arrived.
type line struct {
	Name, Value string
	Ours        bool // set by groupgate
}

// application is an upstream that shows what it received. It knows nothing of
// sessions or providers: the headers are all it has.
func application(w http.ResponseWriter, r *http.Request) {
	t, err := template.New("").Parse(applicationHTML)
	if err != nil {
		http.Error(w, "page", http.StatusInternalServerError)
		return
	}
	data := struct {
		Path, User, Name, Email string
		Groups                  []string
		Lines                   []line
	}{
		Path: r.URL.Path, User: r.Header.Get("X-Forwarded-User"),
		Name: r.Header.Get("X-Forwarded-Preferred-Username"), Email: r.Header.Get("X-Forwarded-Email"),
	}
	if list := r.Header.Get("X-Forwarded-Groups"); list != "" {
		data.Groups = strings.Split(list, ",")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[name] {
			data.Lines = append(data.Lines, line{name, v, ours(name)})
		}
	}
	slices.SortStableFunc(data.Lines, func(a, b line) int {
		switch {
		case a.Ours == b.Ours:
			return 0
		case a.Ours:
			return -1
		default:
			return 1
		}
	})
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	_ = t.Execute(w, data) // the client may be gone
}

func ours(name string) bool {
	switch name {
	case "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups", "X-Groupgate-Assertion":
		return true
	}
	return false
}
