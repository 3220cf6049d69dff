package app

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// CopyStore fills the empty database that the configuration names with the
// directory of a SQLite file, and says what it copied. No groupgate may run on
// the file meanwhile.
func CopyStore(ctx context.Context, path, file string, out io.Writer) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	to := placeOf(cfg.Store)
	if to.database == "" {
		return fmt.Errorf("%s: store.postgres names no database to copy to", path)
	}
	// Opening would make it.
	if err := (place{file: file}).missing(); err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	from, err := sqlstore.OpenSQLite(ctx, file, sqlstore.Options{})
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	defer from.Close()
	target, err := sqlstore.OpenPostgres(ctx, to.database, sqlstore.Options{})
	if err != nil {
		return fmt.Errorf("store.postgres: %w", err)
	}
	defer target.Close()
	tables, err := sqlstore.Copy(ctx, from, target)
	if err != nil {
		return fmt.Errorf("store copy: %w; nothing was copied", err)
	}
	all, err := printTables(out, tables)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "copied %s to %s: %d rows\n", file, to, all)
	return err
}

// printTables prints one line a table, and answers how many rows they have.
func printTables(out io.Writer, tables []sqlstore.CopiedTable) (all int64, err error) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, t := range tables {
		fmt.Fprintf(w, "%d\t%s\t\n", t.Rows, t.Name)
		all += t.Rows
	}
	return all, w.Flush()
}
