-- name: fences_take
update counter set value = value + ? where name = 'fence' returning value;

-- name: lease_insert
insert into lease (fence, token, job, session, seq, after_fence, slot, box, stage, stage_index, stages, attempt, version, claimed)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: lease_by_fence
select lease.*, job.name, job.model, job.tier, job.wanted, job.created, job.enqueued, job.deadline, job.stages as job_stages
from lease join job on job.id = lease.job where lease.fence = ?;

-- name: leases_of_claim
select lease.*, job.name, job.model, job.tier, job.wanted, job.created, job.enqueued, job.deadline, job.stages as job_stages
from lease join job on job.id = lease.job where lease.session = ? and lease.seq = ? and lease.after_fence is null
order by lease.fence;

-- name: lease_after
select lease.*, job.name, job.model, job.tier, job.wanted, job.created, job.enqueued, job.deadline, job.stages as job_stages
from lease join job on job.id = lease.job where lease.after_fence = ?;

-- name: leases_of_session
select lease.*, job.name, job.model, job.tier, job.wanted, job.created, job.enqueued, job.deadline, job.stages as job_stages
from lease join job on job.id = lease.job where lease.session = ? order by lease.fence;

-- name: lease_of_job
select fence, session, slot, box, stage, version, claimed, attempt from lease where job = ?;

-- name: lease_delete
delete from lease where fence = ?;

-- name: left_out_add
insert into left_out (fence, beats) values (?, 1) on conflict (fence) do update set beats = beats + 1 returning beats;

-- name: left_out_delete
delete from left_out where fence = ?;

-- name: left_out_any
select exists (select 1 from left_out);

-- name: cancelled_of_session
select job.name from lease join cancel on cancel.job = lease.job join job on job.id = lease.job where lease.session = ?;
