-- name: staged_insert
insert into staged (fence, model) values (?, ?);

-- name: staged_delete
-- Whoever gets the row back has won: its slot begins the job, or somebody else takes it.
delete from staged where fence = ? returning fence;

-- name: staged_models
select distinct model from staged

-- name: staged_of_model
select fence from staged where model = ? order by fence;

-- name: staged_of_job
select staged.fence from staged join lease on lease.fence = staged.fence where lease.job = ?;

-- name: staged_lease
select 1 from staged where fence = ?;

-- name: staged_sweep
delete from staged where not exists (select 1 from lease where lease.fence = staged.fence);

-- name: lease_begin
update lease set claimed = ? where fence = ?;

-- name: heads_of_model
-- Every non-empty lane of a model with its oldest row.
select lane.id, lane.model, lane.stage, lane.tier, lane.version, lane.avoid, lane.cluster, lane.over, tier.slo_s,
  (select enqueued from ready where ready.lane = lane.id order by enqueued, job limit 1) as head
from lane join tier on tier.name = lane.tier
where lane.model = ?;
