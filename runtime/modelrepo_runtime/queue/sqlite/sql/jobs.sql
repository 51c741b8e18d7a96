-- name: job_insert
insert into job (name, model, tier, tenant, wanted, created, enqueued, deadline, stages, metadata)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: payload_insert
insert into payload (job, inputs, files) values (?, ?, ?);

-- name: input_file_insert
insert or ignore into input_file (store_key, job) values (?, ?);

-- name: input_files_unshared
-- Uploads of a job that no other job refers to.
select store_key from input_file as own where job = ?
  and not exists (select 1 from input_file as other where other.store_key = own.store_key and other.job <> own.job)
order by store_key;

-- name: idempotency_get
select idempotency.body, job.name from idempotency join job on job.id = idempotency.job
where idempotency.tenant = ? and idempotency.idempotency_key = ?;

-- name: idempotency_insert
insert into idempotency (tenant, idempotency_key, body, job) values (?, ?, ?, ?);

-- name: job_row
select id, name, model, tier, tenant, wanted, created, enqueued, deadline, stages, metadata from job where name = ?;

-- name: jobs_to_claim
-- What claims carry, as JobRow has it.
select job.id, job.name, job.model, job.tier, job.wanted, job.created, job.enqueued, job.stages, payload.inputs,
  payload.files
from job join payload on payload.job = job.id where job.id in (select value from json_each(?));

-- name: job_view
-- Moments in `starts` are text: as JSON numbers they would be rounded to 15 digits.
select job.id, job.name, job.model, job.tier, job.tenant, job.wanted, job.created, job.enqueued, job.deadline, job.stages,
  job.metadata, tier.slo_s,
  done.status, done.finished, done.version as done_version, done.stage as done_stage, done.attempt as done_attempt,
  done.outcome, done.error,
  lease.fence, lease.stage as lease_stage, lease.version as lease_version, lease.attempt as lease_attempt, lease.claimed,
  lease.stages as lease_stages,
  pinned.version as pinned_version, pinned.stages as pinned_stages, pinned.next_index,
  progress.fraction, progress.message, cancel.at as cancel_at,
  (select json_group_array(json_array(history.stage, printf('%!.17g', history.claimed))) from history
    where history.job = job.id and history.claimed is not null) as starts
from job
  left join tier on tier.name = job.tier
  left join done on done.job = job.id
  left join lease on lease.job = job.id
  left join pinned on pinned.job = job.id
  left join progress on progress.job = job.id
  left join cancel on cancel.job = job.id

-- name: job_inputs
select inputs, files from payload where job = ?;

-- name: done_insert
insert into done (job, status, finished, version, stage, attempt, outcome, error) values (?, ?, ?, ?, ?, ?, ?, ?);

-- name: done_of_job
select status from done where job = ?;

-- name: done_delete
delete from done where job = ?;

-- name: failed_insert
insert into failed (job) values (?);

-- name: failed_delete
delete from failed where job = ?;

-- name: failed_jobs
-- Dead letters; those in quarantine only by force.
select job.name from failed
  join job on job.id = failed.job join done on done.job = failed.job
where (?1 is null or job.model = ?1) and (?2 is null or job.tier = ?2) and (?3 is null or job.tenant = ?3)
  and (?4 is null or job.created <= ?4)
  and (?5 or done.error is null or json_extract(done.error, '$.code') <> 'worker_lost')
order by job.id desc limit ?6;

-- name: cancel_insert
insert or ignore into cancel (job, at) values (?, ?);

-- name: cancel_delete
delete from cancel where job = ?;

-- name: progress_put
insert or replace into progress (job, fraction, message) values (?, ?, ?);

-- name: progress_delete
delete from progress where job = ?;

-- name: pinned_get
select job, version, stages, next_index, previous, restarts from pinned where job = ?;

-- name: pinned_put
insert or replace into pinned (job, version, stages, next_index, previous, restarts) values (?, ?, ?, ?, ?, ?);

-- name: pinned_delete
delete from pinned where job = ?;

-- name: history_insert
insert into history (job, event, at, cause, counted, stage, attempt, fence, token, session, slot, box, version, claimed,
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
select digest, status from history where job = ? and fence = ? and token = ? and event = 'attempt';

-- name: history_of_job
select job.name, history.* from history join job on job.id = history.job where history.job = ? order by history.id;

-- name: history_all
select job.name, history.* from history join job on job.id = history.job order by history.id;

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

-- name: pinned_ready
-- Those jobs of one version.
select job.id as job, job.enqueued, pinned.restarts, job.name, job.stages, job.tier
from pinned cross join job on job.id = pinned.job
where pinned.version = ?2 and job.model = ?1 and job.wanted is null and pinned.restarts < ?3 and exists (
  select 1 from lane join ready on ready.lane = lane.id and ready.enqueued = job.enqueued and ready.job = job.id
  where lane.model = job.model)
limit ?4;
