-- name: job_held
-- Whoever deletes a job waits here for whoever else does.
select id from job where id = ?

-- name: done_withdraw
-- Whoever gets the row back may make the job wait again, or forget it.
delete from done where job = ? returning job;

-- name: ready_withdraw
delete from ready where lane = ? and tag = ? and job = ? and enqueued = ? returning job;

-- name: delayed_withdraw
delete from delayed where job = ? returning job;

-- name: lease_cancel
update lease set cancelled = 1 where fence = ?;
