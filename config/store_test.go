package config

import (
	"strings"
	"testing"
)

// A store is of one kind, and the address of a database is one; its password
// is in no fault.
func TestTheStore(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"store: {postgres: 'postgres://g:canary@db.example.com/g?sslmode=verify-full'}": "",
		"store: {postgres: 'host=db.example.com dbname=g password=canary'}":             "",
		"store: {sqlite: g.db}":                                                   "",
		"store: {postgres: ''}":                                                   "store.postgres: the secret is empty",
		"store: {postgres: 'mysql://g:canary@db.example.com/g'}":                  "store.postgres: is the address of something else",
		"store: {postgres: 'canary'}":                                             "store.postgres: is neither an address",
		"store: {sqlite: g.db, postgres: 'postgres://g:canary@db.example.com/g'}": "store: is of one kind; this one is sqlite and postgres",
		"store: {none: {}, postgres: 'postgres://g:canary@db.example.com/g'}":     "store: is of one kind",
	} {
		cfg, err := loadText(t, minimal+text+"\n")
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want == "" && (cfg.Store.Postgres == "") != (cfg.Store.SQLite != ""):
			t.Errorf("%s: %+v", text, cfg.Store)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", text, err, want)
		case err != nil && strings.Contains(err.Error(), "canary"):
			t.Errorf("%s: the fault tells the password: %v", text, err)
		}
	}
}
