package sqlstore

import (
	"context"

	"github.com/groupgate/groupgate/groups"
)

const accountColumns = userColumns + `, a.source, a.subject, a.disabled, a.changed`

func scanAccount(r *rows, a *groups.LocalAccount) error {
	var created, changed int64
	err := r.Scan(&a.User.ID, &a.User.Name, &a.User.Email, &a.User.Display, &created, &a.Source, &a.Subject, &a.Disabled, &changed)
	a.User.Created, a.Changed = when(created), when(changed)
	return err
}

// LocalAccount finds one account.
func (r reader) LocalAccount(ctx context.Context, source, subject string) (*groups.LocalAccount, error) {
	return one(ctx, r.q, "local account", scanAccount,
		`select `+accountColumns+` from accounts a join users u on u.id = a.user_id where a.source = $1 and a.subject = $2`, source, subject)
}

// LocalAccountByName finds an account by the user's name, whatever the ASCII
// case.
func (r reader) LocalAccountByName(ctx context.Context, source, name string) (*groups.LocalAccount, error) {
	return one(ctx, r.q, "local account by name", scanAccount,
		`select `+accountColumns+` from users u join accounts a on a.user_id = u.id where u.name_key = $2 and a.source = $1`, source, fold(name))
}

// LocalAccounts lists accounts by user id.
func (r reader) LocalAccounts(ctx context.Context, source string, after groups.UserID, limit int) ([]groups.LocalAccount, error) {
	return list(ctx, r.q, "local accounts", scanAccount,
		`select `+accountColumns+` from users u join accounts a on a.user_id = u.id
			where a.source = $1 and u.id > $2 order by u.id limit $3`, source, int64(after), limitOf(limit))
}

// LocalPassword reads one hash.
func (r reader) LocalPassword(ctx context.Context, source, subject string) (string, error) {
	hash, err := one(ctx, r.q, "local password", scanValue[string],
		`select password from accounts where source = $1 and subject = $2`, source, subject)
	if err != nil {
		return "", err
	}
	return *hash, nil
}

// CreateLocalAccount adds an account.
func (t *tx) CreateLocalAccount(ctx context.Context, a *groups.LocalAccount, hash string) error {
	n, err := t.exec(ctx,
		`insert into accounts (source, subject, user_id, password, disabled, changed) values ($1, $2, $3, $4, $5, $6) on conflict do nothing`,
		a.Source, a.Subject, int64(a.User.ID), hash, a.Disabled, micros(a.Changed))
	if err == nil && n == 0 {
		return taken("create local account")
	}
	return failed("create local account", err)
}

// UpdateLocalAccount writes an account that is there.
func (t *tx) UpdateLocalAccount(ctx context.Context, a *groups.LocalAccount, hash string) error {
	return t.change(ctx, "update local account",
		`update accounts set disabled = $3, changed = $4, password = case when $5 = '' then password else $5 end
			where source = $1 and subject = $2`, a.Source, a.Subject, a.Disabled, micros(a.Changed), hash)
}
