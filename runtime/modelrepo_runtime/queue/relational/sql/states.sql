-- name: state_insert
insert into state (job, fence, number, stage, digest, store_key, size_bytes, sha256) values (?, ?, ?, ?, ?, ?, ?, ?)
on conflict do nothing;

-- name: state_get
select sha256 from state where job = ? and fence = ? and number = ?;

-- name: states_of_job
-- The newest first.
select fence, number, digest, store_key, size_bytes, sha256 from state where job = ? order by fence desc, number desc;

-- name: state_forget
delete from state where job = ? and fence = ? and number = ?;

-- name: state_drop
insert into state_dropped (store_key) select store_key from state where job = ? on conflict do nothing;

-- name: state_delete
delete from state where job = ?;

-- name: state_dropped_insert
insert into state_dropped (store_key) values (?) on conflict do nothing;

-- name: states_dropped
select store_key from state_dropped order by store_key limit ?;

-- name: state_dropped_delete
delete from state_dropped where store_key = ?;

-- name: progress_get
select fraction, message from progress where job = ?;

-- name: progress_saved
insert into progress (job, saved) values (?, 1) on conflict (job) do update set saved = 1;

-- name: job_names_open
-- Jobs that have not ended, of those that are named.
select job.name from job left join done on done.job = job.id where done.job is null
