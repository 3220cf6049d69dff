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

// Passwords and sessions may go to a database on the way only where nobody
// reads along.
func TestUnencryptedDatabaseIsSaid(t *testing.T) {
	t.Parallel()
	for address, said := range map[string]bool{
		"postgres://g@127.0.0.1/g":                             false,
		"postgres://g@localhost:5432/g?sslmode=disable":        false,
		"postgres://g@[::1]/g":                                 false,
		"host=/run/postgresql dbname=g":                        false,
		"postgres://g@db.example.com/g?sslmode=verify-full":    false,
		"host=db.example.com dbname=g sslmode=require":         false,
		"postgres://g@db.example.com/g":                        true,
		"postgres://g@db.example.com/g?sslmode=prefer":         true,
		"postgres://g@192.0.2.1/g?sslmode=disable":             true,
		"host=db.example.com dbname=g":                         true,
		"postgres://g@db.example.com/g?sslmode=verify-fulling": true,
	} {
		cfg, err := loadText(t, minimal+"store: {postgres: '"+address+"'}\n")
		if err != nil {
			t.Fatal(err)
		}
		if got := len(cfg.Warnings()) > 0; got != said {
			t.Errorf("%s: said %v", address, got)
		}
	}
}
