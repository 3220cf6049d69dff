package e2e

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	servers "github.com/groupgate/groupgate/deploy/testenv"
)

// corp is an entry of "sources" for a directory that really runs. more are
// further keys of "ldap".
func corp(s *servers.Server, more string) string { return corpAt(s, s.URLS, more) }

// corpAt is corp by other addresses, with a blank between them.
func corpAt(s *servers.Server, urls, more string) string {
	return fmt.Sprintf(`
  - name: corp
    ldap: {url: ["%s"], bind_dn: %q, bind_password: %q, base_dn: %q, ca_file: %q%s}`,
		strings.ReplaceAll(urls, " ", `", "`), s.ServiceDN, s.ServicePassword, s.BaseDN, s.CAFile, more)
}

// byCN makes a group of the first step of a group's name.
const byCN = `
rules:
  - {claim: memberOf, regexp: '(?i)cn=((?:[^,\\]|\\.)+),.*', group: '$1'}
`

// behind is a groupgate in front of an upstream. It logs all it can.
func behind(t *testing.T, sources, rest string) (*gate, *upstream) {
	t.Helper()
	up, p := newUpstream(t), newPlace(t)
	p.write(t, up.URL, sources, rest+"log: {level: debug}\n")
	return p.start(t), up
}

// in is the same groupgate for a subtest, which ends when something is wrong
// there.
func (g *gate) in(t *testing.T) *gate {
	own := *g
	own.tb = t
	return &own
}

// entered signs somebody in by the form, and answers what the upstream got.
func entered(t *testing.T, g *gate, b *claimstest.Browser, user, password string) http.Header {
	t.Helper()
	return received(t, enter(t, g, b, user, password))
}

// stillOut holds a page to a refusal by the form or a page of ours: its status,
// no session, nothing forwarded.
func stillOut(t *testing.T, g *gate, up *upstream, b *claimstest.Browser, user, password string, status int) *claimstest.Page {
	t.Helper()
	before := up.requests.Load()
	page := enter(t, g, b, user, password)
	if page.Status != status || cookie(b, g) != "" || up.requests.Load() != before {
		t.Errorf("%q: %d, want %d; cookie %q; %d requests reached the upstream", user, page.Status, status, cookie(b, g), up.requests.Load()-before)
	}
	return page
}

// knownUser is a person as the API shows one.
type knownUser struct {
	ID, User    string
	Identities  []struct{ Source, Subject string }
	Memberships []struct{ Group string }
}

// groups are the person's, by name.
func (k knownUser) groups() string {
	var all []string
	for _, m := range k.Memberships {
		all = append(all, m.Group)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// everybody is everybody whom the API knows.
func everybody(t *testing.T, g *gate) map[string]knownUser {
	t.Helper()
	var list struct{ Items []struct{ ID string } }
	g.api("GET", "/users?limit=100", nil, &list)
	all := map[string]knownUser{}
	for _, item := range list.Items {
		var k knownUser
		g.api("GET", "/users/"+item.ID, nil, &k)
		all[k.User] = k
	}
	return all
}

// holdsNone looks for secrets in all that groupgate writes and shows.
func holdsNone(t *testing.T, g *gate, secrets ...string) {
	t.Helper()
	metrics, _ := scrape(t, g)
	var events string
	g.eventually("written down", func() bool { // refusals are stored soon
		events = g.events()
		return events != "" && g.logged(`"kind":"`)
	})
	store, err := os.ReadFile(g.store())
	must(t, err)
	wal, _ := os.ReadFile(g.store() + "-wal") // there need not be one
	for name, text := range map[string]string{
		"log": g.log.all(), "metrics": metrics, "audit trail": events, "store": string(store) + string(wal),
	} {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("the %s holds %q", name, secret)
			}
		}
	}
}

// events are all of the audit trail.
func (g *gate) events() string {
	g.tb.Helper()
	var all strings.Builder
	for path := "/events?limit=200"; path != ""; {
		var some struct {
			Items []map[string]any
			Next  string
		}
		if status := g.api("GET", path, nil, &some); status != http.StatusOK {
			g.tb.Fatalf("%s: %d", path, status)
		}
		for _, e := range some.Items {
			fmt.Fprintln(&all, e)
		}
		if path = ""; some.Next != "" {
			path = "/events?limit=200&after=" + url.QueryEscape(some.Next)
		}
	}
	return all.String()
}

// command runs one of the program's, on the place's configuration.
func (p place) command(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.Command(program, append(args, "--config", p.config())...)
	cmd.Dir = p.dir
	raw, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(raw), cmd.ProcessState.ExitCode()
}

// holdsInOrder reports whether a text has the words in that order.
func holdsInOrder(text string, words ...string) bool {
	for _, w := range words {
		_, after, found := strings.Cut(text, w)
		if !found {
			return false
		}
		text = after
	}
	return true
}

// posted is one form of somebody's, sent from any client network.
type posted struct {
	g    *gate
	b    *claimstest.Browser
	form claimstest.Form
}

// opened fetches the form. What it sends then is answered by the form again for
// as long as the password is wrong.
func opened(t *testing.T, g *gate) *posted {
	t.Helper()
	b := newBrowser(t)
	page := get(t, b, g.url()+"/_auth/start?source=corp")
	if page.Status != http.StatusOK || len(page.Forms()) == 0 {
		t.Fatalf("no form: %d\n%s", page.Status, page.Body)
	}
	return &posted{g, b, page.Forms()[0]}
}

// send answers how long one answer took. It fails on its own goroutine alone.
func (p *posted) send(from, user, password string) (status int, took time.Duration, err error) {
	values := url.Values{"token": {p.form.Fields["token"]}, "username": {user}, "password": {password}}
	req, err := http.NewRequest(http.MethodPost, p.g.url()+p.form.Action, strings.NewReader(values.Encode()))
	if err != nil {
		return 0, 0, err
	}
	req.Header = p.b.Header.Clone()
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("X-Forwarded-For", from)
	began := time.Now()
	resp, err := p.b.Client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
		err = cmp.Or(err, fmt.Errorf("429 without Retry-After"))
	}
	return resp.StatusCode, time.Since(began), err
}

// quantile is of measured times, which it sorts.
func quantile(times []time.Duration, q float64) time.Duration {
	slices.Sort(times)
	return times[int(q*float64(len(times)-1))]
}

const (
	stormSize  = 1000
	stormConns = 16
)

// LD-12: a thousand wrong passwords for one user, from anywhere, do not keep
// others out, nor her where she was signed in before; and ten of them reach the
// directory.
func TestLoginStorm(t *testing.T) {
	t.Parallel()
	d := claimstest.StartDirectory(t, claimstest.DirectoryOptions{})
	d.Put(d.Person("victim", alicesPassword))
	for i := range 20 {
		d.Put(d.Person(fmt.Sprint("early", i), alicesPassword), d.Person(fmt.Sprint("late", i), alicesPassword))
	}
	g, _ := behind(t, fmt.Sprintf("\n  - {name: corp, ldap: {url: %q, bind_dn: %q, bind_password: %q, base_dn: %q, ca_file: %q}}",
		d.URLS, d.ServiceDN, d.ServicePassword, d.BaseDN, d.CAFile), "\ntrusted_proxies: [127.0.0.0/8]\n")
	hers := newBrowser(t)
	entered(t, g, hers, "victim", alicesPassword)

	people := func(prefix string) (times []time.Duration) {
		for i := range 20 {
			p := opened(t, g)
			status, took, err := p.send(fmt.Sprintf("10.0.%d.1", i), fmt.Sprint(prefix, i), alicesPassword)
			if err != nil || status != http.StatusFound && status != http.StatusSeeOther {
				t.Errorf("%s%d: %d %v", prefix, i, status, err)
			}
			times = append(times, took)
		}
		return times
	}
	quiet := quantile(people("early"), 0.95)
	d.Forget()

	statuses := map[int]int{}
	var mu sync.Mutex
	var storm sync.WaitGroup
	began := time.Now()
	for conn := range stormConns {
		p := opened(t, g)
		storm.Go(func() {
			for i := conn; i < stormSize; i += stormConns {
				status, _, err := p.send(fmt.Sprintf("10.%d.%d.1", 1+i/250, i%250), "victim", fmt.Sprint("guess number ", i))
				mu.Lock()
				if statuses[status]++; err != nil {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	busy := quantile(people("late"), 0.95)
	page, err := hers.Submit(get(t, hers, g.url()+"/_auth/start?source=corp"), map[string]string{"username": "victim", "password": alicesPassword})
	if err != nil || page.Status != http.StatusOK {
		t.Errorf("she cannot sign in where she was before: %v %d", err, page.Status)
	}
	storm.Wait()
	binds := map[string]int{}
	for _, o := range d.Binds() {
		switch o.DN {
		case d.ServiceDN:
			binds["service"]++
		case d.PersonDN("victim"):
			binds["victim"]++
		default:
			binds["others"]++
		}
	}
	searches := 0 // for her
	for _, q := range d.Searches() {
		if strings.Contains(q.Filter, "victim") {
			searches++
		}
	}
	t.Logf("%d wrong passwords in %s: %v; binds %v, %d searches for her; logins of others p95 %s, %s when it is quiet",
		stormSize, time.Since(began).Round(time.Millisecond), statuses, binds, searches, busy.Round(time.Millisecond), quiet.Round(time.Millisecond))
	// The login before the storm was one of the ten attempts; her own during it is
	// one bind more.
	if statuses[http.StatusUnauthorized] > 10 || statuses[http.StatusUnauthorized]+statuses[http.StatusTooManyRequests] != stormSize {
		t.Errorf("statuses %v", statuses)
	}
	if binds["victim"] > 10+1 || binds["others"] != 20 || binds["service"] > 16 || searches > 10+1 {
		t.Errorf("binds %v, %d searches for her", binds, searches)
	}
	if busy > max(3*quiet, 500*time.Millisecond) {
		t.Errorf("others wait %s, and %s when it is quiet", busy, quiet)
	}
	holdsNone(t, g, alicesPassword, d.ServicePassword, "guess number")
}
