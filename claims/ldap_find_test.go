package claims_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

func TestFindTellsHowWithoutAPassword(t *testing.T) {
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{AD: true}, nested)
	r.member([2]string{"alice", "a"}, [2]string{"a", "b"})
	for _, name := range []string{"alice", "EXAMPLE\\alice", "alice@example.com"} {
		r.d.Forget()
		f, err := r.src.Find(t.Context(), name)
		if err != nil || f.Problem != "" {
			t.Fatalf("%s: %v %+v", name, err, f)
		}
		if f.Entry != r.alice || f.Subject != r.d.Subject(r.alice) || f.Identity.Subject != f.Subject || f.Account != "" {
			t.Errorf("%s: %+v", name, f)
		}
		if all := strings.Join(f.Searches, "\n"); !strings.Contains(all, "(sAMAccountName=alice)") || !strings.Contains(all, ".1941:=CN=alice,") ||
			!strings.Contains(all, ".1941:=CN=Domain Users,") ||
			!strings.Contains(all, "(objectSid=\\01\\05") {
			t.Errorf("%s: searches %s", name, all)
		}
		for _, b := range r.d.Binds() {
			if b.DN != r.d.ServiceDN {
				t.Errorf("%s: bound as %s", name, b.DN)
			}
		}
	}
	f := r.find(r.src)
	raw, err := json.Marshal(f.Groups)
	want := `[{"claim":"memberOf","value":"CN=Domain Users,CN=Users,dc=example,dc=com","how":"primary"},` +
		`{"claim":"memberOf","value":"cn=a,ou=groups,dc=example,dc=com","how":"direct"},` +
		`{"claim":"memberOf","value":"cn=b,ou=groups,dc=example,dc=com","how":"nested","through":["cn=a,ou=groups,dc=example,dc=com"]}]`
	if err != nil || string(raw) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, raw, want)
	}
}

func TestFindSaysWhyNobodyIsFound(t *testing.T) { // LD-01, LD-04
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{})
	twin := r.d.Person("alice", "another password")
	twin.DN = "uid=alice,ou=elsewhere," + r.d.BaseDN
	for name, c := range map[string]struct{ user, problem string }{
		"nobody":    {"carol", "no entry has this user name"},
		"injection": {"*)(uid=*))(|(uid=*", "no entry has this user name"},
		"star":      {"*", "no entry has this user name"},
		"empty":     {"", "no account can have this user name"},
		"NUL":       {"alice\x00", "no account can have this user name"},
		"long":      {strings.Repeat("a", 10_000), "no account can have this user name"},
		"not UTF-8": {"alice\xff", "no account can have this user name"},
	} {
		f, err := r.src.Find(t.Context(), c.user)
		if err != nil || f.Problem != c.problem || f.Entry != "" || f.Identity != nil || f.Groups == nil || f.Searches == nil {
			t.Errorf("%s: %v %+v", name, err, f)
		}
	}
	if f := r.find(r.src); f.Entry != r.alice {
		t.Errorf("alice is %s", f.Entry)
	}
	r.d.Put(twin)
	if f, err := r.src.Find(t.Context(), "alice"); err != nil || !strings.HasPrefix(f.Problem, "several entries") || f.Identity != nil {
		t.Errorf("two entries: %v %+v", err, f)
	}
}

func TestFindSaysWhatStandsAgainstAnAccount(t *testing.T) { // LD-14
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{AD: true})
	for state, words := range map[claimstest.Account]string{
		claimstest.AccountDisabled: "disabled", claimstest.AccountExpired: "expired", claimstest.AccountLocked: "locked",
		claimstest.AccountMustChange: "password", claimstest.AccountOpen: "",
	} {
		r.d.Change(r.alice, func(e *claimstest.Entry) { e.Account = state })
		if f := r.find(r.src); !strings.Contains(f.Account, words) || (f.Account == "") != (words == "") {
			t.Errorf("%s: %q", state, f.Account)
		}
	}
	r.d.Change(r.alice, func(e *claimstest.Entry) { e.Account = claimstest.AccountOpen })
	apart := r.source(func(c *claims.LDAPConfig) { c.Subject = "employeeNumber" })
	if f := r.find(apart); !strings.Contains(f.Account, "employeeNumber") || f.Subject != "" {
		t.Errorf("without a subject: %+v", f)
	}
}

func TestFindWhenTheDirectoryFails(t *testing.T) { // LD-10, LD-11
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{})
	r.member([2]string{"alice", "a"})
	wrong := r.source(func(c *claims.LDAPConfig) { c.BindPassword = "the old one" })
	if f, err := wrong.Find(t.Context(), "alice"); !errors.Is(err, claims.ErrUnavailable) || strings.Contains(err.Error(), "the old one") {
		t.Errorf("service account refused: %v %v", f, err)
	}
	r.complete(r.src, r.dns("a")...)
	// A connection of the pool that the server closed is no failure.
	r.d.DropConnections()
	r.complete(r.src, r.dns("a")...)
	if err := r.d.SetOffline(true); err != nil {
		t.Fatal(err)
	}
	r.d.DropConnections()
	if f, err := r.src.Find(t.Context(), "alice"); !errors.Is(err, claims.ErrUnavailable) {
		t.Errorf("offline: %v %v", f, err)
	}
}

// Nothing of a search for one is in what is said of another.
func TestFindAtTheSameTime(t *testing.T) {
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{}, nested)
	r.d.Put(r.d.Person("bob", "the password of bob"), r.d.Group("a", r.alice), r.d.Group("b", r.d.PersonDN("bob")))
	done := make(chan string)
	for i := range 16 {
		name := []string{"alice", "bob"}[i%2]
		go func() {
			f, err := r.src.Find(t.Context(), name)
			switch {
			case err != nil || len(f.Groups) != 1 || nameIn(f.Groups[0].Value) != name[:1]:
				done <- name + ": another's groups"
			case slices.ContainsFunc(f.Searches, func(s string) bool { return !strings.Contains(s, name) && !strings.HasPrefix(s, "nested") }):
				done <- name + ": " + strings.Join(f.Searches, "\n")
			default:
				done <- ""
			}
		}()
	}
	for range 16 {
		if fault := <-done; fault != "" {
			t.Error(fault)
		}
	}
}
