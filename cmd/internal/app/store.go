package app

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// place is where a directory is kept: a file or the address of a database.
type place struct{ file, database string }

func placeOf(c config.StoreConfig) place {
	return place{file: c.SQLite, database: c.Postgres}
}

// parsePlace reads what a command line says.
func parsePlace(text string) place {
	if strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") {
		return place{database: text}
	}
	return place{file: text}
}

// open opens the store, which makes or updates its schema.
func (p place) open(ctx context.Context, log *zap.Logger) (store groups.Store, err error) {
	opts := sqlstore.Options{Log: log}
	if p.database != "" {
		store, err = sqlstore.OpenPostgres(ctx, p.database, opts)
	} else {
		store, err = sqlstore.OpenSQLite(ctx, p.file, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return store, nil
}

// String names the place, without the password.
func (p place) String() string {
	if p.database == "" {
		return p.file
	}
	u, err := url.Parse(p.database)
	if err != nil || u.Host == "" {
		return "the PostgreSQL database"
	}
	return "PostgreSQL " + u.Host + u.Path
}

// missing is why there is no such file; a database is asked by opening it.
func (p place) missing() error {
	if p.file == "" {
		return nil
	}
	_, err := os.Stat(p.file)
	return err
}

// preview opens the store to look at it. A file that does not exist yet is an
// empty one, and stays unmade.
func (p place) preview(ctx context.Context) (store groups.Store, done func(), err error) {
	cleanup := func() {}
	if errors.Is(p.missing(), os.ErrNotExist) {
		tmp, err := os.MkdirTemp("", "groupgate-")
		if err != nil {
			return nil, nil, err
		}
		cleanup = func() { os.RemoveAll(tmp) }
		p.file = filepath.Join(tmp, "empty.db")
	}
	if store, err = p.open(ctx, nil); err != nil {
		cleanup()
		return nil, nil, err
	}
	return store, func() { store.Close(); cleanup() }, nil
}
