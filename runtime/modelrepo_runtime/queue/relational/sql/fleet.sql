-- name: session_insert
insert into session (id, worker, host, pid, cluster, slots, began) values (?, ?, ?, ?, ?, ?, ?);

-- name: session_get
select id, worker, host, pid, cluster, slots, began from session where id = ?;

-- name: session_delete
delete from session where id = ?;

-- name: sessions_replaced
-- Earlier lives of a worker that hold nothing and have fallen silent.
select session.id from session join beat on beat.session = session.id
where session.worker = ? and session.host = ? and not (beat.at > ? and beat.at < ?)
  and not exists (select 1 from lease where lease.session = session.id);

-- name: sessions_forgotten
select session.id from session join beat on beat.session = session.id
where beat.at < ? and not exists (select 1 from lease where lease.session = session.id);

-- name: beat_insert
insert into beat (session, number, at) values (?, 0, ?);

-- name: beat_number
select number from beat where session = ?;

-- name: beat_delete
delete from beat where session = ?;

-- name: beats_of_holders
select lease.session, max(beat.number) from lease left join beat on beat.session = lease.session group by lease.session;

-- name: slots_delete
delete from slot where session = ?;

-- name: slot_insert
insert into slot (session, slot, state, model, version, incoming, cpu, gpu, loads, also, accelerator_bytes,
  host_bytes, report)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: slots_of_all
select session, report from slot order by session, slot;

-- name: workers_of_sessions
select id, worker from session

-- name: clusters_of_sessions
select id, cluster from session

-- name: slots_of_sessions
select session, slot, report from slot

-- name: fleet
select session.id, session.worker, session.host, session.pid, session.cluster, session.slots, beat.at
from session join beat on beat.session = session.id order by beat.at desc, session.id;

-- name: slots_serving
select count(*) from slot join beat on beat.session = slot.session
where slot.model = ? and slot.gpu = 1 and beat.at > ? and beat.at < ?;

-- name: slots_live
select session.worker, session.host, session.cluster, slot.slot, slot.state, slot.model, slot.version, slot.incoming,
  slot.cpu, slot.gpu, slot.also, slot.accelerator_bytes, slot.host_bytes
from slot join session on session.id = slot.session join beat on beat.session = slot.session
where beat.at > ? and beat.at < ?;
