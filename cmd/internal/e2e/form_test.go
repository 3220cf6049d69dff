package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

const (
	alicesPassword = "correct horse battery staple"
	dorasPassword  = "a first password of hers"
)

// formStage is a groupgate with a directory, local users and a provider.
func formStage(t *testing.T, routes string) (*gate, *claimstest.Directory) {
	t.Helper()
	up := newUpstream(t)
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{person("bob")}})
	d := claimstest.StartDirectory(t, claimstest.DirectoryOptions{AD: true})
	for _, name := range []string{"alice", "carol", "erik"} {
		d.Put(d.Person(name, alicesPassword))
	}
	d.Put(d.Group("engineering", d.PersonDN("alice")))
	p := newPlace(t)
	p.write(t, up.URL, fmt.Sprintf(`
  - name: corp
    label: Company directory
    ldap: {url: %q, bind_dn: %q, bind_password: %q, base_dn: %q, ca_file: %q}
  - name: local
    label: Account of this portal
    local: {}
`, d.URLS, d.ServiceDN, d.ServicePassword, d.BaseDN, d.CAFile)+oidc("partner", op.URL, opSecret), `
rules:
  - {source: corp, claim: memberOf, regexp: '(?i)cn=([a-z]+),ou=groups,.*', group: '$1'}
`+routes)
	g := p.start(t)
	local := map[string]string{"user": "dora", "email": "dora@example.com", "name": "Dora Example", "password": dorasPassword}
	if status := g.api("POST", "/users", local, nil); status != http.StatusCreated {
		t.Fatalf("a local user: %d", status)
	}
	return g, d
}

// fill is what a person does at our form.
func fill(user, password string) []step {
	return []step{{"fill": "input[name=username]", "value": user}, {"fill": "input[name=password]", "value": password}, {"click": "button"}}
}

func change(old, changed, again string) []step {
	return []step{
		{"fill": "input[name=old]", "value": old}, {"fill": "input[name=new]", "value": changed}, {"fill": "input[name=again]", "value": again}, {"click": "button"},
	}
}

// The forms in every view, and in every language, with each of their faults, and
// what is right leads on.
func TestChromiumFillsTheForms(t *testing.T) {
	t.Parallel()
	shots := os.Getenv("GROUPGATE_SHOTS") // a folder for pictures; none when empty
	if shots != "" {
		if err := os.MkdirAll(shots, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g, _ := formStage(t, "")
	for i, l := range languages {
		t.Run(l.tag, func(t *testing.T) {
			var names []string
			var steps []step
			look := func(name string, status int) {
				names = append(names, name)
				steps = append(append(steps, step{"status": status}), everyView(name, l.tag, shots)...)
			}
			begin := func(source string) {
				steps = append(steps, step{"goto": g.url() + "/_auth/start?rd=/page/home&source=" + source})
			}
			begin("corp")
			look("login", 200)
			nobody := fmt.Sprint("nobody", i) // an account's bucket would last until the next language
			steps = append(steps, fill(nobody, "not it")...)
			look("login-wrong", 401)
			for range 10 {
				steps = append(steps, fill(nobody, "not it")...)
			}
			look("login-later", 429)
			steps = append(steps, fill("alice", alicesPassword)...)
			steps = append(steps, step{"url": "/page/home"}, step{"expect": "groups: engineering"}, step{"goto": g.url() + "/_auth/sign_in?rd=/page/home"})
			look("chooser-again", 200)
			begin("local")
			password := fmt.Sprint("password number ", i+1, " of hers")
			old := dorasPassword
			if i > 0 {
				old = fmt.Sprint("password number ", i, " of hers")
			}
			steps = append(steps, fill("dora", old)...)
			steps = append(steps, step{"url": "/page/home"}, step{"goto": g.url() + "/_auth/password"})
			look("password", 200)
			steps = append(steps, change("not the one", password, password)...)
			look("password-old", 401)
			steps = append(steps, change(old, "short", "short")...)
			look("password-short", 400)
			steps = append(steps, change(old, password, password)...)
			look("changed", 200)
			all := drive(t, scenario{Width: 1280, Height: 800, Scheme: "light", Locale: l.locale, Pages: []string{g.url()}, Steps: steps})
			checkForms(t, l.tag, names, all)
		})
	}
}

func checkForms(t *testing.T, lang string, names []string, all seen) {
	t.Helper()
	for name, m := range all.Measures {
		checkPage(t, name, lang, m)
	}
	if want := axes(lang) * len(names); len(all.Axe) != want {
		t.Errorf("axe looked at %d, want %d", len(all.Axe), want)
	}
	for name, v := range all.Axe {
		for _, broken := range append(v.Violations, v.Unsure...) {
			t.Errorf("%s: %s", name, broken)
		}
		rules := strings.Join(v.Passes, " ")
		if form := !strings.HasPrefix(name, "chooser") && !strings.HasPrefix(name, "changed"); form != strings.Contains(rules, "autocomplete-valid") || !strings.Contains(rules, "color-contrast") {
			t.Errorf("%s: axe did not see a form: %s", name, rules)
		}
	}
}

// With the keyboard alone, at 320 px: the first field has the focus, Tab goes
// on in the order in which it is read, Enter sends, and what is wrong has the
// focus at the password.
func TestChromiumFillsTheFormByKeyboard(t *testing.T) {
	t.Parallel()
	g, _ := formStage(t, "")
	steps := []step{{"goto": g.url() + "/_auth/start?source=corp&rd=/page/home"}, {"measure": "login"}, {"tabs": "login"},
		{"goto": g.url() + "/_auth/start?source=corp&rd=/page/home"}, {"focused": "input[name=username]"}, {"type": "EXAMPLE\\alice"}, {"tab": "input[name=password]"}, {"type": "not it"}, {"press": "Enter"},
		{"expect": "The user name or the password is wrong."}, {"status": 401}, {"focused": "input[name=password]"}, {"type": alicesPassword}, {"press": "Enter"}, {"url": "/page/home"}, {"expect": "groups: engineering"}}
	all := drive(t, scenario{Width: 320, Height: 640, Scheme: "dark", Pages: []string{g.url()}, Steps: steps})
	checkPage(t, "login", "en", all.Measures["login"])
	var reached []string
	for _, c := range all.Tabs["login"] {
		reached = append(reached, c.Text)
		if c.Outline < 2 || !c.Inside {
			t.Errorf("one does not see where one is: %+v", c)
		}
	}
	// From the first field, which has the focus to begin with.
	if got := strings.Join(reached, ", "); got != "Password, Sign in, Other ways to sign in" || all.Measures["login"].Controls != 4 {
		t.Errorf("Tab reaches %s of %d", got, all.Measures["login"].Controls)
	}
}

// Browsers hold form-action to the redirects after the form: the application
// may send its people wherever it likes all the same.
func TestChromiumGoesOnAfterTheForm(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/onward/" {
			w.Header().Set("Location", "https://elsewhere.test/landed")
			w.WriteHeader(http.StatusFound)
		}
	}))
	t.Cleanup(elsewhere.Close)
	g, _ := formStage(t, fmt.Sprintf("routes: [{path: /onward/, upstream: %q}]\n", elsewhere.URL))
	steps := append([]step{{"goto": g.url() + "/_auth/start?source=corp&rd=/onward/"}}, fill("alice", alicesPassword)...)
	// There is no such host: what counts is that the form is not there any more.
	all := drive(t, scenario{Width: 800, Height: 600, Scheme: "light", Pages: []string{g.url()}, Steps: append(steps, step{"measure": "after"})})
	if got := all.Measures["after"]; got.Title == "Sign in with a password" {
		t.Errorf("the browser stayed: %+v", got)
	}
}

// LD-16: another site can neither frame the form nor send one of its own.
func TestChromiumKeepsTheFormFromOtherSites(t *testing.T) {
	t.Parallel()
	g, d := formStage(t, "")
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		form := g.url() + "/_auth/login/corp"
		if r.URL.Path == "/frame" {
			fmt.Fprintf(w, `<!doctype html><title>evil</title><iframe src="%s/_auth/start?source=corp"></iframe><p>framed`, g.url())
			return
		}
		fmt.Fprintf(w, `<!doctype html><title>evil</title><form method="post" action="%s"><input name="username" value="alice"><input name="password" value="%s"><input name="token" value="%s"><button>go</button></form>`,
			form, alicesPassword, url.QueryEscape(r.URL.Query().Get("token")))
	}))
	t.Cleanup(evil.Close)
	other := strings.Replace(evil.URL, "127.0.0.1", "localhost", 1) // another site, not only another origin
	stranger := newBrowser(t)
	token := get(t, stranger, g.url()+"/_auth/start?source=corp").Forms()[0].Fields["token"]
	all := look(t, scenario{Width: 800, Height: 600, Scheme: "light", Pages: []string{other}, Own: []string{g.url()}, Steps: []step{
		{"goto": other + "/frame"}, {"expect": "framed"},
	}})
	if all.Error != "" || !strings.Contains(strings.Join(all.Console, "\n"), "frame-ancestors") {
		t.Errorf("the form stands in a frame: %s, %q", all.Error, all.Console)
	}
	d.Forget()
	drive(t, scenario{Width: 800, Height: 600, Scheme: "light", Pages: []string{g.url()}, Own: []string{other}, Steps: []step{
		{"goto": g.url() + "/_auth/start?source=corp"}, // so that there is a cookie
		{"goto": other + "/?token=" + token}, {"click": "button"}, {"url": "/_auth/login/corp"}, {"status": 400},
	}})
	if n := len(d.Binds()); n != 0 {
		t.Errorf("a form of another site reached the directory: %d binds", n)
	}
	// Our own, as it should be.
	drive(t, scenario{Width: 800, Height: 600, Scheme: "light", Pages: []string{g.url()}, Steps: append(
		append([]step{{"goto": g.url() + "/_auth/start?source=corp&rd=/page/home"}}, fill("alice", alicesPassword)...),
		step{"url": "/page/home"}, step{"status": 200})})
}
