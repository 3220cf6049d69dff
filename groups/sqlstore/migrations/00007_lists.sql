-- What lists of the console ask for.

-- +goose Up
-- Who was seen last, without a look at everybody. Those never seen are not in
-- it.
create index identities_seen on identities (seen desc, user_id) where seen > 0;
-- What a group was called before.
create index events_changed on events (grp) where kind = 'group_changed';

-- +goose Down
drop index events_changed;
drop index identities_seen;
