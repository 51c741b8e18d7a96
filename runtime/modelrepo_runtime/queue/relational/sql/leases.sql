-- name: lease_insert
insert into lease (fence, token, job, session, seq, after_fence, slot, box, stage, stage_index, stages, attempt, version, claimed)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: lease_view
-- A lease and its job, as LeaseRow has them.
select lease.fence, lease.token, lease.job, lease.session, lease.slot, lease.box, lease.stage, lease.stage_index,
  lease.stages, lease.attempt, lease.version, lease.claimed,
  job.name, job.model, job.tier, job.wanted, job.enqueued, job.deadline, job.stages, job.tag,
  lease.cancelled,
  coalesce((select 1 + progress.saved from progress where progress.job = lease.job), 0), job.webhook,
  (select since from breaker where breaker.model = job.model and breaker.version = lease.version), job.size,
  job.tenant, job.over, job.estimate_s
from lease join job on job.id = lease.job

-- name: claimant
-- Who claims, and whether it has leases of the same call already.
select worker, host, cluster, exists (
  select 1 from lease where lease.session = ?1 and lease.seq = ?2 and lease.after_fence is null)
from session where id = ?1;

-- name: leased_by_call
select exists (select 1 from lease where session = ? and seq = ?);

-- name: lease_of_job
select fence, session, slot, box, stage, version, claimed, attempt from lease where job = ?;

-- name: lease_delete
delete from lease where fence = ?;

-- name: left_out_add
insert into left_out (fence, beats) values (?, 1) on conflict (fence) do update set beats = left_out.beats + 1 returning beats;

-- name: left_out_delete
delete from left_out where fence = ?;

-- name: left_out_sweep
delete from left_out where not exists (select 1 from lease where lease.fence = left_out.fence);

-- name: left_out_any
select exists (select 1 from left_out);
