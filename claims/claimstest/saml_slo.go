package claimstest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// logoutMetadata are the addresses of single logout.
func (idp *SAMLIdP) logoutMetadata(o SAMLOptions) string {
	out := ""
	for _, b := range [][2]string{{"redirect", SAMLRedirect}, {"post", SAMLPost}} {
		if o.Logout != "" && o.Logout != b[0] {
			continue
		}
		answers := ""
		if o.LogoutAnswers {
			answers = idp.URL + "/slo/answers"
		}
		out += `<md:SingleLogoutService` + xmlAttr("Binding", b[1]) + xmlAttr("Location", idp.URL+"/slo") + optionalAttr("ResponseLocation", answers) + `/>`
	}
	return out
}

// LieAboutLogout changes how the provider answers a service's request.
func (idp *SAMLIdP) LieAboutLogout(lies SAMLLogoutKnobs) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.logoutLies = lies
}

// Logouts lists the messages about logout that services sent here and that
// held, the oldest first.
func (idp *SAMLIdP) Logouts() []SAMLLogoutMessage {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	return slices.Clone(idp.logouts)
}

// slo takes messages of services (Profiles 4.4). A request ends the logins it
// names and is answered by the way it came; an answer ends a logout that began
// here.
func (idp *SAMLIdP) slo(w http.ResponseWriter, r *http.Request) {
	var form url.Values
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		if err := r.ParseForm(); err != nil {
			http.Error(w, "the form", http.StatusBadRequest)
			return
		}
		form = r.PostForm
	}
	m, err := idp.ReadLogout(idp.URL+r.URL.RequestURI(), form)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	idp.mu.Lock()
	idp.logouts = append(idp.logouts, *m)
	lies, service := idp.logoutLies, idp.services[m.Service]
	if m.NameID != "" {
		idp.logins = slices.DeleteFunc(idp.logins, func(l SAMLLogin) bool {
			return l.Service == m.Service && l.NameID == m.NameID && (len(m.Sessions) == 0 || slices.Contains(m.Sessions, l.SessionIndex))
		})
	}
	idp.mu.Unlock()
	switch {
	case m.NameID == "":
		writePage(w, pageData{Title: "Signed out", Text: "The service answered " + strings.Join(m.Status, ", ") + "."})
	case m.Binding == SAMLRedirect:
		http.Redirect(w, r, idp.LogoutAnswerQuery(service.slo[SAMLRedirect], m.ID, m.RelayState, lies), http.StatusFound)
	default:
		to := service.slo[SAMLPost]
		writePostPage(w, to, idp.LogoutAnswerForm(to, m.ID, m.RelayState, lies))
	}
}

// logout is a logout that begins here: of the newest login of "person", by the
// binding "post" or else by a redirect.
func (idp *SAMLIdP) logout(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	idp.mu.Lock()
	var last SAMLLogin
	for _, l := range idp.logins {
		if l.NameID == q.Get("person") {
			last = l
		}
	}
	service := idp.services[last.Service]
	idp.mu.Unlock()
	if service == nil {
		http.Error(w, "nobody is signed in at a known service", http.StatusBadRequest)
		return
	}
	l := last.Logout()
	l.RelayState = q.Get("RelayState")
	if q.Get("binding") == "post" {
		writePostPage(w, service.slo[SAMLPost], idp.LogoutForm(service.slo[SAMLPost], l))
		return
	}
	http.Redirect(w, r, idp.LogoutQuery(service.slo[SAMLRedirect], l), http.StatusFound)
}
