package sqlstore

import (
	"context"

	"github.com/groupgate/groupgate/groups"
)

// RenamedTo finds the newest renaming that led to a name. The kind is written
// out: the index is of this kind alone.
func (r reader) RenamedTo(ctx context.Context, group string, before int64) (*groups.Event, error) {
	return one(ctx, r.q, "renamed to", scanEvent, `select id, at, kind, user_id, source, grp, request, body from events
		where kind = 'group_changed' and grp = $1 and id < $2 and body like $3 order by id desc limit 1`,
		group, beforeOf(before), `%"reason":"`+groups.RenamedReason+`%`)
}
