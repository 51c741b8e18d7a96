-- name: verdict_insert
insert into verdict (model, version, stage, at, slot, size, attempts, failed, taken_s, job, fence, memory)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: verdicts_newest
-- How attempts at one stage of a version ended since a moment; the newest that may be looked at.
select slot, at, attempts, failed from verdict
where model = ? and version = ? and stage = ? and at > ? order by at desc limit ?;

-- name: verdicts_failed
-- The attempts of a version that failed since a moment, at whatever stage.
select job, fence from verdict where model = ? and version = ? and at > ? and failed > 0;

-- name: verdicts_sweep
-- The oldest that are out of the window; ids grow with time, so that nothing else is read.
delete from verdict where id in (select id from verdict order by id limit ?) and at < ?;

-- name: breaker_get
select since, closed from breaker where model = ? and version = ?;

-- name: breaker_trip
insert into breaker (model, version, stage, since, attempts, failed, workers) values (?, ?, ?, ?, ?, ?, ?)
on conflict (model, version) do update set stage = excluded.stage, since = excluded.since, closed = null,
  attempts = excluded.attempts, failed = excluded.failed, workers = excluded.workers
where breaker.since is null;

-- name: breaker_close
update breaker set since = null, closed = ? where model = ? and version = ? and since is not null returning stage;

-- name: breakers_past
delete from breaker where since is null and closed < ?;

-- name: versions_failing
select model, version, stage, since, attempts, failed, workers from breaker where since is not null
order by model, version;

-- name: probe_put
insert into probe (model, version, cluster, stage, fence) values (?, ?, ?, ?, ?)
on conflict (model, version, cluster, stage) do update set fence = excluded.fence;

-- name: probes_leased
-- A probe lasts as long as its lease.
select probe.model, probe.version, probe.cluster, probe.stage, probe.fence
from probe join lease on lease.fence = probe.fence;

-- name: probe_of_lease
-- Whether a lease is a probe of a version that still fails.
select breaker.stage as failing_stage
from probe join breaker on breaker.model = probe.model and breaker.version = probe.version
where probe.model = ? and probe.version = ? and probe.fence = ? and breaker.since is not null;

-- name: probes_delete
delete from probe where model = ? and version = ?;

-- name: attempt_refund
update history set counted = 0 where job = ? and fence = ? and event = 'attempt';

-- name: dead_letters_of_version
select job.id, job.name, job.model, job.tier, job.wanted, job.enqueued, job.tag, job.over, job.deadline, job.stages,
  done.attempt
from failed join done on done.job = failed.job join job on job.id = failed.job
where done.version = ? and done.finished >= ?
