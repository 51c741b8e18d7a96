-- name: lanes_pinned
-- Lanes of jobs past their first stage with the plan of one of them, and others with none: one row of each is read.
select lane.id, lane.model, lane.stage, lane.tier, lane.version, lane.avoid, lane.cluster, lane.over,
  (select coalesce(pinned.stages, job.stages)
    from (select ready.job from ready where ready.lane = lane.id limit 1) as one
    join pinned on pinned.job = one.job join job on job.id = one.job where pinned.version = lane.version) as stages
from lane where lane.version <> '';

-- name: pinned_in_lane
-- Jobs of such a lane that may still begin again.
select job.id as job, job.enqueued, job.tag, job.over, pinned.restarts, job.name, job.stages, job.tier
from ready join pinned on pinned.job = ready.job join job on job.id = ready.job
where ready.lane = ? and pinned.version = ? and job.wanted is null and pinned.restarts < ? limit ?;

-- name: lanes_homed
-- Non-empty lanes of jobs that wait for their first stage in one cluster, where their credit is.
select id, model, stage, tier, version, avoid, cluster, over from lane
where cluster <> '' and exists (select 1 from ready where ready.lane = lane.id and ready.stage_index = 0);

-- name: rows_homed
select tag, job, enqueued, attempt from ready where lane = ? and stage_index = 0 order by tag, job limit ?;

-- name: slots_assigned
-- Slots that this queue itself has asked to serve one version.
select id, worker, slot, argument from worker_order where given_by = ? and verb = 'assign' and standing = 1;

-- name: slots_that_refused
select worker, slot from worker_order where verb = 'assign' and refused = 1 and argument = ?;

-- name: version_is_waited_for
select exists (select 1 from pinned join job on job.id = pinned.job where pinned.version = ?2 and job.model = ?1);
