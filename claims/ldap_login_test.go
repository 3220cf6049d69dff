package claims_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

const (
	alicePassword = "alice's own pass phrase"
	bobPassword   = "bob's own pass phrase"
)

// ldapRig is a source and the directory it asks, with alice and bob.
type ldapRig struct {
	t    testing.TB
	d    *claimstest.Directory
	src  *claims.LDAP
	logs *observer.ObservedLogs
}

func newLDAPRig(t testing.TB, opts claimstest.DirectoryOptions, change func(*claims.LDAPOptions, *claimstest.Directory)) *ldapRig {
	t.Helper()
	d := claimstest.StartDirectory(t, opts)
	d.Put(d.Person("alice", alicePassword), d.Person("bob", bobPassword), d.Group("dev", d.PersonDN("alice")))
	core, logs := observer.New(zap.DebugLevel)
	o := claims.LDAPOptions{Name: "corp", Log: zap.New(core), Config: claims.LDAPConfig{
		URL: claims.URLs{d.URLS}, BindDN: d.ServiceDN, BindPassword: d.ServicePassword, BaseDN: d.BaseDN,
		UserFilter: claims.DefaultLDAP.UserFilter, CAFile: d.CAFile,
	}}
	if change != nil {
		change(&o, d)
	}
	src, err := claims.NewLDAP(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return &ldapRig{t, d, src, logs}
}

// login tries, and looks that nothing secret is told to anybody, whatever
// comes of it.
func (r *ldapRig) login(user, password string) (*claims.Identity, *claims.Grant, error) {
	r.t.Helper()
	return r.loginWithin(context.Background(), user, password)
}

func (r *ldapRig) loginWithin(ctx context.Context, user, password string) (*claims.Identity, *claims.Grant, error) {
	r.t.Helper()
	id, g, err := r.src.CheckPassword(ctx, claims.Credentials{User: user, Password: password})
	if err == nil && (id == nil || g == nil) || err != nil && (id != nil || g != nil) {
		r.t.Fatalf("identity %v and grant %v beside error %v", id, g, err)
	}
	secrets := []string{r.d.ServicePassword}
	if strings.TrimSpace(password) != "" {
		secrets = append(secrets, password)
	}
	if errors.Is(err, claims.ErrBadPassword) && len(user) > 3 && user != "alice" {
		secrets = append(secrets, user) // people type passwords there
	}
	r.holdsNone(err, secrets...)
	return id, g, err
}

func (r *ldapRig) holdsNone(err error, secrets ...string) {
	r.t.Helper()
	said := fmt.Sprint(err)
	for _, e := range r.logs.All() {
		said += "\n" + e.Message + fmt.Sprint(e.ContextMap())
	}
	for _, s := range secrets {
		if strings.Contains(said, s) {
			r.t.Errorf("%q is told in: %s", s, said)
		}
	}
}

// mustLogin is the positive control beside every refusal.
func (r *ldapRig) mustLogin() *claims.Identity {
	r.t.Helper()
	id, _, err := r.login("alice", alicePassword)
	if err != nil {
		r.t.Fatalf("alice cannot sign in: %v", err)
	}
	if want := r.d.Subject(r.d.PersonDN("alice")); id.Subject != want {
		r.t.Fatalf("subject %q, want %q", id.Subject, want)
	}
	return id
}

func (r *ldapRig) refuses(want error, user, password string) {
	r.t.Helper()
	id, _, err := r.login(user, password)
	if !errors.Is(err, want) {
		r.t.Errorf("%.40q: identity %v, error %v; want %v", user, id, err, want)
	}
}

// bindsOfPeople are the binds that were not the service account's.
func (r *ldapRig) bindsOfPeople() []claimstest.Operation {
	return slices.DeleteFunc(r.d.Binds(), func(o claimstest.Operation) bool { return o.DN == r.d.ServiceDN })
}

var directoryKinds = map[string]claimstest.DirectoryOptions{"Active Directory": {AD: true}, "LDAPv3": {}}

func values(t testing.TB, c claims.Claims, claim string) []string {
	t.Helper()
	r := c.Resolve(claim)
	if r.State != claims.Complete {
		t.Fatalf("claim %s is %v", claim, r)
	}
	return r.Values
}

func TestDirectoryLogin(t *testing.T) {
	t.Parallel()
	for kind, opts := range directoryKinds {
		for _, over := range []string{"ldaps", "StartTLS", "clear on loopback"} {
			t.Run(kind+" over "+over, func(t *testing.T) {
				t.Parallel()
				r := newLDAPRig(t, opts, func(o *claims.LDAPOptions, d *claimstest.Directory) {
					if over != "ldaps" {
						o.Config.URL = claims.URLs{d.URL}
						o.Config.StartTLS = over == "StartTLS"
					}
				})
				began := time.Now()
				id, g, err := r.login("alice", alicePassword)
				if err != nil {
					t.Fatal(err)
				}
				if id.Source != "corp" || id.Subject != r.d.Subject(r.d.PersonDN("alice")) || id.IssuedAt.Before(began) || id.IssuedAt.After(time.Now()) {
					t.Errorf("identity %+v", id)
				}
				if g.RefreshToken == "" {
					t.Error("the grant says that nobody can be asked again")
				}
				for claim, want := range map[string]string{
					"preferred_username": "alice", "email": "alice@example.com", "name": "Alice Example", "memberOf": r.d.GroupDN("dev"),
				} {
					if got := values(t, id.Claims, claim); !slices.Equal(got, []string{want}) {
						t.Errorf("%s is %q, want %q", claim, got, want)
					}
				}
				people := r.bindsOfPeople()
				if len(people) != 1 || people[0].DN != r.d.PersonDN("alice") || people[0].BoundAs != "" {
					t.Errorf("binds of people: %+v; want one on a connection of its own", people)
				}
				for _, o := range r.d.Operations() {
					if o.TLS != (over != "clear on loopback") && o.Kind != "starttls" {
						t.Errorf("over TLS %v: %+v", o.TLS, o)
					}
				}
				r.refuses(claims.ErrBadPassword, "alice", bobPassword)
				r.refuses(claims.ErrBadPassword, "nobody", alicePassword)
			})
		}
	}
}

// LD-01: whatever is typed is a name and no filter.
func TestTypedNamesAreNoFilters(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	r.mustLogin()
	for _, user := range []string{
		"*", "a*", "alice*", "*)(uid=*", "*)(uid=*))(|(uid=*", "alice)(objectClass=*", `alice\2a`, `\`, "(", ")", "&", "{user}", "alice{user}",
	} {
		r.d.Forget()
		r.refuses(claims.ErrBadPassword, user, alicePassword)
		searches := r.d.Searches()
		if len(searches) != 1 {
			t.Fatalf("%q: searches %+v", user, searches)
		}
		wrote := escaped(user)
		want := strings.ReplaceAll(claims.DefaultLDAP.UserFilter, "{user}", wrote)
		if searches[0].Filter != want {
			t.Errorf("%q: the server read %s, want %s", user, searches[0].Filter, want)
		}
	}
	r.d.Forget()
	_, before := r.d.Connections()
	for _, user := range []string{"", "  ", "alice\x00", "ali\nce", "\xff\xfe", strings.Repeat("a", 257), strings.Repeat("é", 5000)} {
		r.refuses(claims.ErrBadPassword, user, alicePassword)
	}
	if _, after := r.d.Connections(); after != before || len(r.d.Operations()) > 0 {
		t.Errorf("names that nobody can have reached the network: %+v", r.d.Operations())
	}
	r.mustLogin()
}

// escaped is written by the letter of RFC 4515 section 3, not by our code.
func escaped(s string) string {
	return strings.NewReplacer(`\`, `\5c`, "*", `\2a`, "(", `\28`, ")", `\29`).Replace(s)
}

// LD-02: names of entries with everything that has a meaning in a
// distinguished name. The name to bind as is the one that the server said.
func TestNamesThatDistinguishedNamesEscape(t *testing.T) {
	t.Parallel()
	for kind, opts := range directoryKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newLDAPRig(t, opts, nil)
			for i, name := range []string{`Smith, Bob`, `a+b`, `a"b`, `a\b`, `a<b>c`, `a;b`, `#a`, `a=b`, `cn=alice`, `a,uid=alice`} {
				password := fmt.Sprintf("pass phrase number %d", i)
				r.d.Put(r.d.Person(name, password))
				if kind == "Active Directory" && strings.Contains(name, `\`) {
					r.refuses(claims.ErrBadPassword, name, password) // an unknown domain
					continue
				}
				id, _, err := r.login(name, password)
				if err != nil || id.Subject != r.d.Subject(r.d.PersonDN(name)) {
					t.Errorf("%q: %+v, %v", name, id, err)
				}
				r.refuses(claims.ErrBadPassword, name, alicePassword)
			}
		})
	}
}

// LD-03: a server that answers success to everything, as one does to an empty
// password (RFC 4513 section 5.1.2), is not asked.
func TestEmptyPasswordsStayHere(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{Anonymous: true}, nil)
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.BindResult = func(string) *claimstest.Result { return &claimstest.Result{} }
	})
	for _, password := range []string{"", " ", "\x00", " \t\n\x00 ", "\u00a0", strings.Repeat("a", 1025)} {
		r.refuses(claims.ErrBadPassword, "alice", password)
	}
	if ops := r.d.Operations(); len(ops) > 0 {
		t.Errorf("the directory was asked: %+v", ops)
	}
	for _, password := range []string{"x", strings.Repeat("a", 1024), " x "} {
		if _, _, err := r.login("alice", password); err != nil {
			t.Errorf("a password of %d bytes was not tried: %v", len(password), err)
		}
	}
}

// LD-04: none and several are a wrong password, and a bind is tried all the
// same, with a name that nobody has.
func TestNobodyAndSeveral(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	twin := func(ou, name string) claimstest.Entry {
		e := r.d.Person(name, alicePassword)
		e.DN = "uid=" + name + ",ou=" + ou + "," + r.d.BaseDN
		return e
	}
	r.d.Put(twin("a", "twice"), twin("b", "twice"), twin("a", "thrice"), twin("b", "thrice"), twin("c", "thrice"))
	for _, user := range []string{"nobody", "twice", "thrice"} {
		r.d.Forget()
		_, _, err := r.src.CheckPassword(context.Background(), claims.Credentials{User: user, Password: alicePassword, Attempt: func(string) error {
			t.Errorf("%s: an attempt at somebody", user)
			return nil
		}})
		if err != claims.ErrBadPassword { //nolint:errorlint // the very same
			t.Errorf("%s: %v", user, err)
		}
		binds := r.bindsOfPeople()
		if len(binds) != 1 || !strings.HasSuffix(binds[0].DN, ","+r.d.BaseDN) {
			t.Fatalf("%s: binds %+v; want one", user, binds)
		}
		if _, exists := r.d.Entry(binds[0].DN); exists {
			t.Errorf("%s: bound as %s, which exists", user, binds[0].DN)
		}
		for _, q := range r.d.Searches() {
			if q.SizeLimit > 2 {
				t.Errorf("asked for %d entries", q.SizeLimit)
			}
		}
	}
	// Even where the server lets that name in.
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.BindResult = func(string) *claimstest.Result { return &claimstest.Result{} }
	})
	r.refuses(claims.ErrBadPassword, "nobody", alicePassword)
	r.d.Honest()
	r.mustLogin()
}

func TestAttemptKnowsWhoseItIs(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{AD: true}, nil)
	stop := errors.New("too many")
	for _, c := range []struct {
		password string
		answer   error
		want     error
		binds    int
	}{
		{alicePassword, nil, nil, 1},
		{bobPassword, nil, claims.ErrBadPassword, 1},
		{alicePassword, stop, stop, 0},
	} {
		r.d.Forget()
		var subjects []string
		_, _, err := r.src.CheckPassword(context.Background(), claims.Credentials{
			User: `EXAMPLE\alice`, Password: c.password, Attempt: func(s string) error {
				subjects = append(subjects, s)
				if len(r.bindsOfPeople()) > 0 {
					t.Error("the password was tried before")
				}
				return c.answer
			},
		})
		if err != c.want { //nolint:errorlint // unchanged
			t.Errorf("error %v, want %v", err, c.want)
		}
		if want := []string{r.d.Subject(r.d.PersonDN("alice"))}; !slices.Equal(subjects, want) || len(r.bindsOfPeople()) != c.binds {
			t.Errorf("attempts at %q, binds %+v", subjects, r.bindsOfPeople())
		}
	}
}

// LD-15: however the name is written, one person.
func TestSpellingsOfOnePerson(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{AD: true}, nil)
	want := r.mustLogin().Subject
	for _, user := range []string{
		"ALICE", "Alice", " alice ", "alice  ", "ａｌｉｃｅ", `EXAMPLE\alice`, `example\ALICE`, `example.com\alice`,
		"alice@example.com", "ALICE@Example.Com", "alice@EXAMPLE",
	} {
		id, _, err := r.login(user, alicePassword)
		if err != nil || id.Subject != want {
			t.Errorf("%q: %+v, %v", user, id, err)
		}
	}
	asked := 0
	for _, q := range r.d.Searches() {
		if strings.Contains(q.Filter, "crossRef") {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("the domain's names were asked for %d times", asked)
	}
	for _, user := range []string{`OTHER\alice`, `\alice`, `EXAMPLE\`, `EXAMPLE\EXAMPLE\alice`, "alice@other.example", "@example.com", "alice@", `alice\EXAMPLE`} {
		r.refuses(claims.ErrBadPassword, user, alicePassword)
	}

	// Where the configuration names the domains, the directory is not asked.
	named := newLDAPRig(t, claimstest.DirectoryOptions{}, func(o *claims.LDAPOptions, _ *claimstest.Directory) {
		o.Config.Domains = []string{"OFFICE", "office.example"}
	})
	want = named.mustLogin().Subject
	for _, user := range []string{`office\alice`, "alice@OFFICE.example"} {
		if id, _, err := named.login(user, alicePassword); err != nil || id.Subject != want {
			t.Errorf("%q: %+v, %v", user, id, err)
		}
	}
	named.refuses(claims.ErrBadPassword, `EXAMPLE\alice`, alicePassword)

	// Where nobody knows of domains, these are letters like others.
	plain := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	plain.refuses(claims.ErrBadPassword, `EXAMPLE\alice`, alicePassword)
	plain.refuses(claims.ErrBadPassword, "alice@example.com", alicePassword)
	plain.d.Put(plain.d.Person("carol@home", "carol's pass phrase"))
	if _, _, err := plain.login("carol@home", "carol's pass phrase"); err != nil {
		t.Error(err)
	}
}

// LD-14: an account that may not be used, at the login and at the renewal.
func TestAccountsThatMayNotBeUsed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		ad      bool
		state   claimstest.Account
		set     map[string]string // in place of a state: attributes alone, and a server that lets the person in
		login   error
		refresh error
	}{
		{"open", true, claimstest.AccountOpen, nil, nil, nil},
		{"disabled", true, claimstest.AccountDisabled, nil, claims.ErrDisabled, claims.ErrDisabled},
		{"expired", true, claimstest.AccountExpired, nil, claims.ErrDisabled, claims.ErrDisabled},
		{"locked", true, claimstest.AccountLocked, nil, claims.ErrBadPassword, claims.ErrGrantEnded},
		{"password expired", true, claimstest.AccountPasswordExpired, nil, claims.ErrDenied, claims.ErrGrantEnded},
		{"must change", true, claimstest.AccountMustChange, nil, claims.ErrDenied, claims.ErrGrantEnded},
		{"hours", true, claimstest.AccountHours, nil, claims.ErrDenied, nil},
		{"workstation", true, claimstest.AccountWorkstation, nil, claims.ErrDenied, nil},
		{"open", false, claimstest.AccountOpen, nil, nil, nil},
		{"disabled", false, claimstest.AccountDisabled, nil, claims.ErrDisabled, claims.ErrDisabled},
		{"expired", false, claimstest.AccountExpired, nil, claims.ErrDisabled, claims.ErrDisabled},
		{"locked", false, claimstest.AccountLocked, nil, claims.ErrBadPassword, claims.ErrGrantEnded},
		{"disabled, bind succeeds", true, "", map[string]string{"userAccountControl": "514"}, claims.ErrDisabled, claims.ErrDisabled},
		{"expired, bind succeeds", true, "", map[string]string{"accountExpires": "116444736000000001"}, claims.ErrDisabled, claims.ErrDisabled},
		{"expires never", true, "", map[string]string{"accountExpires": "0"}, nil, nil},
		{"locked, bind succeeds", true, "", map[string]string{"msDS-User-Account-Control-Computed": "16"}, claims.ErrDenied, claims.ErrGrantEnded},
		{"lock that is over", true, "", map[string]string{"lockoutTime": "132000000000000000", "msDS-User-Account-Control-Computed": "0"}, nil, nil},
		{"password expired, bind succeeds", true, "", map[string]string{"msDS-User-Account-Control-Computed": "8388608"}, claims.ErrDenied, claims.ErrGrantEnded},
		{"must change, bind succeeds", true, "", map[string]string{"pwdLastSet": "0"}, claims.ErrDenied, claims.ErrGrantEnded},
		{"must never change", true, "", map[string]string{"pwdLastSet": "0", "userAccountControl": "66048"}, nil, nil},
		{"no number", true, "", map[string]string{"userAccountControl": "none"}, claims.ErrDenied, claims.ErrGrantEnded},
		{"loginDisabled", false, "", map[string]string{"loginDisabled": "TRUE"}, claims.ErrDisabled, claims.ErrDisabled},
		{"nsAccountLock", false, "", map[string]string{"nsAccountLock": "true"}, claims.ErrDisabled, claims.ErrDisabled},
		{"nsAccountLock false", false, "", map[string]string{"nsAccountLock": "false"}, nil, nil},
		{"pwdReset", false, "", map[string]string{"pwdReset": "TRUE"}, claims.ErrDenied, claims.ErrGrantEnded},
		{"shadowExpire", false, "", map[string]string{"shadowExpire": "1"}, claims.ErrDisabled, claims.ErrDisabled},
		{"shadowExpire never", false, "", map[string]string{"shadowExpire": "-1"}, nil, nil},
		{"shadowExpire later", false, "", map[string]string{"shadowExpire": "99999"}, nil, nil},
		{"pwdAccountLockedTime, bind succeeds", false, "", map[string]string{"pwdAccountLockedTime": "000001010000Z"}, claims.ErrDenied, claims.ErrGrantEnded},
	} {
		t.Run(fmt.Sprintf("%s, Active Directory %v", c.name, c.ad), func(t *testing.T) {
			t.Parallel()
			r := newLDAPRig(t, claimstest.DirectoryOptions{AD: c.ad}, nil)
			subject := r.mustLogin().Subject
			r.d.Change(r.d.PersonDN("alice"), func(e *claimstest.Entry) {
				e.Account = c.state
				for name, v := range c.set {
					e.Attributes[name] = []string{v}
				}
			})
			_, _, err := r.login("alice", alicePassword)
			checkAccountError(t, "login", err, c.login, subject)
			_, _, err = r.src.Refresh(context.Background(), &claims.Grant{RefreshToken: "x"}, subject)
			checkAccountError(t, "refresh", err, c.refresh, subject)
			r.refuses(claims.ErrBadPassword, "alice", bobPassword) // who does not know the password learns nothing
			if _, _, err := r.login("bob", bobPassword); err != nil {
				t.Errorf("bob: %v", err)
			}
		})
	}
}

func checkAccountError(t *testing.T, step string, err, want error, subject string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", step, err, want)
	}
	disabled, is := errors.AsType[*claims.DisabledError](err)
	if is != (want == claims.ErrDisabled) || is && (disabled.Subject != subject || disabled.Why == "") { //nolint:errorlint // of the table
		t.Errorf("%s: %#v", step, err)
	}
}

// LD-14: what an Active Directory says when it refuses, and to whom.
func TestWhatActiveDirectorySays(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{AD: true}, nil)
	for data, want := range map[string]error{
		"52e": claims.ErrBadPassword, "525": claims.ErrBadPassword, "775": claims.ErrBadPassword, "568": claims.ErrBadPassword,
		"533": claims.ErrDisabled, "701": claims.ErrDisabled,
		"532": claims.ErrDenied, "773": claims.ErrDenied, "530": claims.ErrDenied, "531": claims.ErrDenied,
	} {
		r.d.Lie(func(k *claimstest.DirectoryKnobs) {
			k.BindResult = refusing(r.d.PersonDN("alice"), claimstest.ADRefusal(data))
		})
		r.refuses(want, "alice", alicePassword)
	}
	for code, want := range map[int]error{
		49: claims.ErrBadPassword, 48: claims.ErrBadPassword, 32: claims.ErrBadPassword, 34: claims.ErrBadPassword, 19: claims.ErrBadPassword,
		1: claims.ErrUnavailable, 2: claims.ErrUnavailable, 7: claims.ErrUnavailable, 8: claims.ErrUnavailable, 10: claims.ErrUnavailable,
		13: claims.ErrUnavailable, 14: claims.ErrUnavailable, 51: claims.ErrUnavailable, 52: claims.ErrUnavailable,
		53: claims.ErrUnavailable, 80: claims.ErrUnavailable, 255: claims.ErrUnavailable,
	} {
		r.d.Lie(func(k *claimstest.DirectoryKnobs) {
			k.BindResult = refusing(r.d.PersonDN("alice"), &claimstest.Result{Code: code, Message: alicePassword})
		})
		r.refuses(want, "alice", alicePassword)
	}
	r.d.Honest()
	r.mustLogin()

	// Another server's words are not read.
	plain := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	plain.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.BindResult = refusing(plain.d.PersonDN("alice"), claimstest.ADRefusal("533"))
	})
	plain.refuses(claims.ErrBadPassword, "alice", alicePassword)

	// 389 Directory Server is unwilling for a disabled account, whatever the password.
	plain.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.BindResult = refusing(plain.d.PersonDN("alice"), &claimstest.Result{Code: 53})
	})
	plain.refuses(claims.ErrUnavailable, "alice", alicePassword)
	plain.d.Change(plain.d.PersonDN("alice"), func(e *claimstest.Entry) { e.Account = claimstest.AccountDisabled })
	plain.refuses(claims.ErrBadPassword, "alice", alicePassword)
}

func refusing(who string, with *claimstest.Result) func(string) *claimstest.Result {
	return func(dn string) *claimstest.Result {
		if dn == who {
			return with
		}
		return nil
	}
}

// A bind ends a lock whose time has run out: what was read before it is old.
func TestLockThatTheBindEnds(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	lock := func(e *claimstest.Entry) { e.Attributes["pwdAccountLockedTime"] = []string{"20200101000000Z"} }
	r.d.Change(r.d.PersonDN("alice"), lock)
	var once sync.Once
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.BindResult = func(dn string) *claimstest.Result {
			if dn == r.d.PersonDN("alice") {
				once.Do(func() {
					r.d.Change(dn, func(e *claimstest.Entry) { delete(e.Attributes, "pwdAccountLockedTime") })
				})
			}
			return nil
		}
	})
	r.mustLogin()
	r.d.Change(r.d.PersonDN("alice"), lock) // and this one stays
	r.refuses(claims.ErrDenied, "alice", alicePassword)
}

// LD-13: a wrong password and a user that does not exist take equally long.
func TestWrongPasswordAndNobodyTakeEquallyLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	r := newLDAPRig(t, claimstest.DirectoryOptions{AD: true}, nil)
	r.mustLogin()
	took := map[string][]time.Duration{}
	for range 200 {
		for _, user := range []string{"alice", "nobody"} {
			began := time.Now()
			_, _, err := r.src.CheckPassword(context.Background(), claims.Credentials{User: user, Password: "a wrong pass phrase"})
			took[user] = append(took[user], time.Since(began))
			if err != claims.ErrBadPassword { //nolint:errorlint // the very same
				t.Fatal(err)
			}
		}
	}
	p95 := func(user string) time.Duration {
		slices.Sort(took[user])
		return took[user][len(took[user])*95/100]
	}
	known, unknown := p95("alice"), p95("nobody")
	t.Logf("p95 of 200: known %v, unknown %v", known, unknown)
	if d := (known - unknown).Abs(); d > 20*time.Millisecond {
		t.Errorf("p95 differs by %v", d)
	}
	r.mustLogin()
}

// The service account's connections are few, however many sign in.
func TestPoolIsBounded(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	r.d.Lie(func(k *claimstest.DirectoryKnobs) { k.Delay = 5 * time.Millisecond })
	var failed atomic.Int32
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if _, _, err := r.src.CheckPassword(context.Background(), claims.Credentials{User: "alice", Password: alicePassword}); err != nil {
				failed.Add(1)
			}
		})
	}
	all.Wait()
	bound := map[int]bool{}
	for _, o := range r.d.Binds() {
		if o.DN == r.d.ServiceDN {
			bound[o.Conn] = true
		}
	}
	if failed.Load() > 0 || len(bound) > 8 || len(bound) == 0 {
		t.Errorf("%d failed, %d connections of the service account", failed.Load(), len(bound))
	}
	r.d.Honest()
	r.mustLogin()
}

// trap listens where nobody should come.
func trap(t *testing.T) (url string, came func() int32) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			c.Close()
		}
	})
	t.Cleanup(func() { ln.Close(); done.Wait() })
	return "ldap://" + ln.Addr().String() + "/dc=evil", n.Load
}
