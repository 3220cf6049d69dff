package e2e

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	servers "github.com/groupgate/groupgate/deploy/testenv"
)

// Everything that deploy/README.md has people type is typed, with what it
// promises looked at. The test knows its headings, and no command.
func TestRunbook(t *testing.T) {
	t.Parallel()
	servers.Commands(t, "curl", "jq", "openssl", "postgresql")
	book, done := bookBlocks(t), &tried{ran: map[bookBlock]bool{}}
	var left atomic.Int32
	t.Run("steps", func(t *testing.T) {
		for name, try := range map[string]struct {
			run  func(*operator)
			more string
		}{
			"keys":        {tryKeys, ""},
			"backup":      {tryBackup, ""},
			"PostgreSQL":  {tryPostgres, ""},
			"upgrade":     {tryUpgrade, ""},
			"guard":       {tryGuard, "sync: {guard: {max_removed_users: 1}}\n"},
			"break-glass": {tryBreakGlass, ""},
		} {
			left.Add(1)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				try.run(newOperator(t, slices.Clone(book), done, try.more))
				left.Add(-1)
			})
		}
	})
	if left.Load() > 0 {
		return // -run chose some, or it has failed already
	}
	for _, s := range done.forgotten(book) {
		t.Errorf("%s: nobody has tried\n%s", s.heading, s.text)
	}
}

// certificateOf is the certificate in our metadata for a SAML source.
func (o *operator) certificateOf(source string) string {
	o.t.Helper()
	resp, err := http.Get(o.url() + "/_auth/saml/" + source + "/metadata")
	must(o.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	must(o.t, err)
	m := regexp.MustCompile(`X509Certificate[^>]*>([^<]+)<`).FindSubmatch(raw)
	if m == nil {
		o.t.Fatalf("no certificate in %s", raw)
	}
	return strings.Join(strings.Fields(string(m[1])), "")
}

// kid is the name of the key that signs assertions.
func (o *operator) kid() string {
	o.t.Helper()
	resp, err := http.Get(o.url() + "/_auth/jwks.json")
	must(o.t, err)
	defer resp.Body.Close()
	var set struct{ Keys []struct{ Kid string } }
	must(o.t, json.NewDecoder(resp.Body).Decode(&set))
	if len(set.Keys) != 1 {
		o.t.Fatalf("keys %v", set.Keys)
	}
	return set.Keys[0].Kid
}

// staff signs in at the SAML provider whose key pair is in files.
func (o *operator) staff() int {
	o.t.Helper()
	page, err := newBrowser(o.t).Login(o.url()+"/_auth/start?source=staff&rd=/", "p-2")
	must(o.t, err)
	return page.Status
}

// A key rotates under a live session, which goes on to be renewed, and what
// groupgate made itself stays what it is.
func tryKeys(o *operator) {
	o.begin()
	alice := o.signsIn("alice")
	kid, kept := o.kid(), o.certificateOf("kept")
	for i, n := range []int{3, 2, 2} { // blocks of each of the three steps
		o.do("Session keys", n)
		o.renewed(alice, "alice", "step"+string(rune('1'+i)))
	}
	if _, err := os.Stat(o.secret("session-key")); !os.IsNotExist(err) {
		o.t.Error("the old key is still there")
	}
	o.gate.kill()
	o.manage("start")
	o.renewed(alice, "alice", "after")
	if o.kid() != kid || o.certificateOf("kept") != kept {
		o.t.Error("a key that was generated is another one after the rotation")
	}

	old := o.certificateOf("staff")
	introduce(o.t, o.gate, o.idp, "staff")
	if status := o.staff(); status != http.StatusOK {
		o.t.Errorf("at staff, before: %d", status)
	}
	printed := o.do("Key and certificate for SAML", 1)
	raw, err := os.ReadFile(o.secret("saml.pem"))
	must(o.t, err)
	block, _ := pem.Decode(raw)
	cert, err := x509.ParseCertificate(block.Bytes)
	must(o.t, err)
	if now := o.certificateOf("staff"); now == old || cert.Subject.CommonName != "portal.example.com" || !strings.Contains(strings.Join(strings.Fields(printed), ""), now) {
		o.t.Errorf("the certificate of %s is not in\n%s", cert.Subject, printed)
	}
	if status := o.staff(); status == http.StatusOK {
		o.t.Error("the provider takes requests that a key signed which it does not know")
	}
	introduce(o.t, o.gate, o.idp, "staff")
	if status := o.staff(); status != http.StatusOK {
		o.t.Errorf("at staff, after: %d", status)
	}

	// A secret that the provider does not know is what the block replaces.
	must(o.t, os.WriteFile(o.secret("client-secret"), []byte("another-secret-than-the-providers"), 0o600))
	o.manage("reload")
	if page, err := newBrowser(o.t).Login(o.url()+"/_auth/start?source=op&rd=/", "carol"); err != nil || page.Status == http.StatusOK {
		o.t.Errorf("a login with another client secret: %v, %d", err, page.Status)
	}
	o.do("Client secrets", 1)
	o.signsIn("carol")

	o.do("The admin token", 1)
	if status := o.gate.api("GET", "/sources", nil, nil); status != http.StatusUnauthorized { // with the old one
		o.t.Errorf("the old token: %d", status)
	}
}

// A backup is whole while people sign in, holds no session, and brings back
// what was then.
func tryBackup(o *operator) {
	alice := o.signsIn("alice")
	o.signsIn("carol")
	stop := make(chan struct{})
	var crowd sync.WaitGroup
	for range 2 {
		b := newBrowser(o.t)
		crowd.Go(func() {
			for range 200 {
				select {
				case <-stop:
					return
				default:
				}
				b.Client.Jar = newBrowser(o.t).Client.Jar // another browser
				if page, err := b.Login(o.url()+"/_auth/start?source=op&rd=/", "carol"); err != nil || page.Status != http.StatusOK {
					o.t.Errorf("a login during the backup: %v", err)
					return
				}
			}
		})
	}
	o.do("SQLite", 1)
	close(stop)
	crowd.Wait()
	files, err := filepath.Glob(o.file("backups/groupgate-*.db"))
	if err != nil || len(files) != 1 {
		o.t.Fatalf("backups %v, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		o.t.Errorf("the backup: %v, %v", info.Mode(), err)
	}
	raw, err := os.ReadFile(files[0])
	must(o.t, err)
	if !strings.Contains(string(raw), "carol") {
		o.t.Error("the backup has no carol")
	}

	bob := o.signsIn("bob")
	o.mustUser(o.t, localPassword, "add", "later")
	o.do("SQLite", 1)
	if !o.over(alice) || !o.over(bob) {
		o.t.Error("a session has come back with the backup, or outlived it")
	}
	if list := o.mustUser(o.t, "", "list"); strings.Contains(list, "later") {
		o.t.Errorf("somebody is there who came after the backup:\n%s", list)
	}
	var found struct {
		Items []struct{ User string }
	}
	if o.gate.api("GET", "/users", nil, &found); len(found.Items) != 2 {
		o.t.Errorf("%v are there; alice and carol were", found.Items)
	}
	if h := received(o.t, get(o.t, o.signsIn("alice"), o.url()+"/")); h.Get("X-Forwarded-Groups") != "eng" {
		o.t.Errorf("alice came back with %q", h.Get("X-Forwarded-Groups"))
	}
}

// The move to PostgreSQL signs nobody out; its dump does, and brings the
// directory back.
func tryPostgres(o *operator) {
	pg := servers.Postgres(o.t)
	dsn := pg.DSN(pg.NewDatabase(o.t, ""))
	o.vars["DATABASE_URL"] = dsn
	o.env = append(o.env, "DATABASE_URL="+dsn)
	alice := o.signsIn("alice")
	o.do("From SQLite to PostgreSQL", 3)
	if o.over(alice) {
		o.t.Fatal("alice's session is over after the move")
	}
	o.renewed(alice, "alice", "moved")

	o.do("PostgreSQL", 1)
	bob := o.signsIn("bob")
	o.do("PostgreSQL", 1)
	if !o.over(alice) || !o.over(bob) {
		o.t.Error("a session has come back with the dump, or outlived it")
	}
	var found struct {
		Items []struct{ User string }
	}
	if o.gate.api("GET", "/users", nil, &found); len(found.Items) != 1 || found.Items[0].User != "alice" {
		o.t.Errorf("%v are there; alice was", found.Items)
	}
	if h := received(o.t, get(o.t, o.signsIn("alice"), o.url()+"/")); h.Get("X-Forwarded-Groups") != "moved" {
		o.t.Errorf("alice came back with %q", h.Get("X-Forwarded-Groups"))
	}
}

func tryUpgrade(o *operator) {
	alice := o.signsIn("alice")
	printed := o.do("Upgrade, and going back", 2)
	if o.over(alice) {
		o.t.Error("the upgrade has signed alice out")
	}
	for _, line := range []string{"groupgate ", "no faults", "source op", "store ", "upstream "} {
		if !strings.Contains(printed, line) {
			o.t.Errorf("no %q in\n%s", line, printed)
		}
	}
}

// The guard holds removals, says of whom, and does them when it is told.
func tryGuard(o *operator) {
	people := []string{"alice", "carol"}
	for _, name := range people {
		o.signsIn(name)
	}
	waiting := func() float64 {
		_, now := scrape(o.t, o.gate)
		return now["groupgate_sync_removals_waiting"]
	}
	if n := waiting(); n != 0 {
		o.t.Errorf("removals wait: %v", n)
	}
	for _, name := range people {
		o.op.SetClaims(name, claimsOf(name))
		o.signsIn(name)
	}
	if n := waiting(); n != 1 {
		o.t.Errorf("nothing is known to wait: %v", n)
	}
	printed := o.do("The guard", 1)
	if !strings.Contains(printed, `"tripped":`) || !strings.Contains(printed, "op carol would leave eng") || strings.Contains(printed, "alice would") {
		o.t.Errorf("the guard, and who waits:\n%s", printed)
	}
	members := func() int {
		var found struct{ Items []struct{ User string } }
		o.gate.api("GET", "/groups/eng/members", nil, &found)
		return len(found.Items)
	}
	if n := members(); n != 1 {
		o.t.Errorf("%d members before it is allowed", n)
	}
	o.do("The guard", 1)
	if n := members(); n != 0 || waiting() != 0 {
		o.t.Errorf("%d members after it is allowed", n)
	}
}

// Somebody gets in with a local user, which asks no provider, and with the
// configuration broken.
func tryBreakGlass(o *operator) {
	in := func(password string) int {
		o.t.Helper()
		b := newBrowser(o.t)
		page, err := b.Submit(get(o.t, b, o.url()+"/_auth/start?source=local&rd=/"), map[string]string{"username": "emergency", "password": password})
		must(o.t, err)
		if page.Status == http.StatusOK && received(o.t, page).Get("X-Forwarded-Groups") != "operators" {
			o.t.Errorf("groups %q", received(o.t, page).Get("X-Forwarded-Groups"))
		}
		return page.Status
	}
	first, _, _ := strings.Cut(o.do("Break-glass", 1), "\n")
	if status := in(first); status != http.StatusOK {
		o.t.Fatalf("with the password %q: %d", first, status)
	}

	whole, err := os.ReadFile(o.config())
	must(o.t, err)
	putFile(o.t, o.config(), []byte("colour: green\n"))
	second, _, _ := strings.Cut(o.do("Break-glass", 1), "\n")
	if status := in(second); status != http.StatusOK {
		o.t.Errorf("with another password %q: %d", second, status)
	}
	if status := in(first); status != http.StatusUnauthorized {
		o.t.Errorf("with the first password: %d", status)
	}
	putFile(o.t, o.config(), whole)
	for at, s := range o.book { // another machine's
		if s.language == "console" {
			o.book[at].text = ""
		}
	}
	o.do("Break-glass", 1)
	o.gate.eventually("shut", func() bool { return in(second) != http.StatusOK })
}
