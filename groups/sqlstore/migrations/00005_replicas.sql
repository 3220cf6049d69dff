-- What replicas agree about. A process of the version before knows neither
-- table, and refreshes and counts by itself.

-- +goose Up
create table leases (
    name   text    primary key,
    holder text    not null, -- one attempt of one process
    until  integer not null,
    note   text    not null
);
create index leases_until on leases (until);

create table attempts ( -- to sign in with a password
    id      text    primary key, -- of a hash, in hex
    body    text    not null,    -- JSON
    expires integer not null
);
create index attempts_expires on attempts (expires);

-- +goose Down
drop table attempts;
drop table leases;
