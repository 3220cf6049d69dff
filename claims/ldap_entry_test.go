package claims_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

func needing(names ...string) func(*claims.LDAPOptions, *claimstest.Directory) {
	return func(o *claims.LDAPOptions, _ *claimstest.Directory) { o.Needed = func() []string { return names } }
}

func TestClaimsOfAnEntry(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, needing(
		"MEMBEROF", "Department", "/title", "/title/x", "photo", "nothing", "email", "Name", "no attribute", "employeeType", "departmentNumber", "mail",
	))
	e := r.d.Person("carol", "carol's pass phrase")
	e.Attributes["department"] = []string{"sales", "Accounts", "sales", "büro"}
	e.Attributes["title"] = []string{"CTO"}
	e.Attributes["photo"] = []string{"text", "\xff\xd8"}
	e.Attributes["mail"] = []string{"z@example.com", "a@example.com"}
	e.Attributes["name"] = []string{"an attribute of that name"}
	e.Attributes["email"] = []string{"and@another.example"}
	e.Attributes["departmentNumber"] = []string{"1", "2", "3"}
	r.d.Put(e, r.d.Group("b", e.DN), r.d.Group("a", e.DN), r.d.Group("C", e.DN))
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.Rewrite = func(_ claimstest.SearchQuery, found []claimstest.Found) []claimstest.Found {
			for i := range found {
				for j := range found[i].Attributes {
					a := &found[i].Attributes[j]
					slices.Reverse(a.Values)
					if a.Name == "departmentNumber" {
						a.Name = "departmentNumber;range=0-2"
					}
				}
				slices.Reverse(found[i].Attributes)
				found[i].Attributes = append(found[i].Attributes, claimstest.FoundAttribute{Name: "secret", Values: []string{"not asked for"}})
			}
			return found
		}
	})
	id, _, err := r.login("carol", "carol's pass phrase")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := id.Claims.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"Department": []any{"Accounts", "büro", "sales"}, "title": []any{"CTO"}, "photo": nil, "departmentNumber": nil,
		"MEMBEROF": []any{r.d.GroupDN("C"), r.d.GroupDN("a"), r.d.GroupDN("b")}, "mail": []any{"a@example.com", "z@example.com"},
		"preferred_username": []any{"carol"}, "email": []any{"a@example.com"}, "name": []any{"Carol Example"},
	}
	wanted, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if back, _ := json.Marshal(got); string(back) != string(wanted) {
		t.Errorf("claims are\n%s, want\n%s", back, wanted)
	}
	for claim, state := range map[string]claims.State{
		"photo": claims.Unknown, "departmentNumber": claims.Unknown, "nothing": claims.Absent, "secret": claims.Absent, "Department": claims.Complete,
	} {
		if got := id.Claims.Resolve(claim); got.State != state {
			t.Errorf("%s is %v, want %v", claim, got, state)
		}
	}
	for _, q := range r.d.Searches() {
		if slices.Contains(q.Attributes, "no attribute") || slices.Contains(q.Attributes, "*") {
			t.Errorf("asked for %q", q.Attributes)
		}
	}
}

// No groups and groups that could not be read are not one.
func TestGroupsThatCannotBeReadDoNotKeepAnybodyOut(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{AD: true}, func(o *claims.LDAPOptions, _ *claimstest.Directory) { o.Config.NestedGroups = true })
	id := r.mustLogin()
	if got := id.Claims.Resolve("memberOf"); got.State != claims.Complete || len(got.Values) != 2 {
		t.Fatalf("memberOf is %v", got)
	}
	for name, result := range map[string]*claimstest.Result{
		"fails": {Code: 52}, "is partial": {Code: 4, Entries: 1}, "is refused": {Code: 50}, "refers": {Code: 10},
	} {
		r.d.Lie(func(k *claimstest.DirectoryKnobs) {
			k.SearchResult = func(q claimstest.SearchQuery) *claimstest.Result {
				if slices.Contains(q.Attributes, "userAccountControl") || q.Base == "" {
					return nil // the person's entry
				}
				return result
			}
		})
		id, _, err := r.login("alice", alicePassword)
		if err != nil {
			t.Fatalf("a search for groups %s: %v", name, err)
		}
		if got := id.Claims.Resolve("memberOf"); got.State != claims.Unknown {
			t.Errorf("a search for groups %s: memberOf is %v, want unknown", name, got)
		}
	}
	// After the person's bind, no connection of the service account works.
	var bound atomic.Bool
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		*k = claimstest.DirectoryKnobs{CloseAfterRaw: true}
		k.BindResult = func(dn string) *claimstest.Result {
			if bound.Load() {
				return &claimstest.Result{Code: 49}
			}
			bound.Store(dn == r.d.PersonDN("alice"))
			return nil
		}
		k.Raw = func(kind string, _ int64) []byte {
			if kind == "search" && bound.Load() {
				return []byte{}
			}
			return nil
		}
	})
	for _, kept := range []bool{true, false} {
		if !kept {
			r.src.Close() // and no connection is kept: the service account has to bind again
		}
		bound.Store(false)
		r.d.DropConnections()
		id, _, err := r.login("alice", alicePassword)
		if err != nil {
			t.Fatal(err)
		}
		if got := id.Claims.Resolve("memberOf"); got.State != claims.Unknown {
			t.Errorf("kept %v: memberOf is %v, want unknown", kept, got)
		}
		if id.Claims.Text("email") != "alice@example.com" {
			t.Errorf("what the entry said is gone: %v", id.Claims.Names())
		}
	}
}

func TestUserNameIsTheFirstThatThereIs(t *testing.T) {
	t.Parallel()
	r := newLDAPRig(t, claimstest.DirectoryOptions{}, func(o *claims.LDAPOptions, _ *claimstest.Directory) {
		o.Config.UserFilter = "(description={user})"
		o.Needed = func() []string { return nil }
	})
	for i, c := range []struct {
		set  map[string][]string
		want string
	}{
		{map[string][]string{"sAMAccountName": {"sam"}, "uid": {"uid"}, "userPrincipalName": {"upn@x"}}, "sam"},
		{map[string][]string{"uid": {"uid2", "uid1"}, "userPrincipalName": {"upn@x"}}, "uid1"},
		{map[string][]string{"userPrincipalName": {"upn@x"}, "uid": {"\xff"}}, "upn@x"},
		{nil, "Common"},
	} {
		e := claimstest.Entry{DN: "cn=Common,ou=x," + r.d.BaseDN, Password: alicePassword, Attributes: map[string][]string{"description": {"carol"}}}
		for k, v := range c.set {
			e.Attributes[k] = v
		}
		r.d.Put(e)
		id, _, err := r.login("carol", alicePassword)
		if err != nil {
			t.Fatal(err)
		}
		if got := id.Claims.Text("preferred_username"); got != c.want {
			t.Errorf("%d: %q, want %q", i, got, c.want)
		}
		if got := id.Claims.Resolve("email"); got.State != claims.Absent {
			t.Errorf("%d: email is %v", i, got)
		}
		if names := id.Claims.Names(); !slices.Equal(names, []string{"name", "preferred_username"}) {
			t.Errorf("%d: claims that nobody needs: %q", i, names)
		}
	}
}

func TestWhatTellsPeopleApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ad        bool
		attribute string
		values    []string
		want      string // empty: refused
	}{
		"another attribute":     {false, "employeeNumber", []string{"4711"}, "4711"},
		"in another case":       {false, "EMPLOYEENUMBER", []string{"4711"}, "4711"},
		"as it is written":      {false, "employeeNumber", []string{" Käse*(1)"}, " Käse*(1)"},
		"GUID said out loud":    {true, "objectGUID", []string{"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"}, "33221100-5544-7766-8899-aabbccddeeff"},
		"GUID by itself":        {true, "", []string{"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"}, "33221100-5544-7766-8899-aabbccddeeff"},
		"UUID in capitals":      {false, "", []string{"597AE2F6-16A6-1027-98F4-ABCDEFABCDEF"}, "597ae2f6-16a6-1027-98f4-abcdefabcdef"},
		"none":                  {false, "employeeNumber", nil, ""},
		"two":                   {false, "employeeNumber", []string{"1", "2"}, ""},
		"empty":                 {false, "employeeNumber", []string{""}, ""},
		"no text":               {false, "employeeNumber", []string{"\xff"}, ""},
		"control characters":    {false, "employeeNumber", []string{"1\n2"}, ""},
		"GUID of fifteen bytes": {true, "", []string{"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee"}, ""},
		"two GUIDs":             {true, "", []string{"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff", "0123456789abcdef"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newLDAPRig(t, claimstest.DirectoryOptions{AD: c.ad}, func(o *claims.LDAPOptions, _ *claimstest.Directory) {
				o.Config.Subject = c.attribute
				o.Needed = func() []string { return nil }
			})
			own := map[string]string{"EMPLOYEENUMBER": "employeeNumber", "": map[bool]string{true: "objectGUID", false: "entryUUID"}[c.ad]}[c.attribute]
			if own == "" {
				own = c.attribute
			}
			r.d.Change(r.d.PersonDN("alice"), func(e *claimstest.Entry) {
				delete(e.Attributes, own)
				if c.values != nil {
					e.Attributes[own] = c.values
				}
			})
			id, _, err := r.login("alice", alicePassword)
			if c.want == "" {
				if !errors.Is(err, claims.ErrDenied) || errors.Is(err, claims.ErrDisabled) {
					t.Fatalf("%+v, %v; want a refusal", id, err)
				}
				if r.logs.FilterLevelExact(zapcore.ErrorLevel).Len() == 0 {
					t.Error("the operator hears nothing of it")
				}
				r.refuses(claims.ErrBadPassword, "alice", bobPassword)
				return
			}
			if err != nil || id.Subject != c.want {
				t.Fatalf("%+v, %v; want %q", id, err, c.want)
			}
			again, _, err := r.src.Refresh(context.Background(), nil, id.Subject)
			if err != nil || again.Subject != c.want {
				t.Errorf("refresh: %+v, %v", again, err)
			}
		})
	}
}
