-- name: job_insert
insert into job (name, model, tier, tenant, wanted, created, enqueued, deadline, stages, metadata, tag, size, webhook,
  over, estimate_s)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning id;

-- name: job_delete
delete from job where id = ?;

-- name: payload_insert
insert into payload (job, inputs, files) values (?, ?, ?);

-- name: payload_delete
delete from payload where job = ?;

-- name: input_files_delete
delete from input_file where job = ?;

-- name: idempotency_delete
delete from idempotency where job = ?;

-- name: history_delete
delete from history where job = ?;

-- name: input_file_insert
insert into input_file (store_key, job) values (?, ?) on conflict do nothing;

-- name: input_files_unshared
-- Uploads of a job that no other job refers to.
select store_key from input_file as own where job = ?
  and not exists (select 1 from input_file as other where other.store_key = own.store_key and other.job <> own.job)
order by store_key;

-- name: idempotency_get
select idempotency.body, job.name from idempotency join job on job.id = idempotency.job
where idempotency.tenant = ? and idempotency.idempotency_key = ?

-- name: idempotency_insert
insert into idempotency (tenant, idempotency_key, body, job) values (?, ?, ?, ?);

-- name: job_row
select id, name, model, tier, tenant, wanted, created, enqueued, deadline, stages, metadata from job where name = ?;

-- name: size_of_job
select size from job where id = ?;

-- name: job_inputs
select inputs, files from payload where job = ?;

-- name: done_insert
insert into done (job, status, finished, version, stage, attempt, outcome, error, fence, token, session, slot, claimed)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: done_of_job
select status from done where job = ?;

-- name: done_delete
delete from done where job = ?;

-- name: failed_insert
insert into failed (job) values (?);

-- name: failed_delete
delete from failed where job = ?;

-- name: cancel_insert
insert into cancel (job, at) values (?, ?) on conflict do nothing;

-- name: cancel_delete
delete from cancel where job = ?;

-- name: progress_put
insert into progress (job, fraction, message) values (?, ?, ?)
on conflict (job) do update set fraction = excluded.fraction, message = excluded.message;

-- name: progress_delete
delete from progress where job = ?;

-- name: pinned_get
select job, version, stages, next_index, previous, restarts from pinned where job = ?;

-- name: pinned_put
insert into pinned (job, version, stages, next_index, previous, restarts) values (?, ?, ?, ?, ?, ?)
on conflict (job) do update set version = excluded.version, stages = excluded.stages, next_index = excluded.next_index,
  previous = excluded.previous, restarts = excluded.restarts;

-- name: pinned_delete
delete from pinned where job = ?;

-- name: history_insert
insert into history (job, event, at, cause, counted, stage, attempt, fence, token, session, slot, claimed, box, version,
  digest, status)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: history_note
insert into history (job, event, at, cause, version, counted, attempt) values (?, ?, ?, ?, ?, 1, 0);

-- name: attempts_of_job
-- Ended attempts since the job was last sent back by hand.
select cause, counted, slot, box from history
where job = ?1 and event = 'attempt' and cause <> 'succeeded'
  and id > coalesce((select max(id) from history where job = ?1 and event = 'retried'), 0)
order by id;

-- name: finish_on_record
-- How an attempt ended, by the digest of its outcome or by the outcome itself.
select digest, null as outcome, status from history where job = ?1 and fence = ?2 and token = ?3 and event = 'attempt'
union all
select null, outcome, status from done where job = ?1 and fence = ?2 and token = ?3;

-- name: history_view
-- What happened to jobs, as HistoryRow has it: the rows of `history`, and the attempts that succeeded. Those come after
-- the row with the number that they note, in the order of their fences.
select * from (
  select job.name, job.id as job, event, at, cause, counted, stage, attempt, fence, token, session, slot, version, claimed,
    history.id as place, 0 as ended
  from history join job on job.id = history.job
  union all
  select job.name, job.id, 'attempt', finished, status, 1, stage, attempt, fence, token, session, slot, version, claimed,
    noted, 1
  from done join job on job.id = done.job where fence is not null
) as happened

-- name: newest_enqueued
select enqueued from job order by id desc limit 1;

-- name: pinned_pairs
-- Versions that jobs past their first stage wait for, and that may still begin again.
select distinct job.model, pinned.version
from pinned cross join job on job.id = pinned.job
where pinned.version is not null and job.wanted is null and pinned.restarts < ? and exists (
  select 1 from lane join ready on ready.lane = lane.id and ready.enqueued = job.enqueued and ready.job = job.id
  where lane.model = job.model)
order by job.model, pinned.version;
