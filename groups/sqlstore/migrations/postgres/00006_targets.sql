-- What targets have to be told: see SQLite's migration 6.

-- +goose Up
delete from outbox;
alter table outbox
    add column version    bigint not null default 0,
    add column failures   bigint not null default 0,
    add column refusals   bigint not null default 0,
    add column not_before bigint not null default 0,
    add column parked     bigint not null default 0,
    add column reason     text   collate "C" not null default '';
create unique index outbox_user on outbox (target, user_id);
create index outbox_due on outbox (target, parked, not_before);

create table told (
    target  text   collate "C" not null,
    user_id bigint not null,
    body    text   collate "C" not null,
    primary key (target, user_id)
);

-- +goose Down
drop table told;
drop index outbox_due;
drop index outbox_user;
alter table outbox
    drop column reason, drop column parked, drop column not_before, drop column refusals, drop column failures, drop column version;
