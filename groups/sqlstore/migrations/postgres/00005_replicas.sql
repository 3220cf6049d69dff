-- What replicas agree about.

-- +goose Up
create table leases (
    name   text   collate "C" primary key,
    holder text   collate "C" not null,
    until  bigint not null,
    note   text   collate "C" not null
);
create index leases_until on leases (until);

create table attempts (
    id      text   collate "C" primary key,
    body    text   collate "C" not null,
    expires bigint not null
);
create index attempts_expires on attempts (expires);

-- +goose Down
drop table attempts;
drop table leases;
