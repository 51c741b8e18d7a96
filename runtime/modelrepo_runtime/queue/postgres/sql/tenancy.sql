-- name: tenant_lock
-- Whoever enters jobs of a tenant into a flow waits here for whoever else does.
select pg_advisory_xact_lock(1836216323, hashtext(concat_ws('/', cast(?1 as text), cast(?2 as text), cast(?3 as text))));
