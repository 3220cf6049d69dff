package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// Backup copies a SQLite directory as it is at one moment into a new file, and
// says how many rows each table has there. Whoever uses the directory meanwhile
// is not held up. It changes nothing of it, its version neither: a backup is
// what one takes before an upgrade.
//
// Sessions are left out. In a copy that is put in place later they would come
// to life again, those that were ended in between too.
func Backup(ctx context.Context, path, to string) (rows []CopiedTable, err error) {
	if _, err := os.Stat(path); err != nil { // opening it would make it
		return nil, err
	}
	// SQLite fills a file that is empty, and would make one that anybody reads.
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is there already: a backup is a new file", to)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			_ = os.Remove(to)
		}
	}()
	if err := dump(ctx, path, to); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if rows, err = prune(ctx, to); err != nil {
		return nil, fmt.Errorf("%s: %w", to, err)
	}
	return rows, errors.Join(f.Sync(), syncFolder(filepath.Dir(to)))
}

// dump is one read transaction that writes to another file.
func dump(ctx context.Context, path, to string) error {
	db, err := openPlain(path)
	if err != nil {
		return err
	}
	defer db.Close()
	version, err := schemaVersion(ctx, db)
	if err != nil {
		return err
	}
	if version == 0 {
		return errors.New("it holds no directory")
	}
	_, err = db.ExecContext(ctx, `vacuum into $1`, to)
	return err
}

// prune takes the sessions out of a copy, looks whether it is sound, and counts
// what there is.
func prune(ctx context.Context, path string) ([]CopiedTable, error) {
	db, err := openPlain(path, "foreign_keys(1)", "secure_delete(1)", "synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `delete from logins`); err != nil { // sessions go with them
		return nil, err
	}
	var sound string
	if err := db.QueryRowContext(ctx, `pragma quick_check(1)`).Scan(&sound); err != nil {
		return nil, err
	}
	if sound != "ok" {
		return nil, fmt.Errorf("the copy is damaged: %s", sound)
	}
	var out []CopiedTable
	for _, name := range []string{"users", "groups", "grants", "manual", "rules", "accounts", "sessions", "events"} {
		t := CopiedTable{Name: name}
		if err := db.QueryRowContext(ctx, `select count(*) from `+name).Scan(&t.Rows); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// openPlain opens a database without making it or bringing it up to date.
func openPlain(path string, pragmas ...string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(abs), RawQuery: url.Values{
		"mode": {"rw"}, "_pragma": append(pragmas, "busy_timeout(5000)", "temp_store(MEMORY)", "trusted_schema(0)"),
	}.Encode()}
	return sql.Open("sqlite", u.String())
}

func syncFolder(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
