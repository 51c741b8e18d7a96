-- name: credit_lock
-- Until the end of the transaction; a count that is read afterwards is the newest.
select pg_advisory_xact_lock(hashtextextended(cast(?1 as text) || ' ' || cast(?2 as text) || ' ' || cast(?3 as text), 1));
