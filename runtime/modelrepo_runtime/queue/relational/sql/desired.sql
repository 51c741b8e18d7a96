-- name: active_seen
select model, seq, body from active_seen where model = ? order by seq desc limit 1;

-- name: active_see
-- Compared and appended: whoever knew another newest row appends nothing.
insert into active_seen (model, seq, body)
select cast(?1 as text), cast(?2 as bigint), cast(?3 as text)
where cast(?2 as bigint) = 1 + coalesce((select max(seq) from active_seen where model = cast(?1 as text)), 0)
on conflict (model, seq) do nothing returning seq;

-- name: active_forget
delete from active_seen where model = ? and seq <= ?;
