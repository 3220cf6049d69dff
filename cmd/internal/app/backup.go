package app

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// BackupStore copies the SQLite directory of the configuration, or of from when
// that is not empty, into a new file. A groupgate may run on it meanwhile.
func BackupStore(ctx context.Context, path, from, to string, out io.Writer) error {
	if from == "" {
		cfg, err := config.Load(path)
		if err != nil {
			return err
		}
		if from = cfg.Store.SQLite; from == "" {
			return errors.New("store.sqlite names no file: a PostgreSQL database is backed up with pg_dump, see deploy/README.md")
		}
	}
	tables, err := sqlstore.Backup(ctx, from, to)
	if err != nil {
		return fmt.Errorf("store backup: %w", err)
	}
	if _, err := printTables(out, tables); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "copied %s to %s; sessions are left out\n", from, to)
	return err
}
