-- name: claim_outlook
-- Whether there is anything to claim for models that are not paused, from where their lanes begin, and whether anything
-- is due.
select exists (
    select 1 from lane cross join lateral (
      select 1 from ready where ready.lane = lane.id
        and ready.enqueued >= coalesce(
          cast((select cast(?4 as jsonb)) ->> cast(lane.id as text) as double precision), '-infinity')
      limit 1
    ) as found where lane.model = any(cast(?1 as text[]))
      and not exists (select 1 from pause where pause.model in ('', lane.model) and pause.tier in ('', lane.tier))
  ) or exists (
    select 1 from again join lane on lane.id = again.lane where lane.model = any(cast(?1 as text[]))
      and not exists (select 1 from pause where pause.model in ('', lane.model) and pause.tier in ('', lane.tier)))
    or exists (select 1 from staged where staged.model = any(cast(?1 as text[]))) as work,
  exists (select 1 from delayed where due <= cast(?2 as double precision) or due > cast(?3 as double precision))
    or exists (select 1 from deadline where at <= cast(?2 as double precision)
      and not exists (select 1 from lease where lease.job = deadline.job
        and not exists (select 1 from staged where staged.fence = lease.fence))) as due;

-- name: claims_known
-- Which of the claims come from sessions that live, and which have leases to be told again.
select given.place, exists (select 1 from session where session.id = given.session) as lives,
  exists (select 1 from lease where lease.session = given.session and lease.seq = given.seq) as leased
from unnest(cast(?1 as text[]), cast(?2 as bigint[])) with ordinality as given (session, seq, place)
order by given.place;

-- name: lane_heads_from
-- As lane_heads, from where each lane begins, and with what has come back. Where lanes begin is parsed once, not for
-- each; `offset 0` keeps what is found of a lane from being found again wherever it is used.
select lane.id, lane.model, lane.stage, lane.tier, lane.version, lane.avoid, lane.cluster, lane.over,
  tier.slo_s, tier.allowed_miss, found.entered, found.come_again, least(found.entered, found.come_again) as head,
  case when setting.policy = 'lwdf-late' then least(
    (select enqueued from ready where ready.lane = lane.id
      and ready.enqueued >= greatest(cast(?2 as double precision) - tier.slo_s, begins.at) order by enqueued, job limit 1),
    (select enqueued from again where again.lane = lane.id
      and again.enqueued >= cast(?2 as double precision) - tier.slo_s order by enqueued, job limit 1)
  ) end as on_time,
  setting.policy, setting.pausing, setting.failing
from lane join tier on tier.name = lane.tier
  cross join (
    select (select value from setting where name = 'policy') as policy, exists (select 1 from pause) as pausing,
      exists (select 1 from again) as any_again, exists (select 1 from breaker where since is not null) as failing
  ) as setting
  cross join lateral (
    select coalesce(cast((select cast(?3 as jsonb)) ->> cast(lane.id as text) as double precision), '-infinity') as at
    offset 0
  ) as begins
  cross join lateral (
    select (select enqueued from ready where ready.lane = lane.id and ready.enqueued >= begins.at
        order by enqueued, job limit 1) as entered,
      case when setting.any_again then
        (select enqueued from again where again.lane = lane.id order by enqueued, job limit 1) end as come_again
    offset 0
  ) as found
where lane.model = ?1;

-- name: ready_by_tag_again
select lane, tag, job, enqueued, stage_index, attempt from again where lane = ?1 and (tag, job) > (?2, ?3)
order by tag, job limit ?4;

-- name: ready_by_age_again
select lane, tag, job, enqueued, stage_index, attempt from again where lane = ?1 and (enqueued, job) > (?2, ?3)
order by enqueued, job limit ?4;

-- name: ready_ages_again
select lane, tag, job, enqueued, stage_index, attempt from again where lane = ?1 and (enqueued, job) > (?2, ?3)
order by enqueued, job limit ?4;

-- name: ready_first_tag
-- The first rows of lanes before a key: what entered below the hint.
select lane, tag, job from ready where lane = ?1 and (tag, job) <= (?2, ?3) order by tag, job limit 1;

-- name: ready_first_age
select lane, enqueued, job from ready where lane = ?1 and (enqueued, job) <= (?2, ?3) order by enqueued, job limit 1;

-- name: ready_return
-- What may be older than what was claimed since is noted in `again`, too.
with back as (
  insert into ready (lane, tag, job, enqueued, stage_index, attempt) values (?, ?, ?, ?, ?, ?) returning *
)
insert into again (lane, tag, job, enqueued, stage_index, attempt)
select lane, tag, job, enqueued, stage_index, attempt from back;

-- name: ready_delete
with gone as (delete from again where lane = ?1 and tag = ?2 and job = ?3 and enqueued = ?4)
delete from ready where lane = ?1 and tag = ?2 and job = ?3 and enqueued = ?4;

-- name: ready_delete_many
-- Where each row lies is looked up for itself: a join may begin at the table once it is thought to be empty, and then
-- passes every row that is deleted but still seen by somebody.
with given as (
  select * from unnest(
    cast(?1 as bigint[]), cast(?2 as double precision[]), cast(?3 as bigint[]), cast(?4 as double precision[])
  ) as given (lane, tag, job, enqueued)
), gone as (
  delete from again where ctid = any(array(
    select found.place from given cross join lateral (
      select ctid as place from again where again.lane = given.lane and again.tag = given.tag and again.job = given.job
        and again.enqueued = given.enqueued
      offset 0
    ) as found))
)
delete from ready where ctid = any(array(
  select found.place from given cross join lateral (
    select ctid as place from ready where ready.lane = given.lane and ready.tag = given.tag and ready.job = given.job
      and ready.enqueued = given.enqueued
    offset 0
  ) as found));

-- name: tier_default
update tier set is_default = case when name = ? then 1 else 0 end;

-- name: work_waiting
-- Whether a claim is worth a write: rows for one of the models or something due.
select exists (select 1 from lane join ready on ready.lane = lane.id where lane.model = any(cast(?1 as text[])))
  or exists (select 1 from delayed where due <= ?2 or due > ?3);
