-- name: staged_insert
insert into staged (fence, model) values (?, ?);

-- name: staged_delete
-- Whoever gets the row back has won: its slot begins the job, or somebody else takes it.
delete from staged where fence = ? returning fence;

-- name: staged_models
select distinct model from staged

-- name: staged_of_model
select staged.fence from staged join lease on lease.fence = staged.fence where staged.model = ?
order by staged.fence limit ?;

-- name: staged_of_job
select staged.fence from staged join lease on lease.fence = staged.fence where lease.job = ?;

-- name: staged_lease
select 1 from staged where fence = ?;

-- name: staged_sweep
delete from staged where not exists (select 1 from lease where lease.fence = staged.fence);

-- name: lease_begin
update lease set claimed = ? where fence = ?;
