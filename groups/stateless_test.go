package groups

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/claims"
)

// alone is a directory without a store.
func alone(t interface {
	Helper()
	Fatal(...any)
}, s Settings) *Directory {
	t.Helper()
	d := NewDirectory(Options{})
	if err := d.Configure(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	return d
}

// What a session carries of a statement means the same groups as the whole
// statement does, now and after a renewal that says nothing new; and it carries
// no value that no rule takes.
func TestWhatASessionCarriesMeansTheSameGroups(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		policy := drawPolicy(t, "s")
		s := Settings{
			Rules:   drawRules(t, someWhens),
			Sync:    SyncConfig{DefaultGroups: policy.Default, GroupNames: rapid.SampledFrom([]string{"", "[ab]"}).Draw(t, "names")},
			Sources: []SourceSettings{{Name: "s", Groups: claims.GroupClaims{Claims: policy.Claims, WhenAbsent: policy.WhenAbsent}}},
		}
		d := alone(t, s)
		said := drawClaims(t)
		in := SignIn{Identity: &claims.Identity{Source: "s", Subject: "alice", Claims: said, IssuedAt: time.Now()}}
		whole := d.state.Load()
		want := whole.rules.Apply(in.Identity, whole.sourcePolicy(&whole.settings.Sources[0], false))
		v, err := d.Judge(in, nil, nil)
		if (want.Denied != "") != errors.Is(err, ErrClaimMissing) || want.Denied == "" && err != nil {
			t.Fatalf("denied for %q, and the answer is %v", want.Denied, err)
		}
		if err != nil {
			return
		}
		v.Login = Login{Source: "s", Subject: "alice"}
		groups := whole.granted(want)
		again := *v
		if err := d.Regroup(&again); err != nil || !slices.Equal(v.Groups, groups) || !slices.Equal(again.Groups, groups) {
			t.Fatalf("the statement means %q, the login %q, what is carried %q: %v", groups, v.Groups, again.Groups, err)
		}
		renewed, err := d.Judge(SignIn{Identity: &claims.Identity{Source: "s", Subject: "alice"}, Refresh: true}, &again, nil)
		if err != nil || !slices.Equal(renewed.Groups, groups) {
			t.Fatalf("renewed: %v, %+v", err, renewed)
		}
		for _, name := range v.Claims.Names() {
			if slices.Contains(whole.rules.conditions("s"), name) {
				continue
			}
			for _, value := range v.Claims.Resolve(name).Values {
				if !whole.takes("s", name, value) {
					t.Fatalf("%s carries %q, which no rule takes", name, value)
				}
			}
		}
	})
}

// Names and what they are called by stay as they were where a renewal does not
// say them.
func TestARenewalThatNamesNobody(t *testing.T) {
	t.Parallel()
	d := alone(t, Settings{Names: claims.Names{User: "user", Email: "mail", Name: "cn"}, Sources: []SourceSettings{{Name: "s"}}})
	first := claims.FromMap(map[string][]string{"user": {"alice"}, "mail": {"alice@example.com"}, "cn": {"Alice"}, "other": {"x"}})
	v, err := d.Judge(SignIn{Identity: &claims.Identity{Source: "s", Subject: "1", Claims: first}}, nil, []string{"other"})
	if err != nil {
		t.Fatal(err)
	}
	if v.User.Name != "alice" || v.User.Email != "alice@example.com" || v.Claims.Text("other") != "x" {
		t.Errorf("%+v", v)
	}
	v, err = d.Judge(SignIn{Identity: &claims.Identity{Source: "s", Subject: "1", Whole: true}, Refresh: true}, v, nil)
	if err != nil || v.User.Name != "alice" || v.User.Display != "Alice" {
		t.Errorf("%v, %+v", err, v)
	}
	nameless, err := d.Judge(SignIn{Identity: &claims.Identity{Source: "s", Subject: "2"}}, nil, nil)
	if err != nil || nameless.User.Name != "2" {
		t.Errorf("%v, %+v", err, nameless)
	}
	if _, err := d.Judge(SignIn{Identity: &claims.Identity{Source: "gone", Subject: "2"}}, nil, nil); !errors.Is(err, claims.ErrDenied) {
		t.Errorf("of no source: %v", err)
	}
	if err := d.Regroup(&View{Login: Login{Source: "gone"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("of no source: %v", err)
	}
}
