-- name: jobs_to_claim
-- What claims carry, as JobRow has it.
select job.id, job.name, job.model, job.tier, job.wanted, job.created, job.enqueued, job.stages, payload.inputs,
  payload.files, job.size, job.webhook, exists (select 1 from state where state.job = job.id) as saved
from job join payload on payload.job = job.id where job.id in (select value from json_each(?));

-- name: job_view
-- Moments in `starts` are text: as JSON numbers they would be rounded to 15 digits.
select job.id, job.name, job.model, job.tier, job.tenant, job.wanted, job.created, job.enqueued, job.deadline, job.stages,
  job.metadata, job.tag, job.over, job.estimate_s, job.size, tier.slo_s,
  done.status, done.finished, done.version as done_version, done.stage as done_stage, done.attempt as done_attempt,
  done.outcome, done.error, done.claimed as done_claimed,
  lease.fence, lease.stage as lease_stage, lease.version as lease_version, lease.attempt as lease_attempt, lease.claimed,
  lease.stages as lease_stages, lease.slot as lease_slot,
  pinned.version as pinned_version, pinned.stages as pinned_stages, pinned.next_index,
  progress.fraction, progress.message, cancel.at as cancel_at,
  (select json_group_array(json_array(history.stage, printf('%!.17g', history.claimed))) from history
    where history.job = job.id and history.claimed is not null) as starts
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
where (?1 is null or job.model = ?1) and (?2 is null or job.tier = ?2) and (?3 is null or job.tenant = ?3)
  and (?4 is null or job.created <= ?4)
  and (?5 or done.error is null or json_extract(done.error, '$.code') <> 'worker_lost')
order by job.id desc limit ?6;

-- name: done_insert
-- Of attempts that succeed, one has the place of the newest row of `history`.
insert into done (job, status, finished, version, stage, attempt, outcome, error, fence, token, session, slot, claimed, noted)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (select coalesce(max(id), 0) from history));
