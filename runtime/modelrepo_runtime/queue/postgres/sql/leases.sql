-- name: fences_take
-- A block of 4096 for each call; numbers that it leaves over are never given out.
select (nextval('fence_block') << 12) + cast(?1 as bigint) where cast(?1 as bigint) < 4096;

-- name: lease_view
-- As everywhere; but its job is looked up for each lease, so that leases are never read in the order of their jobs: once
-- the table is thought to be empty, that looks cheaper than to seek them.
select lease.fence, lease.token, lease.job, lease.session, lease.slot, lease.box, lease.stage, lease.stage_index,
  lease.stages, lease.attempt, lease.version, lease.claimed,
  job.name, job.model, job.tier, job.wanted, job.enqueued, job.deadline, job.stages, job.tag,
  lease.cancelled,
  coalesce((select 1 + progress.saved from progress where progress.job = lease.job), 0), job.webhook,
  (select since from breaker where breaker.model = job.model and breaker.version = lease.version), job.size,
  job.tenant, job.over, job.estimate_s
from lease cross join lateral (select * from job where job.id = lease.job offset 0) as job
