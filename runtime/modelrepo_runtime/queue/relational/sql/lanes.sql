-- name: lane_insert
insert into lane (model, stage, tier, version, avoid, cluster, over) values (?, ?, ?, ?, ?, ?, ?) on conflict do nothing;

-- name: lane_id
select id from lane where model = ? and stage = ? and tier = ? and version = ? and avoid = ? and cluster = ? and over = ?;

-- name: lane_heads
-- Every lane of a model with its oldest row, and under lwdf-late the oldest that is not late: a seek or two a lane.
select lane.id, lane.model, lane.stage, lane.tier, lane.version, lane.avoid, lane.cluster,
  lane.over, tier.slo_s, tier.allowed_miss,
  (select enqueued from ready where ready.lane = lane.id order by enqueued, job limit 1) as head,
  case when (select value from setting where name = 'policy') = 'lwdf-late' then
    (select enqueued from ready where ready.lane = lane.id and enqueued >= ?2 - tier.slo_s order by enqueued, job limit 1)
  end as on_time,
  (select value from setting where name = 'policy') as policy, exists (select 1 from pause) as pausing,
  exists (select 1 from breaker where since is not null) as failing
from lane join tier on tier.name = lane.tier
where lane.model = ?1;

-- name: claim_moment
-- What waits are compared by, and whether any job is staged anywhere.
select (select enqueued from job order by id desc limit 1), exists (select 1 from staged);

-- name: lanes_of_model
select lane.id, lane.model, lane.stage, lane.tier, lane.version, lane.avoid, lane.cluster,
  lane.over, tier.slo_s
from lane join tier on tier.name = lane.tier where lane.model = ?;

-- name: lanes_sweep
delete from lane
where not exists (select 1 from ready where ready.lane = lane.id)
  and not exists (select 1 from delayed where delayed.lane = lane.id);

-- name: ready_by_tag
-- The next rows of a lane after one, in the order in which they go.
select lane, tag, job, enqueued, stage_index, attempt from ready where lane = ?1 and (tag, job) > (?2, ?3)
order by tag, job limit ?4;

-- name: ready_ages
-- The next rows of a lane after one, the oldest first, as far as an index alone knows them.
select lane, cast(0 as double precision), job, enqueued, 0, 0 from ready where lane = ?1 and (enqueued, job) > (?2, ?3)
order by enqueued, job limit ?4;

-- name: ready_by_age
-- The same, whole.
select lane, tag, job, enqueued, stage_index, attempt from ready where lane = ?1 and (enqueued, job) > (?2, ?3)
order by enqueued, job limit ?4;

-- name: ready_insert
insert into ready (lane, tag, job, enqueued, stage_index, attempt) values (?, ?, ?, ?, ?, ?);

-- name: ready_return
-- The same for what has been claimed before: it may be older than what was claimed since.
insert into ready (lane, tag, job, enqueued, stage_index, attempt) values (?, ?, ?, ?, ?, ?);

-- name: ready_delete
-- Whichever index is chosen, the row is sought by the whole of its key.
delete from ready where lane = ? and tag = ? and job = ? and enqueued = ?;

-- name: ready_of_job
-- Where a job waits: one seek in each lane of its model.
select ready.lane, ready.tag, ready.job, ready.enqueued, ready.stage_index, ready.attempt
from lane join ready on ready.lane = lane.id and ready.enqueued = ?2 and ready.job = ?3
where lane.model = ?1;

-- name: ready_before
-- Jobs of a lane that entered before a moment, counted to a limit.
select count(*) from (select 1 from ready where lane = ? and enqueued < ? limit ?);

-- name: ready_before_tag
-- Jobs of a lane that go before a place in it, counted to a limit.
select count(*) from (select 1 from ready where lane = ? and (tag, job) < (?, ?) limit ?) as counted;

-- name: delayed_insert
insert into delayed (job, due, lane, tag, enqueued, stage_index, attempt) values (?, ?, ?, ?, ?, ?, ?);

-- name: delayed_due
-- Up to now, and beyond what can be due: written before the clock went back.
select delayed.job, delayed.lane, delayed.tag, delayed.enqueued, delayed.stage_index, delayed.attempt, lane.model
from delayed join lane on lane.id = delayed.lane where delayed.due <= ? or delayed.due > ? limit ?;

-- name: delayed_delete
delete from delayed where job = ?;

-- name: deadlines_passed
-- Waiting jobs only: a leased one is looked at when its attempt ends.
select deadline.at, deadline.job, job.name, job.model, job.tier, job.tenant, job.estimate_s, job.enqueued,
  coalesce(pinned.version, job.wanted) as version,
  exists (select 1 from history where history.job = deadline.job) as tried
from deadline join job on job.id = deadline.job left join pinned on pinned.job = deadline.job
where deadline.at <= ? and not exists (
  select 1 from lease where lease.job = deadline.job
    and not exists (select 1 from staged where staged.fence = lease.fence))
order by deadline.at limit ?;

-- name: deadline_insert
insert into deadline (at, job) values (?, ?) on conflict do nothing;

-- name: deadline_delete
delete from deadline where at = ? and job = ?;

-- name: tiers
select name, slo_s, allowed_miss, is_default, refuse_late, keep_files_s, keep_jobs_s from tier order by slo_s, name;

-- name: tier_put
insert into tier (name, slo_s, allowed_miss, is_default, refuse_late, keep_files_s, keep_jobs_s)
values (?, ?, ?, ?, ?, ?, ?)
on conflict (name) do update set slo_s = excluded.slo_s, allowed_miss = excluded.allowed_miss,
  refuse_late = excluded.refuse_late, keep_files_s = excluded.keep_files_s, keep_jobs_s = excluded.keep_jobs_s;

-- name: tier_default
update tier set is_default = (name = ?);
