package sqlstore_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// SM-19, CK-06: three replicas, one of which is five minutes ahead by its own
// clock and one five minutes behind. What one of them says lasts four seconds
// lasts four seconds at all of them, and what it says later is later.
func TestPostgresReplicasWithClocksApart(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	dsn := server.DSN(database(t, server))
	var dirs []*groups.Directory
	for _, apart := range []time.Duration{0, 5 * time.Minute, -5 * time.Minute} {
		s := openPostgres(t, dsn, sqlstore.Options{Now: func() time.Time { return time.Now().Add(apart) }})
		if off := time.Until(s.Now()).Abs(); off > time.Second {
			t.Fatalf("%s apart: the store's time is %s off", apart, off)
		}
		d := groups.NewDirectory(groups.Options{Store: s})
		if err := d.Configure(t.Context(), groups.Settings{
			Sync: groups.DefaultSync, Names: claims.Names{User: "user"},
			Sources: []groups.SourceSettings{{Name: "s", Groups: claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Clear}}},
			Rules:   []groups.Rule{{ID: "r", Source: "s", Claim: "groups", Any: true}},
		}); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, d)
	}
	const lasts = 4 * time.Second
	hash := func(i int) [32]byte { return sha256.Sum256(fmt.Appendf(nil, "cookie%d", i)) }
	for i, d := range dirs {
		// Each states the person anew, as a directory that is read does: by its
		// own clock the last one speaks ten minutes before the second.
		now := d.Now()
		id := &claims.Identity{Source: "s", Subject: "alice", IssuedAt: now,
			Claims: claims.FromMap(map[string][]string{"user": {"alice"}, "groups": {fmt.Sprintf("said%d", i)}})}
		out, err := d.SignIn(t.Context(), groups.SignIn{
			Identity: id, Login: &groups.Login{ID: fmt.Sprint(i), Source: "s", Subject: "alice", Created: now, Expires: now.Add(lasts), ClaimsAt: now},
			Session: &groups.Session{Hash: hash(i), Used: now},
		})
		if err != nil || out.Stale {
			t.Fatalf("replica %d: %v, %+v", i, err, out)
		}
		turn, err := d.BeginRefresh(t.Context(), fmt.Sprint(i), lasts)
		if err != nil || !turn.Mine {
			t.Fatalf("replica %d: %v, %+v", i, err, turn)
		}
		for j, other := range dirs {
			v, err := other.View(t.Context(), hash(i))
			if err != nil || len(v.Groups) != 1 || v.Groups[0] != fmt.Sprintf("said%d", i) {
				t.Errorf("what replica %d made is at %d: %v, %+v", i, j, err, v)
			}
			if turn, err := other.BeginRefresh(t.Context(), fmt.Sprint(i), lasts); err != nil || turn.Mine {
				t.Errorf("the lease of replica %d at %d: %v, %+v", i, j, err, turn)
			}
		}
	}
	time.Sleep(lasts + 50*time.Millisecond)
	for i := range dirs {
		for j, other := range dirs {
			if _, err := other.View(t.Context(), hash(i)); !errors.Is(err, groups.ErrNotFound) {
				t.Errorf("a session of replica %d, over, at %d: %v", i, j, err)
			}
		}
		if turn, err := dirs[(i+1)%3].BeginRefresh(t.Context(), fmt.Sprint(i), lasts); err != nil || !turn.Mine {
			t.Errorf("the lease of replica %d, over: %v, %+v", i, err, turn)
		}
	}
}
