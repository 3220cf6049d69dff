-- What lists of the console ask for.

-- +goose Up
create index identities_seen on identities (seen desc, user_id) where seen > 0;
create index events_changed on events (grp, id) where kind = 'group_changed';

-- +goose Down
drop index events_changed;
drop index identities_seen;
