-- name: ready_withdraw
-- See ready_delete_many.
with gone as (
  delete from again where ctid = (
    select ctid from again where (lane, tag, job) between (?1, ?2, ?3) and (?1, ?2, ?3)
    order by lane, tag, job limit 1)
)
delete from ready where ctid = (
  select ctid from ready where (lane, tag, job) between (?1, ?2, ?3) and (?1, ?2, ?3)
  order by lane, tag, job limit 1)
returning job;
