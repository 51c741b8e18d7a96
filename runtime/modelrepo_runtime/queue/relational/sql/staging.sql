-- name: staged_insert
insert into staged (fence, model) values (?, ?);

-- name: staged_delete
delete from staged where fence = ? returning fence;

-- name: staged_of_models
select exists (select 1 from staged where model = ?);

-- name: staged_leases
select lease.fence from staged join lease on lease.fence = staged.fence where staged.model = ? order by lease.fence;

-- name: staged_lease
select 1 from staged where fence = ?;

-- name: staged_sweep
delete from staged where not exists (select 1 from lease where lease.fence = staged.fence);

-- name: lease_begin
update lease set claimed = ? where fence = ?;
