package sqlstore_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// GS-23: replicas start on an empty database at the same moment; each must come
// up, and the schema is made once.
func TestPostgresStartTogether(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	for range 2 {
		name := server.NewDatabase(t, "")
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				s, err := sqlstore.OpenPostgres(t.Context(), server.DSN(name), sqlstore.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if out := server.Do(t, name, "select count(*) = count(distinct version), count(*) > 0 from groupgate_version"); strings.TrimSpace(out) != "t|t" {
			t.Errorf("migrations noted: %s", out)
		}
	}
}

// Two directories in one database, each in a schema of its own.
func TestPostgresSchemas(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	name := server.NewDatabase(t, "")
	server.Do(t, name, "create table users (theirs text); create schema one; create schema two")
	one := openPostgres(t, server.DSN(name)+"&search_path=one", sqlstore.Options{})
	two := openPostgres(t, server.DSN(name)+"&search_path=two", sqlstore.Options{})
	if err := write(t.Context(), one, "alice"); err != nil {
		t.Fatal(err)
	}
	if n, _, err := one.CountUsers(t.Context()); n != 1 || err != nil {
		t.Errorf("one: %d, %v", n, err)
	}
	if n, _, err := two.CountUsers(t.Context()); n != 0 || err != nil {
		t.Errorf("two: %d, %v", n, err)
	}
}

func TestOpenPostgresRefuses(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	fresh := func(text string) string {
		name := ownDatabase(t, server)
		server.Do(t, name, text)
		return server.DSN(name)
	}
	empty := server.NewDatabase(t, "")
	server.Do(t, empty, "create role guest login password 'guest-word'; revoke create on schema public from public; create table theirs (x text)")
	foreign := server.NewDatabase(t, "")
	server.Do(t, foreign, "create table groups (x text)")
	latin := server.NewDatabase(t, "")
	server.Do(t, "postgres", "drop database "+latin+"; create database "+latin+" template template0 encoding 'LATIN1' locale 'C'")
	edit := func(dsn string, change func(u *url.URL)) string {
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		change(u)
		return u.String()
	}
	good := server.DSN(empty)
	const newer = "insert into groupgate_version (version) values (9999);"
	core, logs := observer.New(zap.DebugLevel)
	for name, c := range map[string]struct{ dsn, want string }{
		"wrong password": {edit(good, func(u *url.URL) { u.User = url.UserPassword("groupgate", "wrong-word") }), "refuses the user or the password"},
		"no such user":   {edit(good, func(u *url.URL) { u.User = url.UserPassword("nobody", server.Password()) }), "refuses the user or the password"},
		"no database":    {server.DSN("nowhere"), `there is no database "nowhere"`},
		"no rights":      {edit(good, func(u *url.URL) { u.User = url.UserPassword("guest", "guest-word") }), `user "guest" may not make tables`},
		"another's":      {server.DSN(foreign), "the table groups is another application's"},
		"no schema":      {good + "&search_path=nowhere", "search_path names no schema"},
		"encoding":       {server.DSN(latin), "encoding is LATIN1"},
		"nobody there":   {edit(good, func(u *url.URL) { u.Host = "127.0.0.1:1" }), "no connection"},
		"no address":     {"postgres://groupgate:" + server.Password() + "@host:port/x", "not understood"},
		"broken escape":  {"postgres://groupgate:" + server.Password() + "%zz@host/x", "not understood"},
		"no number":      {good + "&pool_max_conns=many", "pool_max_conns"},
		"newer":          {fresh(newer + "update meta set value = '9998' where key = 'store/min_program'"), "version 9999, this program knows versions up to"},
		"newer, unsaid":  {fresh(newer + "delete from meta where key = 'store/min_program'"), "version 9999, this program knows versions up to"},
	} {
		s, err := sqlstore.OpenPostgres(t.Context(), c.dsn, sqlstore.Options{Log: zap.New(core)})
		if err == nil {
			s.Close()
			t.Errorf("%s: it was opened", name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
		for _, secret := range []string{server.Password(), "wrong-word", "guest-word"} {
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
				t.Errorf("%s: the error has the password: %v", name, err)
			}
		}
	}
	for _, l := range logs.All() {
		if strings.Contains(fmt.Sprint(l.Message, l.ContextMap()), server.Password()) {
			t.Errorf("a log line has the password: %s", l.Message)
		}
	}
	// The controls: other tables do no harm, and a newer schema that says so.
	openPostgres(t, good, sqlstore.Options{})
	openPostgres(t, fresh(newer), sqlstore.Options{})
	openPostgres(t, strings.Replace(good, "sslmode=disable", "sslmode=disable&pool_max_conns=1&pool_min_conns=1", 1), sqlstore.Options{})
}
