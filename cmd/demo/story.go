package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// people are three who differ in what the provider says of them. The values
// are the provider's own; rules make groups of them.
func people() []claimstest.Person {
	person := func(name, display, description string, values ...string) claimstest.Person {
		return claimstest.Person{Subject: name, Description: description, Claims: map[string]any{
			"preferred_username": name, "name": display, "email": name + "@example.com", "email_verified": true,
			"groups": append([]string{}, values...),
		}}
	}
	return []claimstest.Person{
		person("alice", "Alice Example", "in two groups: engineering and admins", "acme-eng", "acme-adm"),
		person("bob", "Bob Example", "in one group: engineering", "acme-eng"),
		person("carol", "Carol Example", "in no group"),
	}
}

// bobsClaims is what the provider says of bob, as far as rules care.
const bobsClaims = `{"groups":["acme-eng"]}`

func (d *demo) config() string {
	return fmt.Sprintf(`# A real configuration, but for the loopback addresses. A change is taken in at once.
listen: %q
public_url: http://%s
upstream: %s
store: {sqlite: %q}
admin: {listen: %q, token: %q}
headers: {assertion: X-Groupgate-Assertion}

sources:
  - name: demo
    label: Demo provider
    oidc: {issuer: %q, client_id: portal, client_secret: %q}
    groups: {claims: [groups], when_absent: clear}

rules:
  - {source: demo, claim: groups, value: acme-eng, group: engineering}
  - {source: demo, claim: groups, value: acme-adm, group: admins}

routes:
  - {path: /admin/, groups: [admins]}
  - {path: /public/, access: public}
`, d.public, d.public, d.app, d.file("groupgate.db"), d.admin, d.token, d.provider, d.secret)
}

// tell prints what there is and what to try. A test does what it says.
func (d *demo) tell(out io.Writer) error {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	api := func(method, path, body string) string {
		return fmt.Sprintf("curl -s -X %s -H 'Authorization: Bearer %s' -H 'Content-Type: application/json' -d '%s' http://%s/api/v1%s",
			method, d.token, body, d.admin, path)
	}
	p("groupgate runs.")
	for _, n := range d.notes {
		p("%s", n)
	}
	p("")
	p("  page    http://%s/", d.public)
	p("  people  alice  engineering, admins")
	p("          bob    engineering")
	p("          carol  no group")
	p("  console http://%s/", d.admin)
	p("  token   %s", d.token)
	p("          of the console and of its API")
	p("  files   %s", d.dir)
	p("          groupgate.yaml, groupgate.log; gone when the demo ends")
	p("")
	p("1. Be refused by a route. Open the page, choose bob, then open")
	p("")
	p("     http://%s/admin/", d.public)
	p("")
	p("   The route asks for the group admins, and the answer says so.")
	p("   http://%s/public/ asks for nothing, not even a session.", d.public)
	p("")
	p("2. Change a rule. From now on the value acme-eng also means admins:")
	p("")
	p("     %s", api("POST", "/rules", `{"source":"demo","claim":"groups","value":"acme-eng","group":"admins"}`))
	p("")
	p("   Reload the page that refused bob: he is let in, without signing in")
	p("   again, and X-Forwarded-Groups says admins,engineering.")
	p("")
	p("3. Explain a membership: which rule made which value which group.")
	p("")
	p("     %s", api("POST", "/explain", `{"source":"demo","user":"bob","claims":`+bobsClaims+`}`))
	p("")
	p("   As a table, with the headers the application gets:")
	p("")
	p("     go run ./cmd/groupgate explain --config %s --source demo --user bob %s", d.file("groupgate.yaml"), d.file("bob.json"))
	p("")
	p("To be somebody else, open http://%s/_auth/sign_out first. Ctrl-C ends it all.", d.public)
	_, err := io.WriteString(out, b.String())
	return err
}
