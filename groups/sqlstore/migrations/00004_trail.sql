-- The trail by hour and by group. What an event is counted and found by is
-- written by triggers, so that it cannot part from the events, whichever
-- version of the program writes them. Events are only ever added.

-- +goose Up
create table tallies ( -- how many events, by the hour
    hour     integer not null, -- hours since 1970
    kind     text    not null,
    source   text    not null,
    n        integer not null,
    added    integer not null, -- groups that syncs put people into
    removed  integer not null, -- and took them from
    first_id integer not null, -- no event of the hour has a smaller id
    last_id  integer not null, -- or a larger one
    primary key (hour, kind, source)
) without rowid;

create table mentions ( -- what an event says inside its JSON
    what     text    not null, -- group: it changed who is in it, or the group itself; skipped, held: it has such groups
    name     text    not null, -- of the group
    event_id integer not null,
    primary key (what, name, event_id)
) without rowid;

create index events_source on events (source) where source <> '';
create index events_source_kind on events (source, kind) where source <> '';

insert into tallies
    select at / 3600000000, kind, source, count(*),
        sum(coalesce(json_array_length(body, '$.change.added'), 0)), sum(coalesce(json_array_length(body, '$.change.removed'), 0)),
        min(id), max(id)
    from events group by 1, 2, 3;
insert or ignore into mentions
    select 'group', grp, id from events where grp <> ''
    union all select 'group', value, events.id from events, json_each(body, '$.change.added')
    union all select 'group', value, events.id from events, json_each(body, '$.change.removed')
    union all select 'skipped', '', id from events where json_array_length(body, '$.change.skipped') > 0
    union all select 'held', '', id from events where json_array_length(body, '$.change.held') > 0;

-- A change of thousands of groups is much to parse: what is not in it is not
-- looked for in it.
-- +goose StatementBegin
create trigger events_tally after insert on events begin
    insert into tallies values (new.at / 3600000000, new.kind, new.source, 1,
            case when instr(new.body, '"added":') > 0 then coalesce(json_array_length(new.body, '$.change.added'), 0) else 0 end,
            case when instr(new.body, '"removed":') > 0 then coalesce(json_array_length(new.body, '$.change.removed'), 0) else 0 end,
            new.id, new.id)
        on conflict (hour, kind, source) do update set n = n + 1, added = added + excluded.added, removed = removed + excluded.removed,
            first_id = min(first_id, excluded.first_id), last_id = max(last_id, excluded.last_id);
end;
-- +goose StatementEnd
-- +goose StatementBegin
create trigger events_group after insert on events when new.grp <> '' begin
    insert or ignore into mentions values ('group', new.grp, new.id);
end;
-- +goose StatementEnd
-- +goose StatementBegin
create trigger events_change after insert on events when instr(new.body, '"change":') > 0 begin
    insert or ignore into mentions
        select 'group', value, new.id from json_each(new.body, '$.change.added') where instr(new.body, '"added":') > 0
        union all select 'group', value, new.id from json_each(new.body, '$.change.removed') where instr(new.body, '"removed":') > 0
        union all select 'skipped', '', new.id
            where instr(new.body, '"skipped":') > 0 and json_array_length(new.body, '$.change.skipped') > 0
        union all select 'held', '', new.id where instr(new.body, '"held":') > 0 and json_array_length(new.body, '$.change.held') > 0;
end;
-- +goose StatementEnd

-- +goose Down
drop trigger events_change;
drop trigger events_group;
drop trigger events_tally;
drop index events_source_kind;
drop index events_source;
drop table mentions;
drop table tallies;
