-- name: work_waiting
-- Whether a claim is worth a write: rows for one of the models that are not paused, or something due.
select exists (select 1 from lane join ready on ready.lane = lane.id where lane.model in (select value from json_each(?1))
    and not exists (select 1 from pause where pause.model in ('', lane.model) and pause.tier in ('', lane.tier)))
  or exists (select 1 from delayed where due <= ?2 or due > ?3);
