-- name: tenant_lock
-- Whoever enters jobs of a tenant into a flow waits here for whoever else does; one writer at a time needs no lock.
select ?1, ?2, ?3;

-- name: tenant_standing
-- All that a job's place among the tenants of its flow depends on.
select newest.seq, newest.f, newest.tag, newest.over_tag,
  (select weight from tenant where name = ?3) as weight,
  exists (select 1 from tenant where name = ?3) as known,
  (select burst_jobs from tenant where name = ?3) as burst_jobs,
  (select v from flow_clock where model = ?1 and tier = ?2 and over = 0 order by v desc limit 1) as v,
  (select v from flow_clock where model = ?1 and tier = ?2 and over = 1 order by v desc limit 1) as over_v,
  (select sum(seconds) from correction where model = ?1 and tier = ?2 and tenant = ?3) as corrections,
  (select mean_s from service_time where model = ?1 and stage = ?4 and size in ('', ?5) and accelerator = ''
    order by size desc limit 1) as mean_s
from (select 1 as one) as always left join (
  select seq, f, tag, over_tag from account where model = ?1 and tier = ?2 and tenant = ?3 order by seq desc limit 1
) as newest on true;

-- name: account_insert
insert into account (model, tier, tenant, seq, f, tag, over_tag) values (?, ?, ?, ?, ?, ?, ?);

-- name: account_delete
delete from account where model = ? and tier = ? and tenant = ? and seq = ?;

-- name: correction_insert
insert into correction (model, tier, tenant, seconds) values (?, ?, ?, ?);

-- name: corrections_delete
delete from correction where model = ? and tier = ? and tenant = ?;

-- name: flow_clock_insert
insert into flow_clock (model, tier, over, v) values (?, ?, ?, ?) on conflict do nothing;

-- name: flow_clock_sweep
delete from flow_clock where exists (
  select 1 from flow_clock as newer
  where newer.model = flow_clock.model and newer.tier = flow_clock.tier and newer.over = flow_clock.over
    and newer.v > flow_clock.v);

-- name: corrections_sweep
-- What a tenant of one flow has piled up without submitting anything: one row of the sum would do, none does too.
delete from correction where id < (select max(id) from correction) - ?;

-- name: tenants
select name, weight, burst_jobs from tenant order by name;

-- name: tenants_seen
select distinct tenant from account order by tenant limit ?;

-- name: accounts_after
-- Accounts in their order, and whether their tenants have any job left.
select model, tier, tenant, seq, exists (select 1 from job where job.tenant = account.tenant) as alive from account
where (model, tier, tenant, seq) > (?, ?, ?, ?) order by model, tier, tenant, seq limit ?;

-- name: tenant_put
insert into tenant (name, weight, burst_jobs) values (?, ?, ?)
on conflict (name) do update set weight = excluded.weight, burst_jobs = excluded.burst_jobs;

-- name: setting_get
select value from setting where name = ?;

-- name: setting_put
insert into setting (name, value) values (?, ?) on conflict (name) do update set value = excluded.value;

-- name: pauses
select model, tier, at from pause order by model, tier;

-- name: pause_insert
insert into pause (model, tier, at) values (?, ?, ?) on conflict do nothing;

-- name: pause_delete
delete from pause where model = ? and tier = ? returning at;

-- name: models_waiting
select distinct model from lane;

-- name: model_is_known
select exists (select 1 from lane where model = ?1) or exists (select 1 from slot where model = ?1)
  or exists (select 1 from active_seen where model = ?1) or exists (select 1 from service_time where model = ?1)
  or exists (select 1 from account where model = ?1);

-- name: models_known
select model from lane union select model from slot where model is not null union select model from active_seen
union select model from service_time order by model;

-- name: picks_newest
select seq, over, late, turn from picks where shard = ? order by seq desc limit 1;

-- name: picks_insert
insert into picks (shard, seq, over, late, turn) values (?, ?, ?, ?, ?);

-- name: picks_older
delete from picks where shard = ? and seq < ?;
