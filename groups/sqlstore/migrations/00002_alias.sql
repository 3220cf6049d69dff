-- +goose Up
-- What a source calls the person of a login when it says that the login is
-- over. The default is for a process of the version before, which does not
-- know the column.
alter table logins add column alias text not null default '';
create index logins_alias on logins (source, alias) where alias <> '';

-- +goose Down
drop index logins_alias;
alter table logins drop column alias;
