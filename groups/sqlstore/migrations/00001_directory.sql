-- The directory. Times are microseconds since 1970 in UTC; 0 is "never".
-- A ..._key column holds the text with ASCII letters in lower case.

-- +goose Up
create table users (
    id       integer primary key autoincrement, -- never given twice
    name     text    not null,
    name_key text    not null unique,
    email     text   not null,
    email_key text   not null,
    display  text    not null,
    created  integer not null,
    holder   integer not null default 0         -- 1: has at least one row in grants
);
create index users_email on users (email_key) where email_key <> '';
create index users_holder on users (id) where holder = 1; -- the guard counts them in every sync that removes

create table identities (
    source      text    not null,
    subject     text    not null,
    user_id     integer not null references users (id) on delete cascade,
    claims      text    not null, -- JSON, as last stated
    incomplete  text    not null,
    issued_at   integer not null,
    seen        integer not null,
    fingerprint text    not null,
    primary key (source, subject)
);
create index identities_user on identities (user_id, source, subject);

create table groups (
    id          integer primary key autoincrement,
    name        text    not null unique,
    control     text    not null check (control in ('sso', 'manual')),
    description text    not null,
    created     integer not null
);

-- Why somebody may be in a group. The same few reasons hold for everybody, and
-- a grant is three numbers instead of four texts.
create table reasons (
    id       integer primary key autoincrement,
    group_id integer not null references groups (id) on delete cascade,
    source   text    not null,
    rule     text    not null,
    claim    text    not null,
    value    text    not null,
    unique (group_id, source, rule, claim, value)
);

-- One row is one reason for one user's membership. No reference to reasons:
-- the number comes from there in the same statement, and looking for each of
-- 2,000 again costs a third of the sync.
create table grants (
    user_id   integer not null references users (id) on delete cascade,
    reason_id integer not null,
    since     integer not null,
    primary key (user_id, reason_id)
) without rowid;
create index grants_reason on grants (reason_id, user_id);

create table manual (
    user_id  integer not null references users (id) on delete cascade,
    group_id integer not null references groups (id) on delete cascade,
    actor    text    not null,
    since    integer not null,
    primary key (user_id, group_id)
) without rowid;
create index manual_group on manual (group_id, user_id);

create table removals ( -- the latest one of each user, for the guard
    user_id integer primary key references users (id) on delete cascade,
    at      integer not null
);
create index removals_at on removals (at);

create table rules (
    id      text    primary key,
    body    text    not null, -- JSON
    version integer not null
);

create table logins (
    id         text    primary key,
    user_id    integer not null references users (id) on delete cascade,
    source     text    not null,
    subject    text    not null,
    session    text    not null,
    created    integer not null,
    expires    integer not null,
    claims_at  integer not null,
    sealed     blob             -- what the source gave for later, encrypted; null when nothing
);
create index logins_user on logins (user_id);
create index logins_subject on logins (source, subject);
create index logins_session on logins (source, session) where session <> '';
create index logins_expires on logins (expires);

create table sessions (
    hash     blob    primary key, -- SHA-256 of the cookie's value
    login_id text    not null references logins (id) on delete cascade,
    host     text    not null,
    used     integer not null
) without rowid;
create index sessions_login on sessions (login_id);

create table once (
    kind    text    not null,
    id      text    not null,
    expires integer not null,
    primary key (kind, id)
) without rowid;
create index once_expires on once (expires);

create table events (
    id      integer primary key autoincrement,
    at      integer not null,
    kind    text    not null,
    user_id integer not null, -- 0: nobody; not a reference, the trail outlives the person
    source  text    not null,
    grp     text    not null,
    request text    not null,
    body    text    not null  -- JSON of the rest
);
create index events_kind on events (kind);
create index events_user on events (user_id) where user_id <> 0;
create index events_request on events (request) where request <> '';

create table outbox (
    id      integer primary key autoincrement,
    target  text    not null,
    user_id integer not null, -- not a reference: a target must hear of a person who is gone
    body    text    not null,
    created integer not null
);

create table notices (
    seq     integer primary key autoincrement,
    at      integer not null,
    origin  text    not null, -- the store that wrote it and has told its own watchers
    user_id integer not null,
    login   text    not null
);
create index notices_at on notices (at);

create table meta (
    key   text primary key,
    value text not null -- JSON
) without rowid;
insert into meta (key, value) values ('store/epoch', '1');

-- +goose Down
drop table meta;
drop table notices;
drop table outbox;
drop table events;
drop table once;
drop table sessions;
drop table logins;
drop table rules;
drop table removals;
drop table manual;
drop table grants;
drop table reasons;
drop table groups;
drop table identities;
drop table users;
