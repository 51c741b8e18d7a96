-- name: learnt_upto
select upto from learnt where one = 1;

-- name: learnt_move
-- Of all who read the history at once, one moves the mark on.
update learnt set upto = ?2 where one = 1 and upto = ?1 returning upto;

-- name: verdict_newest
select id from verdict order by id desc limit 1;

-- name: verdicts_fine
-- What came to a result after a mark, oldest first, and how long it took.
select model, stage, size, slot, attempts, taken_s from verdict
where id > ? and id <= ? and taken_s is not null order by id;

-- name: slots_on_devices
-- Slots that say what they run on.
select session.worker, slot.slot, slot.report from slot join session on session.id = slot.session

-- name: service_times
select model, stage, size, accelerator, count, mean_s, deviation_s from service_time;

-- name: service_time_put
insert into service_time (model, stage, size, accelerator, count, mean_s, deviation_s) values (?, ?, ?, ?, ?, ?, ?)
on conflict (model, stage, size, accelerator) do update set count = excluded.count, mean_s = excluded.mean_s,
  deviation_s = excluded.deviation_s;

-- name: verdicts_measured
-- What attempts took after a mark, oldest first.
select model, stage, size, at, memory from verdict where id > ? and id <= ? and memory is not null order by id;

-- name: memory_of_all
select model, stage, size, seen from memory_taken;

-- name: memory_of
select seen from memory_taken where model = ? and stage = ? and size = ?;

-- name: memory_put
insert into memory_taken (model, stage, size, seen) values (?, ?, ?, ?)
on conflict (model, stage, size) do update set seen = excluded.seen;

-- name: rooms_of_all
-- Each kind of slot once; those too that are silent for now.
select distinct model, cpu, gpu, accelerator_bytes, host_bytes from slot where model is not null;

-- name: rooms_of_model
select distinct model, cpu, gpu, accelerator_bytes, host_bytes from slot where model = ?;
