-- name: work_waiting
-- Whether a claim is worth a write: rows for one of the models that are not paused, or something due.
select exists (select 1 from lane join ready on ready.lane = lane.id where lane.model in (select value from json_each(?1))
    and not exists (select 1 from pause where pause.model in ('', lane.model) and pause.tier in ('', lane.tier)))
  or exists (select 1 from delayed where due <= ?2 or due > ?3);

-- name: ready_of_job
-- Where a job waits: one seek in each lane of its model. Left alone, SQLite reads whole lanes by their primary key.
select ready.lane, ready.tag, ready.job, ready.enqueued, ready.stage_index, ready.attempt
from lane join ready indexed by ready_oldest on ready.lane = lane.id and ready.enqueued = ?2 and ready.job = ?3
where lane.model = ?1;
