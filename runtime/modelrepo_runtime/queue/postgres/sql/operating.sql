-- name: ready_withdraw
with gone as (delete from again where lane = ?1 and tag = ?2 and job = ?3 and enqueued = ?4)
delete from ready where lane = ?1 and tag = ?2 and job = ?3 and enqueued = ?4 returning job;
