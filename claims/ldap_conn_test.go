package claims_test

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// Bounds that the design sets.
const (
	dialBound      = 3 * time.Second
	operationBound = 5 * time.Second
)

func overStartTLS(o *claims.LDAPOptions, d *claimstest.Directory) {
	o.Config.URL, o.Config.StartTLS = claims.URLs{d.URL}, true
}

// LD-05: StartTLS that does not come about ends the connection. No password is
// ever sent in clear.
func TestStartTLSIsNotToBeStripped(t *testing.T) {
	t.Parallel()
	for _, lie := range []string{"refuse", "unknown", "clear", "close"} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			r := newLDAPRig(t, claimstest.DirectoryOptions{}, overStartTLS)
			r.d.Lie(func(k *claimstest.DirectoryKnobs) { k.StartTLS = lie })
			r.refuses(claims.ErrUnavailable, "alice", alicePassword)
			asked := 0
			for _, o := range r.d.Operations() {
				if o.Kind == "starttls" {
					asked++
				} else {
					t.Errorf("sent in clear: %+v", o)
				}
			}
			if asked == 0 {
				t.Error("StartTLS was not asked for")
			}
			eventually(t, "the connection is closed", func() bool { open, _ := r.d.Connections(); return open == 0 })
			r.d.Honest()
			r.mustLogin()

			// Between the search and the bind, too.
			r.d.Lie(func(k *claimstest.DirectoryKnobs) { k.StartTLS = lie })
			r.d.Forget()
			r.refuses(claims.ErrUnavailable, "alice", alicePassword)
			if binds := r.d.Binds(); len(binds) > 0 {
				t.Errorf("binds: %+v", binds)
			}
		})
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// LD-06: a certificate that does not hold is not talked to.
func TestDirectoryCertificates(t *testing.T) {
	t.Parallel()
	for _, over := range []string{"ldaps", "StartTLS"} {
		for name, lie := range map[string]func(*claimstest.DirectoryKnobs){
			"expired":         func(k *claimstest.DirectoryKnobs) { k.Certificate = "expired" },
			"of another host": func(k *claimstest.DirectoryKnobs) { k.Certificate = "other-host" },
			"of nobody known": func(k *claimstest.DirectoryKnobs) { k.Certificate = "other-ca" },
			"TLS 1.1":         func(k *claimstest.DirectoryKnobs) { k.MaxTLS = tls.VersionTLS11 },
		} {
			t.Run(name+" over "+over, func(t *testing.T) {
				t.Parallel()
				r := newLDAPRig(t, claimstest.DirectoryOptions{}, func(o *claims.LDAPOptions, d *claimstest.Directory) {
					if over == "StartTLS" {
						overStartTLS(o, d)
					}
				})
				r.d.Lie(lie)
				r.refuses(claims.ErrUnavailable, "alice", alicePassword)
				if binds := r.d.Binds(); len(binds) > 0 {
					t.Errorf("binds: %+v", binds)
				}
				r.d.Lie(func(k *claimstest.DirectoryKnobs) { *k = claimstest.DirectoryKnobs{MaxTLS: tls.VersionTLS12} })
				r.mustLogin()
			})
		}
	}
	t.Run("the system's authorities do not know ours", func(t *testing.T) {
		t.Parallel()
		r := newLDAPRig(t, claimstest.DirectoryOptions{}, func(o *claims.LDAPOptions, _ *claimstest.Directory) { o.Config.CAFile = "" })
		r.refuses(claims.ErrUnavailable, "alice", alicePassword)
	})
	t.Run("by the name localhost", func(t *testing.T) {
		t.Parallel()
		r := newLDAPRig(t, claimstest.DirectoryOptions{}, func(o *claims.LDAPOptions, d *claimstest.Directory) {
			o.Config.URL = claims.URLs{strings.Replace(d.URLS, "127.0.0.1", "localhost", 1)}
		})
		r.mustLogin()
	})
}

func TestDirectorySettingsThatCannotBe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.pem")
	if err := os.WriteFile(junk, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg claims.LDAPConfig
		ok  bool
	}{
		"ldaps":                     {claims.LDAPConfig{URL: claims.URLs{"ldaps://dc.example.com"}}, true},
		"StartTLS":                  {claims.LDAPConfig{URL: claims.URLs{"ldap://dc.example.com"}, StartTLS: true}, true},
		"clear on loopback":         {claims.LDAPConfig{URL: claims.URLs{"ldap://127.0.0.1", "ldap://[::1]:3389", "ldap://localhost"}}, true},
		"LD-05 clear":               {claims.LDAPConfig{URL: claims.URLs{"ldap://dc.example.com"}}, false},
		"LD-05 the second in clear": {claims.LDAPConfig{URL: claims.URLs{"ldaps://dc.example.com", "ldap://dc2.example.com"}}, false},
		"LD-05 a name like ours":    {claims.LDAPConfig{URL: claims.URLs{"ldap://localhost.example.com"}}, false},
		"no server":                 {claims.LDAPConfig{}, false},
		"another protocol":          {claims.LDAPConfig{URL: claims.URLs{"https://dc.example.com"}}, false},
		"no host":                   {claims.LDAPConfig{URL: claims.URLs{"ldaps://"}}, false},
		"no such file":              {claims.LDAPConfig{URL: claims.URLs{"ldaps://dc.example.com"}, CAFile: filepath.Join(dir, "none")}, false},
		"no certificate":            {claims.LDAPConfig{URL: claims.URLs{"ldaps://dc.example.com"}, CAFile: junk}, false},
	} {
		src, err := claims.NewLDAP(claims.LDAPOptions{Name: "corp", Config: c.cfg})
		if (err == nil) != c.ok || (src == nil) == c.ok || err != nil && !strings.HasPrefix(err.Error(), "corp: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// LD-07: no referral is followed, with or without somebody's password.
func TestReferralsLeadNowhere(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	evil, came := trap(t)
	referral := &claimstest.Result{Code: 10, Referrals: []string{evil}, Entries: -1}
	for name, c := range map[string]struct {
		lie  func(*claimstest.DirectoryKnobs)
		want error
	}{
		"beside entries": {func(k *claimstest.DirectoryKnobs) { k.Continuations = []string{evil, evil} }, nil},
		"of a search": {func(k *claimstest.DirectoryKnobs) {
			k.SearchResult = func(q claimstest.SearchQuery) *claimstest.Result {
				if q.Base == "" {
					return nil
				}
				return referral
			}
		}, claims.ErrUnavailable},
		"of the person's bind": {func(k *claimstest.DirectoryKnobs) { k.BindResult = refusing(r.d.PersonDN("alice"), referral) }, claims.ErrUnavailable},
		"of every bind":        {func(k *claimstest.DirectoryKnobs) { k.BindResult = func(string) *claimstest.Result { return referral } }, claims.ErrUnavailable},
	} {
		r.d.Lie(func(k *claimstest.DirectoryKnobs) { *k = claimstest.DirectoryKnobs{}; c.lie(k) })
		r.d.DropConnections()
		id, _, err := r.login("alice", alicePassword)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	if n := came(); n > 0 {
		t.Errorf("the address of a referral was called %d times", n)
	}
	r.d.Honest()
	r.mustLogin()
}

// LD-10: a directory that hangs costs bounded time, whether the caller is
// patient or not.
func TestDirectoryThatHangs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		lie      func(*claimstest.DirectoryKnobs)
		patience time.Duration
		within   time.Duration
		startTLS bool
	}{
		{"when called, for ever", func(k *claimstest.DirectoryKnobs) { k.HangAccept = true }, time.Hour, dialBound, false},
		{"in a search, for ever", func(k *claimstest.DirectoryKnobs) { k.HangSearch = func(claimstest.SearchQuery) bool { return true } }, time.Hour, operationBound, true},
		{"with entries, for ever", func(k *claimstest.DirectoryKnobs) { k.EntriesEndless = true }, time.Hour, operationBound, false},
		{"when called", func(k *claimstest.DirectoryKnobs) { k.HangAccept = true }, 200 * time.Millisecond, time.Second, true},
		{"in a bind", func(k *claimstest.DirectoryKnobs) { k.HangBind = true }, 200 * time.Millisecond, time.Second, false},
		{"in a search", func(k *claimstest.DirectoryKnobs) { k.HangSearch = func(claimstest.SearchQuery) bool { return true } }, 200 * time.Millisecond, time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newLDAPRig(t, claimstest.DirectoryOptions{}, func(o *claims.LDAPOptions, d *claimstest.Directory) {
				if c.startTLS {
					overStartTLS(o, d)
				}
			})
			r.d.Lie(c.lie)
			ctx, cancel := context.WithTimeout(context.Background(), c.patience)
			defer cancel()
			began := time.Now()
			id, _, err := r.loginWithin(ctx, "alice", alicePassword)
			if !errors.Is(err, claims.ErrUnavailable) {
				t.Errorf("%+v, %v", id, err)
			}
			if took := time.Since(began); took > c.within+time.Second {
				t.Errorf("took %v", took)
			}
			r.d.Honest()
			r.d.DropConnections()
			r.mustLogin()
		})
	}
	t.Run("and a caller who goes", func(t *testing.T) {
		t.Parallel()
		r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
		r.mustLogin()
		r.d.Lie(func(k *claimstest.DirectoryKnobs) { k.HangBind = true })
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, _, err := r.loginWithin(ctx, "alice", alicePassword); !errors.Is(err, claims.ErrUnavailable) || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		r.d.Honest()
		r.mustLogin()
	})
}

// LD-10: a connection that the server closed meanwhile costs nobody a login.
func TestConnectionsThatTheServerDropped(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	for range 5 {
		r.mustLogin()
		r.d.DropConnections()
	}
	// Dropped while it is used: the pooled one dies under the search.
	r.mustLogin()
	dropped := false
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.HangSearch = func(claimstest.SearchQuery) bool {
			if !dropped {
				dropped = true
				r.d.DropConnections()
				return true
			}
			return false
		}
	})
	r.mustLogin()
	if !dropped {
		t.Error("no search was dropped")
	}
}

// LD-10: a part of an answer is no answer.
func TestPartsOfAnswersSignNobodyIn(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	subject := r.mustLogin().Subject
	for _, code := range []int{3, 4, 11, 1, 51, 52, 53, 80} {
		for _, entries := range []int{0, 1} {
			r.d.Lie(func(k *claimstest.DirectoryKnobs) {
				k.SearchResult = func(q claimstest.SearchQuery) *claimstest.Result {
					if q.Base == "" {
						return nil
					}
					return &claimstest.Result{Code: code, Entries: entries, Message: alicePassword}
				}
			})
			r.refuses(claims.ErrUnavailable, "alice", alicePassword)
			if _, _, err := r.src.Refresh(context.Background(), nil, subject); !errors.Is(err, claims.ErrUnavailable) || errors.Is(err, claims.ErrDenied) {
				t.Errorf("code %d with %d entries: refresh: %v", code, entries, err)
			}
		}
	}
	r.d.Honest()
	r.mustLogin()
}

// LD-11: the service account is refused. Nobody can sign in, an operator hears
// of it, and nobody who is signed in loses anything.
func TestServiceAccountIsRefused(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	subject := r.mustLogin().Subject
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.BindResult = refusing(r.d.ServiceDN, &claimstest.Result{Code: 49, Message: r.d.ServicePassword})
	})
	r.d.DropConnections()
	r.refuses(claims.ErrUnavailable, "alice", alicePassword)
	id, _, err := r.src.Refresh(context.Background(), nil, subject)
	if id != nil || !errors.Is(err, claims.ErrUnavailable) || errors.Is(err, claims.ErrDenied) || errors.Is(err, claims.ErrGrantEnded) {
		t.Errorf("refresh: %v, %v", id, err)
	}
	alarms := r.logs.FilterLevelExact(zapcore.ErrorLevel).All()
	if len(alarms) == 0 || alarms[0].ContextMap()["source"] != "corp" || !strings.Contains(alarms[0].Message, "bind_password") {
		t.Errorf("alarms: %v", alarms)
	}
	r.holdsNone(err, r.d.ServicePassword)
	if err := r.src.Ready(); !errors.Is(err, claims.ErrUnavailable) {
		t.Errorf("ready: %v", err)
	}
	if people := r.bindsOfPeople(); len(people) > 1 { // the first login's
		t.Errorf("binds: %+v", people)
	}
	r.d.Honest()
	r.mustLogin()
	if err := r.src.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
}

// LD-11: a service account that is refused is not locked by our trying.
func TestServiceAccountThatIsRefusedIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.BindResult = refusing(r.d.ServiceDN, &claimstest.Result{Code: 49})
	})
	for range 50 {
		r.refuses(claims.ErrUnavailable, "alice", alicePassword)
	}
	if n := len(r.d.Binds()); n != 3 {
		t.Errorf("50 logins tried the service account %d times", n)
	}
	r.d.Honest()
	r.refuses(claims.ErrUnavailable, "alice", alicePassword)
	r.src.Reread()
	r.mustLogin()
	r.d.DropConnections()
	r.mustLogin()
}

// LD-18: nothing that a server can send is a success or a crash.
func TestMalformedAnswers(t *testing.T) {
	t.Parallel()
	for _, m := range claimstest.MalformedAnswers() {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			r := newLDAPRig(t, claimstest.DirectoryOptions{}, nil)
			for _, when := range []string{"bind", "search"} {
				r.mustLogin() // the service account's connection lies ready
				r.d.Lie(func(k *claimstest.DirectoryKnobs) {
					k.CloseAfterRaw = m.Name != "nothing"
					k.Raw = func(kind string, id int64) []byte {
						if kind != when {
							return nil
						}
						return m.Bytes(kind, id)
					}
				})
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				began := time.Now()
				id, _, err := r.loginWithin(ctx, "alice", alicePassword)
				cancel()
				if !errors.Is(err, claims.ErrUnavailable) || time.Since(began) > 3*time.Second {
					t.Errorf("in place of the answer to a %s: %+v, %v after %v", when, id, err, time.Since(began))
				}
				r.d.Honest()
				r.d.DropConnections()
			}
			r.mustLogin()
		})
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	second := claimstest.StartDirectory(t, claimstest.DirectoryOptions{})
	clock := &clock{}
	ca := filepath.Join(t.TempDir(), "both.pem")
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, func(o *claims.LDAPOptions, first *claimstest.Directory) {
		if err := os.WriteFile(ca, slices.Concat(first.CAPEM, second.CAPEM), 0o600); err != nil {
			t.Fatal(err)
		}
		o.Config.URL, o.Config.CAFile, o.Now = claims.URLs{first.URLS, second.URLS}, ca, clock.now
	})
	alice, _ := r.d.Entry(r.d.PersonDN("alice"))
	second.Put(alice)
	uses := func(d *claimstest.Directory, want bool) {
		t.Helper()
		r.d.Forget()
		second.Forget()
		r.mustLogin()
		if got := len(d.Operations()) > 0; got != want {
			t.Errorf("the server was used: %v, want %v", got, want)
		}
	}
	uses(r.d, true)
	uses(second, false)

	if err := r.d.SetOffline(true); err != nil {
		t.Fatal(err)
	}
	uses(second, true)
	if err := r.d.SetOffline(false); err != nil {
		t.Fatal(err)
	}
	uses(r.d, false) // it is left alone while the other works
	clock.advance(31 * time.Second)
	second.DropConnections()
	uses(r.d, true)
	uses(second, false)

	// LD-10: a server that hangs in a search is as good as none, within one login.
	r.d.DropConnections()
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.HangSearch = func(q claimstest.SearchQuery) bool { return q.Base != "" }
	})
	uses(second, true)
	uses(r.d, false)

	// Both at fault: nobody is signed in, and both are tried.
	r.d.Lie(func(k *claimstest.DirectoryKnobs) { *k = claimstest.DirectoryKnobs{Certificate: "expired"} })
	second.Lie(func(k *claimstest.DirectoryKnobs) { k.Certificate = "expired" })
	r.d.DropConnections()
	second.DropConnections()
	r.refuses(claims.ErrUnavailable, "alice", alicePassword)
	second.Honest()
	uses(second, true)
}

func TestRefreshReadsTheEntryAgain(t *testing.T) {
	t.Parallel()
	for kind, opts := range directoryKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newLDAPRig(t, opts, nil)
			first, g, err := r.login("alice", alicePassword)
			if err != nil {
				t.Fatal(err)
			}
			refresh := func(subject string) (*claims.Identity, *claims.Grant, error) {
				t.Helper()
				id, g, err := r.src.Refresh(context.Background(), g, subject)
				r.holdsNone(err, alicePassword, r.d.ServicePassword)
				return id, g, err
			}
			r.d.Forget()
			again, g2, err := refresh(first.Subject)
			if err != nil || again.Subject != first.Subject || g2.RefreshToken == "" || again.IssuedAt.Before(first.IssuedAt) {
				t.Fatalf("%+v, %+v, %v", again, g2, err)
			}
			one, _ := first.Claims.MarshalJSON()
			two, _ := again.Claims.MarshalJSON()
			if string(one) != string(two) {
				t.Errorf("the same entry is\n%s\nand then\n%s", one, two)
			}
			if people := r.bindsOfPeople(); len(people) > 0 {
				t.Errorf("binds without a password: %+v", people)
			}

			// Renamed and moved, it is the same person, in another group.
			r.d.Change(r.d.PersonDN("alice"), func(e *claimstest.Entry) {
				e.DN = "cn=Moved,ou=elsewhere," + r.d.BaseDN
				e.Attributes["mail"] = []string{"alice@example.org"}
			})
			r.d.Put(r.d.Group("ops", "cn=Moved,ou=elsewhere,"+r.d.BaseDN))
			again, _, err = refresh(first.Subject)
			if err != nil || again.Claims.Text("email") != "alice@example.org" || !slices.Equal(values(t, again.Claims, "memberOf"), []string{r.d.GroupDN("ops")}) {
				t.Errorf("%+v, %v", again, err)
			}

			// One subject that two entries have is nobody's.
			e, _ := r.d.Entry("cn=Moved,ou=elsewhere," + r.d.BaseDN)
			e.DN = "cn=Twin,ou=elsewhere," + r.d.BaseDN
			delete(e.Attributes, "distinguishedName")
			r.d.Put(e)
			if _, _, err = refresh(first.Subject); !errors.Is(err, claims.ErrUnavailable) || errors.Is(err, claims.ErrDenied) {
				t.Errorf("two entries: %v", err)
			}
			r.d.Remove("cn=Twin,ou=elsewhere,"+r.d.BaseDN, "cn=Moved,ou=elsewhere,"+r.d.BaseDN)
			_, _, err = refresh(first.Subject)
			checkAccountError(t, "gone", err, claims.ErrDisabled, first.Subject)

			// Others stay, and a subject of another kind only ends the session.
			bob, _, err := r.login("bob", bobPassword)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err = refresh(bob.Subject); err != nil {
				t.Errorf("bob: %v", err)
			}
			if _, _, err = refresh("*"); kind == "Active Directory" && (!errors.Is(err, claims.ErrGrantEnded) || errors.Is(err, claims.ErrDisabled)) {
				t.Errorf("a subject that is no GUID: %v", err)
			}

			// A directory that shows nobody says of nobody that he is gone.
			r.d.Remove(r.d.PersonDN("bob"))
			if _, _, err = refresh(bob.Subject); !errors.Is(err, claims.ErrUnavailable) || errors.Is(err, claims.ErrDenied) {
				t.Errorf("an empty directory: %v", err)
			}
		})
	}
}

func TestProbeSaysWhatTheDirectoryIs(t *testing.T) {
	t.Parallel()
	for kind, opts := range directoryKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newLDAPRig(t, opts, func(o *claims.LDAPOptions, _ *claimstest.Directory) { o.Config.NestedGroups = true })
			line, err := r.src.Probe(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{r.d.URLS, "TLS 1.3", kind, "bound as " + r.d.ServiceDN, "base " + r.d.BaseDN + " found", "nested groups by"} {
				if !strings.Contains(line, part) {
					t.Errorf("%q lacks %q", line, part)
				}
			}
			if strings.Contains(line, "\n") {
				t.Errorf("more than one line: %q", line)
			}
		})
	}
	wrong := func(change func(*claims.LDAPConfig)) *ldapRig {
		return newLDAPRig(t, claimstest.DirectoryOptions{}, func(o *claims.LDAPOptions, _ *claimstest.Directory) { change(&o.Config) })
	}
	for name, c := range map[string]struct {
		rig  *ldapRig
		says string
	}{
		"base":      {wrong(func(c *claims.LDAPConfig) { c.BaseDN = "dc=example,dc=org" }), "base_dn"},
		"password":  {wrong(func(c *claims.LDAPConfig) { c.BindPassword = "not the one" }), "service account"},
		"filter":    {wrong(func(c *claims.LDAPConfig) { c.UserFilter = "(&(objectClass=none)(uid={user}))" }), "nobody"},
		"anonymous": {wrong(func(c *claims.LDAPConfig) { c.BindDN = "" }), "insufficient access"},
	} {
		line, err := c.rig.src.Probe(context.Background())
		if line != "" || !errors.Is(err, claims.ErrUnavailable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %q, %v; want %q", name, line, err, c.says)
		}
		c.rig.holdsNone(err, "not the one")
	}
}
