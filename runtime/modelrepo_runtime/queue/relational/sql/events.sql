-- name: fleet_event_insert
insert into fleet_event (at, kind, text, model, version, worker, slot, job) values (?, ?, ?, ?, ?, ?, ?, ?);

-- name: fleet_events
select id, at, kind, text, model, version, worker, slot, job from fleet_event
where at >= ?1 and id > ?2 and (cast(?3 as text) is null or model = ?3) and (cast(?4 as text) is null or kind = ?4)
order by id desc limit ?5;

-- name: fleet_events_sweep
delete from fleet_event where at < ?;
