package sqlstore_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// BenchmarkSignIn is the directory's part of a sign-in, on each database.
func BenchmarkSignIn(b *testing.B) {
	for name, open := range map[string]func(b *testing.B) groups.Store{
		"SQLite": func(b *testing.B) groups.Store {
			return open(b, filepath.Join(b.TempDir(), "groupgate.db"), sqlstore.Options{})
		},
		"PostgreSQL": func(b *testing.B) groups.Store {
			server := testenv.Postgres(b)
			return openPostgres(b, server.DSN(database(b, server)), sqlstore.Options{})
		},
	} {
		b.Run(name, func(b *testing.B) {
			d, n := configured(b, open(b)), 0
			login := func(b *testing.B, user string, in []string) {
				b.Helper()
				n++
				if _, err := d.SignIn(b.Context(), signIn(n, user, in...)); err != nil {
					b.Fatal(err)
				}
			}
			for _, size := range []int{20, 2000} {
				in := names("group", size)
				login(b, "first", in)
				b.Run(fmt.Sprintf("first/groups=%d", size), func(b *testing.B) {
					for b.Loop() {
						login(b, fmt.Sprintf("user%d", n), in)
					}
				})
				b.Run(fmt.Sprintf("again/groups=%d", size), func(b *testing.B) {
					for b.Loop() {
						login(b, "first", in)
					}
				})
			}
		})
	}
}
