-- name: credit_lock
-- Whoever changes the count of a key waits here for whoever else does; one writer at a time needs no lock.
select ?1, ?2, ?3;

-- name: credit_count
-- How many credits of a key are out; the newest row counts.
select seq, held, audited from credit_count where cluster = ? and model = ? and version = ? order by seq desc limit 1;

-- name: credit_count_insert
insert into credit_count (cluster, model, version, seq, held, audited) values (?, ?, ?, ?, ?, ?);

-- name: credit_count_older
delete from credit_count where cluster = ? and model = ? and version = ? and seq < ?;

-- name: credit_insert
insert into credit (job, cluster, model, version, at) values (?, ?, ?, ?, ?) on conflict do nothing;

-- name: credit_take_back
delete from credit

-- name: credit_of_job
select cluster, model, version, at from credit where job = ?;

-- name: credits_of_jobs
select job, cluster, model, version from credit

-- name: credits_counted
select cluster, model, version, seq, held, audited from credit_count where audited < ? order by cluster, model, version, seq;

-- name: credits_out
select count(*) from credit where cluster = ? and model = ? and version = ?;

-- name: credits_shown
select cluster, model, version, max(seq) as seq from credit_count group by cluster, model, version
order by cluster, model, version;

-- name: slots_feeding
-- Live slots of a cluster that serve or load a version for an accelerator stage: all of them, and those not cordoned.
select count(*), coalesce(sum(case when slot.state <> 'cordoned' then 1 else 0 end), 0)
from slot join session on session.id = slot.session join beat on beat.session = slot.session
where session.cluster = ?1 and slot.model = ?2 and (slot.version = ?3 or slot.loads = ?3) and slot.gpu = 1
  and beat.at > ?4 and beat.at < ?5;

-- name: versions_of_cluster
-- What the live accelerator slots of a cluster serve, and what they are going to.
select distinct slot.model, slot.version, slot.incoming
from slot join session on session.id = slot.session join beat on beat.session = slot.session
where session.cluster = ? and slot.gpu = 1 and slot.model is not null and beat.at > ? and beat.at < ?;

-- name: versions_waited_for
-- Versions that jobs past their first stage wait for. The jobs of a lane with a version are all at the same stage.
select distinct lane.version from lane
where lane.model = ? and lane.version <> '' and lane.cluster in ('', ?)
  and (select stage_index from ready where ready.lane = lane.id limit 1) > 0;

-- name: cluster_of_session
select cluster from session where id = ?;

-- name: stage_means
select stage, mean_s from service_time where model = ? and size = '' and accelerator = '';

-- name: handover_put
insert into handover (job, cluster, files) values (?, ?, ?)
on conflict (job) do update set cluster = excluded.cluster, files = excluded.files;

-- name: handover_get
select cluster, files from handover where job = ?;

-- name: handovers
select job, files from handover

-- name: handover_delete
delete from handover where job = ?;
