-- A job's number is its day, shifted left by 40 bits, and a sequence: what is kept by job goes by day, in partitions.
create sequence job_number;
create sequence history_number;
-- Each number stands for 4096 fences.
create sequence fence_block;
-- A beat is a new row; the one before it is deleted.
create table beat (
  session text not null,
  number bigint not null,
  at double precision not null,
  primary key (session, number)
);
create index beat_at on beat (at);

create table job (
  id bigint primary key,
  name text not null,
  model text not null,
  tier text not null,
  tenant text not null,
  wanted text,
  created double precision not null,
  enqueued double precision not null,
  deadline double precision,
  stages text not null,
  metadata text not null,
  tag double precision not null default 0,
  size text,
  webhook text,
  over bigint not null default 0,
  estimate_s double precision not null default 0
) partition by range (id);
create table payload (
  job bigint primary key,
  inputs text not null,
  files text not null
) partition by range (job);
create table input_file (
  store_key text not null,
  job bigint not null,
  primary key (store_key, job)
);
create index input_file_job on input_file (job);
create table idempotency (
  tenant text not null,
  idempotency_key text not null,
  body text not null,
  job bigint not null,
  primary key (tenant, idempotency_key)
);
create index idempotency_job on idempotency (job);
create table deadline (
  at double precision not null,
  job bigint not null,
  primary key (at, job)
);

-- The registry of lanes: a lane is there while it may have rows; empty ones are swept.
create table lane (
  id bigint primary key generated always as identity,
  model text not null,
  stage text not null,
  tier text not null,
  version text not null,
  avoid text not null,
  cluster text not null,
  over bigint not null,
  unique (model, stage, tier, version, avoid, cluster, over)
);
create table ready (
  lane bigint not null,
  tag double precision not null,
  job bigint not null,
  enqueued double precision not null,
  stage_index bigint not null,
  attempt bigint not null,
  primary key (lane, tag, job)
);
create index ready_oldest on ready (lane, enqueued, job);
-- What comes back older than what was claimed already: retries, later stages. Always looked at from its beginning.
create table again (like ready including all);
create table delayed (
  job bigint primary key,
  due double precision not null,
  lane bigint not null,
  enqueued double precision not null,
  stage_index bigint not null,
  attempt bigint not null,
  tag double precision not null default 0
);
create index delayed_due on delayed (due);
create index delayed_lane on delayed (lane);
create table lease (
  fence bigint primary key,
  token text not null,
  job bigint not null unique,
  session text not null,
  seq bigint not null,
  after_fence bigint,
  slot text not null,
  box text not null,
  stage text not null,
  stage_index bigint not null,
  stages text,
  attempt bigint not null,
  version text not null,
  claimed double precision not null,
  cancelled bigint not null default 0
);
create index lease_session on lease (session, seq);
create index lease_after on lease (after_fence) where after_fence is not null;
create table left_out (
  fence bigint primary key,
  beats bigint not null
);
create table pinned (
  job bigint primary key,
  version text,
  stages text,
  next_index bigint not null,
  previous text,
  restarts bigint not null
);
create table progress (
  job bigint primary key,
  fraction double precision,
  message text,
  saved bigint not null default 0
);
create table cancel (
  job bigint primary key,
  at double precision not null
);
-- How jobs ended. Where the attempt that succeeded is a part of the row it has none in `history`; `noted` is its place there.
create table done (
  job bigint primary key,
  status text not null,
  finished double precision not null,
  version text,
  stage text,
  attempt bigint not null,
  outcome text not null,
  error text,
  fence bigint,
  token text,
  session text,
  slot text,
  claimed double precision,
  noted bigint not null default nextval('history_number')
) partition by range (job);
create table failed (
  job bigint primary key
);

-- What happened, for people and for whoever checks the queue's promises afterwards.
create table history (
  id bigint not null default nextval('history_number'),
  job bigint not null,
  event text not null,
  at double precision not null,
  cause text,
  counted bigint not null,
  stage text,
  attempt bigint not null,
  fence bigint,
  token text,
  session text,
  slot text,
  box text,
  version text,
  claimed double precision,
  digest text,
  status text,
  primary key (job, id)
) partition by range (job);
create table tier (
  name text primary key,
  slo_s double precision not null,
  allowed_miss double precision not null,
  is_default bigint not null,
  refuse_late bigint not null default 0,
  keep_files_s double precision,
  keep_jobs_s double precision
);
create table session (
  id text primary key,
  worker text not null,
  host text not null,
  pid bigint not null,
  cluster text not null,
  slots text not null,
  began double precision not null
);
create table slot (
  session text not null,
  slot text not null,
  state text not null,
  model text,
  version text,
  incoming text,
  report text not null,
  cpu bigint not null default 1,
  gpu bigint not null default 1,
  loads text,
  also text not null default '',
  accelerator_bytes bigint,
  host_bytes bigint,
  primary key (session, slot)
);
create table turn (
  model text not null,
  kind text not null,
  slot text not null,
  until double precision not null,
  primary key (model, kind, slot)
);
-- Slots where a version did not come up, by the generation that asked for it; of a model, the newest generation.
create table refusal (
  model text not null,
  generation bigint not null,
  digest text not null,
  worker text not null,
  slot text not null,
  reason text not null,
  at double precision not null,
  primary key (model, generation, digest, worker, slot)
);
-- Swaps that slots which have not begun them leave alone.
create table halt (
  model text not null,
  generation bigint not null,
  digest text not null,
  since double precision not null,
  primary key (model, generation, digest)
);

-- How attempts ended, a row a call and slot, for the version breaker and for what is learnt; five minutes of it.
create table verdict (
  id bigint primary key generated always as identity,
  model text not null,
  version text not null,
  stage text not null,
  at double precision not null,
  slot text not null,
  size text,
  attempts bigint not null,
  failed bigint not null,
  taken_s double precision,
  job bigint,
  fence bigint not null,
  memory text
);
create index verdict_of_version on verdict (model, version, stage, at);

-- Versions that fail, and for five minutes those that have ceased to.
create table breaker (
  model text not null,
  version text not null,
  stage text not null,
  since double precision,
  closed double precision,
  attempts bigint not null,
  failed bigint not null,
  workers bigint not null,
  primary key (model, version)
);
create table probe (
  model text not null,
  version text not null,
  cluster text not null,
  stage text not null,
  fence bigint not null,
  primary key (model, version, cluster, stage)
);

-- Learnt memory: what the newest attempts of a size class took; '' stands for none.
create table memory_taken (
  model text not null,
  stage text not null,
  size text not null,
  seen text not null,
  primary key (model, stage, size)
);
-- Learnt service times; '' stands for all sizes or accelerators. `learnt` is how far verdicts have been read.
create table service_time (
  model text not null,
  stage text not null,
  size text not null,
  accelerator text not null,
  count bigint not null,
  mean_s double precision not null,
  deviation_s double precision not null,
  primary key (model, stage, size, accelerator)
);
create table learnt (
  one bigint primary key,
  upto bigint not null
);
insert into learnt values (1, 0);

-- What gateways have read of active files; the newest row of a model counts.
create table active_seen (
  model text not null,
  seq bigint not null,
  body text not null,
  primary key (model, seq)
);

-- Events on their way to webhooks, and what was given up; `hook` keeps what a job's receiver was last told.
create table outbox (
  id bigint primary key generated always as identity,
  job bigint not null,
  message text not null,
  kind text not null,
  at double precision not null,
  facts text not null,
  host text not null,
  due double precision not null,
  tries bigint not null,
  holder text,
  taken_until double precision,
  error text
);
create index outbox_due on outbox (due);
create index outbox_job on outbox (job, id);
create table hook (
  job bigint primary key,
  started bigint not null,
  progressed double precision
);
create table outbox_given_up (
  id bigint primary key generated always as identity,
  message text not null,
  job text not null,
  kind text not null,
  url text not null,
  at double precision not null,
  tries bigint not null,
  error text,
  given_up double precision not null
);

-- What operators want of workers, and which session has carried it out.
create table worker_order (
  id bigint primary key generated always as identity,
  worker text not null,
  slot text,
  verb text not null,
  argument text,
  reason text,
  given_by text,
  standing bigint not null,
  at double precision not null,
  confirmed double precision,
  answer text,
  refused bigint not null
);
create index worker_order_worker on worker_order (worker);
create table order_heard (
  worker_order bigint not null,
  session text not null,
  primary key (worker_order, session)
);

-- What happened to the fleet.
create table fleet_event (
  id bigint primary key generated always as identity,
  at double precision not null,
  kind text not null,
  text text not null,
  model text,
  version text,
  worker text,
  slot text,
  job text
);
create index fleet_event_at on fleet_event (at);

-- Who may ask a gateway for what; the digest is of the secret half.
create table token (
  id text primary key,
  name text not null,
  digest text not null,
  rights text not null,
  created double precision not null,
  expires double precision,
  revoked double precision
);
create index token_name on token (name);

-- What a tenant lists, and how many of its jobs wait.
create index job_tenant on job (tenant, id);

-- Rights to bring one more job into a cluster, and how many of each are out: the newest row of a key counts.
create table credit (
  job bigint primary key,
  cluster text not null,
  model text not null,
  version text not null,
  at double precision not null
);
create index credit_key on credit (cluster, model, version);
create table credit_count (
  cluster text not null,
  model text not null,
  version text not null,
  seq bigint not null,
  held bigint not null,
  audited double precision not null,
  primary key (cluster, model, version, seq)
);

-- What the stages of a job have handed over; `cluster` where it lies in that cluster's storage.
create table handover (
  job bigint primary key,
  cluster text,
  files text not null
);

-- Leases whose jobs have not begun yet.
create table staged (
  fence bigint primary key,
  model text not null
);
create index staged_model on staged (model);

-- Tenants whose share was set; others weigh 1 and may be ten jobs ahead. Without burst_jobs: any number.
create table tenant (
  name text primary key,
  weight double precision not null,
  burst_jobs double precision
);

-- Virtual time of each flow (the jobs of a model and tier) and of its twin over it; the largest v counts.
create table flow_clock (
  model text not null,
  tier text not null,
  over bigint not null,
  v double precision not null,
  primary key (model, tier, over, v)
);

-- How far each tenant of a flow is; the newest row counts.
create table account (
  model text not null,
  tier text not null,
  tenant text not null,
  seq bigint not null,
  f double precision not null,
  tag double precision not null,
  over_tag double precision,
  primary key (model, tier, tenant, seq)
);

-- What jobs needed beyond their estimates, until the tenant's next submission.
create table correction (
  id bigint primary key generated always as identity,
  model text not null,
  tier text not null,
  tenant text not null,
  seconds double precision not null
);
create index correction_account on correction (model, tier, tenant);

-- Picks lost since their last turn by those who stand back; the newest row counts.
create table picks (
  shard text not null,
  seq bigint not null,
  over bigint not null,
  late bigint not null,
  turn bigint not null,
  primary key (shard, seq)
);
create table setting (
  name text primary key,
  value text not null
);

-- What is not given out; '' stands for all models or tiers.
create table pause (
  model text not null,
  tier text not null,
  at double precision not null,
  primary key (model, tier)
);

-- What running stages have saved, the two newest states of a job; and the keys of those that nobody needs any more.
create table state (
  job bigint not null,
  fence bigint not null,
  number bigint not null,
  stage text not null,
  digest text not null,
  store_key text not null,
  size_bytes bigint not null,
  sha256 text not null,
  primary key (job, fence, number)
);
create table state_dropped (
  store_key text primary key
);

create index session_worker on session (worker, host);

-- What lives shortly is vacuumed by its number of dead rows, not by its share of them.
alter table ready set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
alter table again set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
alter table lease set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
alter table beat set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
alter table slot set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
