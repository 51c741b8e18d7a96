-- name: turns_of_model
-- Not those that run until later than any can that is taken now: taken before the clock went back.
select slot, until from turn where model = ? and kind = ? and until > ? and until <= ?;

-- name: turn_put
insert into turn (model, kind, slot, until) values (?, ?, ?, ?)
on conflict (model, kind, slot) do update set until = excluded.until;

-- name: turn_renew
update turn set until = ? where model = ? and kind = ? and slot = ? and until > ? and until <= ? returning slot;

-- name: turns_run_out
delete from turn where model = ? and kind = ? and until <= ?;

-- name: turn_delete
delete from turn where model = ? and kind = ? and slot = ?;

-- name: turns_past
delete from turn where until <= ?;

-- name: refusal_put
insert into refusal (model, generation, digest, worker, slot, reason, at) values (?, ?, ?, ?, ?, ?, ?)
on conflict (model, generation, digest, worker, slot) do nothing;

-- name: refusal_delete
delete from refusal where model = ? and generation = ? and digest = ? and worker = ? and slot = ?;

-- name: refusals
select worker, slot, reason, at from refusal where model = ? and generation = ? and digest = ?
order by at, worker, slot limit ?;

-- name: refusals_before
delete from refusal where model = ? and generation < ?;

-- name: workers_of_model
select count(distinct session.worker) as workers from slot join session on session.id = slot.session
where slot.model = ?;

-- name: halt_put
insert into halt (model, generation, digest, since) values (?, ?, ?, ?)
on conflict (model, generation, digest) do nothing;

-- name: halt_get
select since from halt where model = ? and generation = ? and digest = ?;

-- name: halts_before
delete from halt where model = ? and generation < ?;
