package sqlstore_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

func fill(b *testing.B, s *sqlstore.Store, users, perUser int) []groups.UserID {
	b.Helper()
	ids := make([]groups.UserID, 0, users)
	groupCount := max(perUser, 1000)
	all := make([]groups.Group, groupCount)
	for i := range all {
		all[i] = groups.Group{Name: fmt.Sprintf("group-%05d", i), Control: groups.SSO}
	}
	const step = 2000
	for from := 0; from < users; from += step {
		err := s.Update(b.Context(), func(tx groups.Tx) error {
			if err := tx.CreateGroups(b.Context(), all); err != nil {
				return err
			}
			for i := from; i < min(from+step, users); i++ {
				u := groups.User{Name: fmt.Sprintf("user%06d", i)}
				if err := tx.CreateUser(b.Context(), &u); err != nil {
					return err
				}
				ids = append(ids, u.ID)
				grants := benchGrants(i, perUser, groupCount)
				values := make([]string, len(grants))
				for j, g := range grants {
					values[j] = g.Value
				}
				rec := groups.IdentityRecord{User: u.ID, Source: "entra", Subject: u.Name, IssuedAt: time.Now(),
					Claims: claims.FromMap(map[string][]string{"groups": values, "preferred_username": {u.Name}, "email": {u.Name + "@example.com"}})}
				if err := tx.PutIdentity(b.Context(), &rec); err != nil {
					return err
				}
				if err := tx.AddGrants(b.Context(), u.ID, grants, time.Now()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return ids
}

func benchGrants(user, n, groupCount int) []groups.Grant {
	out := make([]groups.Grant, n)
	for i := range out {
		g := (user*7 + i) % groupCount
		out[i] = groups.Grant{Group: fmt.Sprintf("group-%05d", g), Source: "entra", Rule: fmt.Sprintf("%016x", g), Claim: "groups",
			Value: fmt.Sprintf("a46edf67-5c31-4527-b63e-%012d", g)}
	}
	return out
}

func benchStore(b *testing.B) *sqlstore.Store {
	return open(b, filepath.Join(b.TempDir(), "groupgate.db"), sqlstore.Options{})
}

func benchAdd(b *testing.B, grants func(i int) []groups.Grant) {
	s := benchStore(b)
	fill(b, s, 1, 2000)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		err := s.Update(b.Context(), func(tx groups.Tx) error {
			u := groups.User{Name: fmt.Sprint(n)}
			if err := tx.CreateUser(b.Context(), &u); err != nil {
				return err
			}
			return tx.AddGrants(b.Context(), u.ID, grants(n), time.Now())
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// The first sync of a user with 2,000 groups, the commit included.
func BenchmarkAddGrants2000(b *testing.B) {
	grants := benchGrants(0, 2000, 2000)
	benchAdd(b, func(int) []groups.Grant { return grants })
}

// The same for reasons that nobody had before.
func BenchmarkAddNewGrants2000(b *testing.B) {
	grants := benchGrants(0, 2000, 2000)
	benchAdd(b, func(i int) []groups.Grant {
		for j := range grants {
			grants[j].Rule = fmt.Sprintf("%016x", i)
		}
		return grants
	})
}

func BenchmarkAddGrants20(b *testing.B) {
	grants := benchGrants(0, 20, 2000)
	benchAdd(b, func(int) []groups.Grant { return grants })
}

func BenchmarkMemberships2000(b *testing.B) {
	s := benchStore(b)
	ids := fill(b, s, 1, 2000)
	b.ReportAllocs()
	for b.Loop() {
		if all, err := s.Memberships(b.Context(), ids[0]); err != nil || len(all) != 2000 {
			b.Fatal(len(all), err)
		}
	}
}

func BenchmarkGroupNames20(b *testing.B) {
	s := benchStore(b)
	ids := fill(b, s, 1000, 20)
	b.ReportAllocs()
	for b.Loop() {
		if all, err := s.GroupNames(b.Context(), ids[500]); err != nil || len(all) != 20 {
			b.Fatal(len(all), err)
		}
	}
}

func BenchmarkIdentity(b *testing.B) {
	s := benchStore(b)
	fill(b, s, 1000, 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Identity(b.Context(), "entra", "user000500"); err != nil {
			b.Fatal(err)
		}
	}
}

// scale is the number of users of the streaming benchmarks.
func scale() int {
	if testing.Short() {
		return 2_000
	}
	return 100_000
}

// BenchmarkEach streams the whole directory: users with 20 values and grants.
func BenchmarkEach(b *testing.B) {
	s := benchStore(b)
	users := scale()
	fill(b, s, users, 20)
	b.Run(fmt.Sprintf("Identity/users=%d", users), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			if err := s.EachIdentity(b.Context(), func(*groups.IdentityRecord) error { n++; return nil }); err != nil || n != users {
				b.Fatal(n, err)
			}
		}
	})
	b.Run(fmt.Sprintf("Membership/users=%d", users), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			if err := s.EachMembership(b.Context(), func(_ groups.UserID, all []groups.Membership) error { n += len(all); return nil }); err != nil || n != 20*users {
				b.Fatal(n, err)
			}
		}
	})
	b.Run(fmt.Sprintf("Groups1000/users=%d", users), func(b *testing.B) {
		for b.Loop() {
			if all, err := s.Groups(b.Context(), "", "", 1000); err != nil || len(all) != 1000 || all[500].Members == 0 {
				b.Fatal(len(all), err)
			}
		}
	})
	b.Run(fmt.Sprintf("CountUsers/users=%d", users), func(b *testing.B) {
		for b.Loop() {
			if all, holders, err := s.CountUsers(b.Context()); err != nil || all != users || holders != users {
				b.Fatal(all, holders, err)
			}
		}
	})
}

// A start on an up-to-date file, and its end.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "groupgate.db")
	for b.Loop() {
		s, err := sqlstore.OpenSQLite(b.Context(), path, sqlstore.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
