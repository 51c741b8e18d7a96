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
select count(*) from (
  select 1 from job where job.tenant = ?
    and not exists (select 1 from done where done.job = job.id)
    and not exists (select 1 from lease where lease.job = job.id)
  order by job.id desc limit ?
) as waiting;
