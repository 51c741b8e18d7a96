-- name: fences_take
-- A block of 4096 for each call; numbers that it leaves over are never given out.
select (nextval('fence_block') << 12) + cast(?1 as bigint) where cast(?1 as bigint) < 4096;
