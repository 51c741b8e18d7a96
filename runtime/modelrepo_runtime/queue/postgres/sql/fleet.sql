-- name: beats_move
-- The newest is found from the end, and deleted where it was found: past no row that is deleted but still seen by somebody.
with newest as (
  select wanted.session, found.number, found.place from unnest(cast(?2 as text[])) as wanted (session)
  cross join lateral (
    select number, ctid as place from beat where beat.session = wanted.session order by number desc limit 1
  ) as found
), gone as (
  delete from beat where ctid = any(array(select place from newest))
)
insert into beat (session, number, at) select session, number + 1, cast(?1 as double precision) from newest
returning session;
