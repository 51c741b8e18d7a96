-- name: webhook_of_job
select webhook from job where id = ?;

-- name: hook_started
-- A row where the receiver has not been told of the start yet.
insert into hook (job, started) values (?, 1) on conflict (job) do update set started = 1 where hook.started = 0
returning job;

-- name: hook_again
update hook set started = 0 where job = ?;

-- name: hook_progressed
insert into hook (job, started, progressed) values (?1, 1, ?2) on conflict (job) do update set progressed = ?2;

-- name: hook_get
select progressed from hook where job = ?;

-- name: hook_delete
delete from hook where job = ?;

-- name: outbox_insert
insert into outbox (job, message, kind, at, facts, host, due, tries) values (?, ?, ?, ?, ?, ?, ?, 0);

-- name: outbox_progress_replace
-- Progress that still waits is told as it is now, under an id that no receiver has seen.
update outbox set message = ?, at = ?, facts = ? where job = ? and kind = 'job.progress' and holder is null returning id;

-- name: outbox_progress_drop
delete from outbox where job = ? and kind = 'job.progress' and holder is null;

-- name: outbox_kick
update outbox set due = ? where job = ? and holder is null;

-- name: outbox_ready
-- The first few events of each host that are due, the oldest of their jobs.
select ranked.id, ranked.host
from (
  select outbox.id, outbox.host, outbox.due,
    row_number() over (partition by outbox.host order by outbox.due, outbox.id) as place
  from outbox
  where outbox.due <= ?1 and (outbox.holder is null or outbox.taken_until <= ?1 or outbox.taken_until > ?2)
    and not exists (select 1 from outbox as earlier where earlier.job = outbox.job and earlier.id < outbox.id)
) as ranked
where ranked.place <= ?3 order by ranked.due, ranked.id;

-- name: outbox_under_way
select host, count(*) as tries from outbox where holder is not null and taken_until > ?1 and taken_until <= ?2 group by host;

-- name: outbox_take
update outbox set holder = ?1, taken_until = ?2
where id = ?3 and due <= ?4 and (holder is null or taken_until <= ?4 or taken_until > ?2) returning id;

-- name: outbox_taken
select outbox.id, outbox.message, outbox.kind, outbox.at, outbox.facts, outbox.tries, job.name, job.webhook
from outbox left join job on job.id = outbox.job where outbox.id = ?;

-- name: outbox_held
select outbox.id, outbox.message, outbox.kind, outbox.at, outbox.tries, job.name, job.webhook
from outbox join job on job.id = outbox.job where outbox.id = ? and outbox.holder = ?;

-- name: outbox_again
update outbox set due = ?, tries = tries + 1, error = ?, holder = null, taken_until = null where id = ?;

-- name: outbox_delete
delete from outbox where id = ?;

-- name: outbox_of_job
select outbox.id, outbox.message, outbox.kind, outbox.at, outbox.tries, job.name, job.webhook
from outbox join job on job.id = outbox.job where outbox.job = ? order by outbox.id

-- name: outbox_delete_job
delete from outbox where job = ?;

-- name: job_unhook
update job set webhook = null where id = ?;

-- name: outbox_give_up
insert into outbox_given_up (message, job, kind, url, at, tries, error, given_up) values (?, ?, ?, ?, ?, ?, ?, ?);

-- name: outbox_state
select (select count(*) from outbox) as waiting, (select min(at) from outbox) as oldest,
  (select count(*) from outbox_given_up) as given_up;

-- name: outbox_tried
select outbox.message, job.name, outbox.kind, job.webhook, outbox.at, outbox.tries, outbox.error, outbox.due
from outbox join job on job.id = outbox.job where outbox.tries > 0 order by outbox.id desc limit ?;

-- name: outbox_lost
select message, job as name, kind, url, at, tries, error from outbox_given_up order by id desc limit ?;

-- name: outbox_lost_sweep
delete from outbox_given_up where given_up < ?;
