-- What targets have to be told, one row a person: only the latest state counts.
-- No version before this one told targets anything.

-- +goose Up
delete from outbox;
alter table outbox add column version integer not null default 0;   -- how often it changed while it waited
alter table outbox add column failures integer not null default 0;  -- attempts in a row that came to nothing
alter table outbox add column refusals integer not null default 0;  -- of these, the latest ones that were refused
alter table outbox add column not_before integer not null default 0;
alter table outbox add column parked integer not null default 0;    -- since when; 0: it is tried again
alter table outbox add column reason text not null default '';      -- of the last failure
create unique index outbox_user on outbox (target, user_id);
create index outbox_due on outbox (target, parked, not_before);

create table told ( -- what targets hold of people by our doing
    target  text    not null,
    user_id integer not null, -- not a reference: a target must hear of a person who is gone
    body    text    not null, -- JSON
    primary key (target, user_id)
) without rowid;

-- +goose Down
drop table told;
drop index outbox_due;
drop index outbox_user;
alter table outbox drop column reason;
alter table outbox drop column parked;
alter table outbox drop column not_before;
alter table outbox drop column refusals;
alter table outbox drop column failures;
alter table outbox drop column version;
