-- name: token_insert
insert into token (id, name, digest, rights, created, expires) values (?, ?, ?, ?, ?, ?);

-- name: token_get
select id, name, digest, rights, created, expires, revoked from token where id = ?;

-- name: tokens_named
select id, name, digest, rights, created, expires, revoked from token where name = ?;

-- name: token_view
select id, name, digest, rights, created, expires, revoked from token

-- name: tokens
select id, name, digest, rights, created, expires, revoked from token order by created, id;

-- name: token_revoke
update token set revoked = ? where id = ?;

-- name: waiting_of_tenant
-- Looks at the tenant's jobs from about the oldest that waits of anybody: those before it have all ended or run.
-- A number is given before its job's moment, so that a few younger jobs may have lower ones.
select count(*) from (
  select 1 from job where job.tenant = ? and job.id >= (
      select coalesce(min(firsts.job), 9223372036854775807) - 10000 from (
        select (select ready.job from ready where ready.lane = lane.id order by enqueued, job limit 1) as job from lane
        union all select min(delayed.job) from delayed
      ) as firsts)
    and not exists (select 1 from done where done.job = job.id)
    and not exists (select 1 from lease where lease.job = job.id)
  order by job.id desc limit ?
) as waiting;
