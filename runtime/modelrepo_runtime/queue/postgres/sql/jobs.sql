-- name: job_insert
-- The number of a job begins with its day.
insert into job (id, name, model, tier, tenant, wanted, created, enqueued, deadline, stages, metadata, tag, size, webhook,
  over, estimate_s)
values ((cast(floor(cast(?6 as double precision) / 86400) as bigint) << 40) | nextval('job_number'),
  ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) returning id;

-- name: jobs_to_claim
-- What claims carry, as JobRow has it; the list is named twice so that only its days are looked into.
select job.id, job.name, job.model, job.tier, job.wanted, job.created, job.enqueued, job.stages, payload.inputs,
  payload.files, job.size, job.webhook, exists (select 1 from state where state.job = job.id) as saved
from job join payload on payload.job = job.id
where job.id = any(cast(?1 as bigint[])) and payload.job = any(cast(?1 as bigint[]));

-- name: job_view
select job.id, job.name, job.model, job.tier, job.tenant, job.wanted, job.created, job.enqueued, job.deadline, job.stages,
  job.metadata, job.tag, job.over, job.estimate_s, job.size, tier.slo_s,
  done.status, done.finished, done.version as done_version, done.stage as done_stage, done.attempt as done_attempt,
  done.outcome, done.error, done.claimed as done_claimed,
  lease.fence, lease.stage as lease_stage, lease.version as lease_version, lease.attempt as lease_attempt, lease.claimed,
  lease.stages as lease_stages, lease.slot as lease_slot,
  pinned.version as pinned_version, pinned.stages as pinned_stages, pinned.next_index,
  progress.fraction, progress.message, cancel.at as cancel_at,
  coalesce((select json_agg(json_build_array(history.stage, history.claimed))::text from history
    where history.job = job.id and history.claimed is not null), '[]') as starts
from job
  left join tier on tier.name = job.tier
  left join done on done.job = job.id
  left join lease on lease.job = job.id and not exists (select 1 from staged where staged.fence = lease.fence)
  left join pinned on pinned.job = job.id
  left join progress on progress.job = job.id
  left join cancel on cancel.job = job.id

-- name: failed_jobs
-- Dead letters; those in quarantine only by force.
select job.name from failed
  join job on job.id = failed.job join done on done.job = failed.job
where (cast(?1 as text) is null or job.model = ?1) and (cast(?2 as text) is null or job.tier = ?2)
  and (cast(?3 as text) is null or job.tenant = ?3) and (cast(?4 as double precision) is null or job.created <= ?4)
  and (cast(?5 as integer) = 1 or done.error is null or cast(done.error as json) ->> 'code' <> 'worker_lost')
order by job.id desc limit ?6;

-- name: pinned_pairs
-- Versions that jobs past their first stage wait for, and that may still begin again.
select distinct job.model, pinned.version
from pinned join job on job.id = pinned.job
where pinned.version is not null and job.wanted is null and pinned.restarts < ? and exists (
  select 1 from lane join ready on ready.lane = lane.id and ready.enqueued = job.enqueued and ready.job = job.id
  where lane.model = job.model)
order by job.model, pinned.version;
