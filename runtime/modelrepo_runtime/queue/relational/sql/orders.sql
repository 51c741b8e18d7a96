-- name: order_insert
insert into worker_order (worker, slot, verb, argument, reason, given_by, standing, at, refused)
values (?, ?, ?, ?, ?, ?, ?, ?, 0) returning id;

-- name: order_view
select worker_order.id, worker_order.worker, worker_order.slot, worker_order.verb, worker_order.argument,
  worker_order.reason, worker_order.given_by, worker_order.standing, worker_order.at, worker_order.confirmed,
  worker_order.answer, worker_order.refused
from worker_order

-- name: orders_for_sessions
-- What sessions must still carry out: what none of their worker has, and what stands and this session has not heard.
select session.id as session, worker_order.id, worker_order.slot, worker_order.verb, worker_order.argument,
  worker_order.reason
from worker_order join session on session.worker = worker_order.worker
where worker_order.refused = 0 and (worker_order.confirmed is null or worker_order.standing = 1)
  and not exists (select 1 from order_heard where order_heard.worker_order = worker_order.id and order_heard.session = session.id)

-- name: order_any
select exists (select 1 from worker_order);

-- name: order_delete
delete from worker_order where id = ?;

-- name: order_taken_back
delete from worker_order where id = ? and (confirmed is null or standing = 1) returning id;

-- name: order_confirm
-- One that is refused stands no longer, also where an earlier session has followed it.
update worker_order set confirmed = ?1, answer = ?2, refused = ?3, standing = case when ?3 = 1 then 0 else standing end
where id = ?4 and (confirmed is null or (?3 = 1 and standing = 1)) returning worker, slot, verb;

-- name: order_heard_insert
insert into order_heard (worker_order, session) values (?, ?) on conflict do nothing;

-- name: order_heard_sweep
delete from order_heard where not exists (select 1 from worker_order where worker_order.id = order_heard.worker_order)
  or not exists (select 1 from session where session.id = order_heard.session);

-- name: orders_past
delete from worker_order where at < ?1 and (confirmed is not null or standing = 0)
  and (standing = 0 or refused = 1);

-- name: workers_named
select id, slots from session where worker = ?;

-- name: workers_known
select distinct worker from session order by worker;
