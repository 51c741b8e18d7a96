-- name: lane_loads
-- How full every lane is, counted to a limit, and when the job there came in: what counts for a prediction, read at
-- most once a second.
select lane.id, lane.model, lane.stage, lane.tier, lane.version, lane.avoid, lane.cluster, lane.over,
  (select count(*) from (select 1 from ready where ready.lane = lane.id limit ?1) as counted) as depth,
  (select enqueued from ready where ready.lane = lane.id order by enqueued, job limit 1 offset ?1) as beyond,
  (select min(enqueued) from ready where ready.lane = lane.id) as oldest,
  (select max(enqueued) from ready where ready.lane = lane.id) as newest,
  (select job from ready where ready.lane = lane.id order by enqueued, job limit 1) as head,
  (select count(*) from (select 1 from delayed where delayed.lane = lane.id limit ?1) as counted) as delayed
from lane order by lane.model, lane.stage, lane.tier, lane.id;

-- name: plans_of_jobs
-- The stages that jobs follow.
select job.id, coalesce(pinned.stages, job.stages) as stages from job left join pinned on pinned.job = job.id

-- name: waits_of_job
-- The lane in which a job waits, and until when it is delayed.
select lane.model, lane.stage, lane.tier, lane.version, lane.avoid, lane.cluster, lane.over, cast(null as real) as due
from lane join ready on ready.lane = lane.id and ready.enqueued = ?3 and ready.job = ?1 where lane.model = ?2
union all
select lane.model, lane.stage, lane.tier, lane.version, lane.avoid, lane.cluster, lane.over, delayed.due
from delayed join lane on lane.id = delayed.lane where delayed.job = ?1;

-- name: slots_reporting
-- Slots of every session that has beaten lately.
select session.worker, session.host, session.cluster, slot.slot, slot.report
from slot join session on session.id = slot.session join beat on beat.session = slot.session
where beat.at > ? and beat.at < ?

-- name: slots_open
-- Those among them that may take jobs now.
select session.worker, session.cluster, slot.slot, slot.model, slot.version, slot.incoming, slot.report
from slot join session on session.id = slot.session join beat on beat.session = slot.session
where slot.state = 'open' and slot.model is not null and beat.at > ? and beat.at < ?;

-- name: leases_running
-- What each slot does, the oldest first.
select lease.slot, lease.stage, lease.claimed, lease.version, job.model, job.size, progress.fraction, job.name
from lease join job on job.id = lease.job left join progress on progress.job = lease.job order by lease.fence;
