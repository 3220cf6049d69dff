-- +goose Up
-- How local users sign in. Who they are stands in users, what they are called
-- at their source in identities. A process of the version before does not know
-- the table; when it deletes a user, the account goes with the row.
create table accounts (
    source   text    not null,
    subject  text    not null,
    user_id  integer not null references users (id) on delete cascade,
    password text    not null, -- argon2id, PHC string format
    disabled integer not null,
    changed  integer not null, -- when the password was last set
    primary key (source, subject),
    unique (user_id, source)
) without rowid;

-- +goose Down
drop table accounts;
