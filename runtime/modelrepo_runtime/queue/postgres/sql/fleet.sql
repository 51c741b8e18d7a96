-- name: beat_move
-- The newest is found from the end, past no row that is deleted but still seen by somebody.
with newest as (
  select session, number from beat where session = ?2 order by number desc limit 1
), gone as (
  delete from beat using newest where beat.session = newest.session and beat.number = newest.number
)
insert into beat (session, number, at) select session, number + 1, cast(?1 as double precision) from newest
returning number;
