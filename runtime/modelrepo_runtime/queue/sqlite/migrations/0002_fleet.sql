-- Lanes know cluster and twin, waiting jobs their place in the lane.
alter table job add column tag real not null default 0;
alter table job add column size text;
alter table job add column webhook text;
alter table job add column over integer not null default 0;
alter table job add column estimate_s real not null default 0;

-- Whoever ends a lease locks its row, and so sees there whether its user wants the job no more.
alter table lease add column cancelled integer not null default 0;
update lease set cancelled = 1 where job in (select job from cancel);

-- 1: states were saved, and what is shown does not fall.
alter table progress add column saved integer not null default 0;

create table lane_new (
  id integer primary key autoincrement,
  model text not null,
  stage text not null,
  tier text not null,
  version text not null,
  avoid text not null,
  cluster text not null,
  over integer not null,
  unique (model, stage, tier, version, avoid, cluster, over)
);
insert into lane_new select id, model, stage, tier, version, avoid, '', 0 from lane;
drop table lane;
alter table lane_new rename to lane;

create table ready_new (
  lane integer not null,
  tag real not null,
  job integer not null,
  enqueued real not null,
  stage_index integer not null,
  attempt integer not null,
  primary key (lane, tag, job)
) without rowid;
insert into ready_new select lane, 0, job, enqueued, stage_index, attempt from ready;
drop table ready;
alter table ready_new rename to ready;
create index ready_oldest on ready (lane, enqueued, job);

alter table delayed add column tag real not null default 0;

-- How a job ended says which attempt succeeded, too: that one has no row in `history`. `noted` is the row there before it.
alter table done add column fence integer;
alter table done add column token text;
alter table done add column session text;
alter table done add column slot text;
alter table done add column claimed real;
alter table done add column noted integer;

-- How attempts ended, a row a call and slot, for the version breaker and for what is learnt; five minutes of it.
create table verdict (
  id integer primary key autoincrement,
  model text not null,
  version text not null,
  stage text not null,
  at real not null,
  slot text not null,
  size text,
  attempts integer not null,
  failed integer not null,
  taken_s real,
  job integer,
  fence integer not null,
  memory text
);
create index verdict_of_version on verdict (model, version, stage, at);
-- Versions that fail, and for five minutes those that have ceased to.
create table breaker (
  model text not null,
  version text not null,
  stage text not null,
  since real,
  closed real,
  attempts integer not null,
  failed integer not null,
  workers integer not null,
  primary key (model, version)
) without rowid;
create table probe (
  model text not null,
  version text not null,
  cluster text not null,
  stage text not null,
  fence integer not null,
  primary key (model, version, cluster, stage)
) without rowid;

-- Learnt memory: what the newest attempts of a size class took; '' stands for none.
create table memory_taken (
  model text not null,
  stage text not null,
  size text not null,
  seen text not null,
  primary key (model, stage, size)
) without rowid;
-- Learnt service times; '' stands for all sizes or accelerators. `learnt` is how far verdicts have been read.
create table service_time (
  model text not null,
  stage text not null,
  size text not null,
  accelerator text not null,
  count integer not null,
  mean_s real not null,
  deviation_s real not null,
  primary key (model, stage, size, accelerator)
) without rowid;
create table learnt (
  one integer primary key,
  upto integer not null
) without rowid;
insert into learnt values (1, 0);
alter table tier add column refuse_late integer not null default 0;
alter table tier add column keep_files_s real;
alter table tier add column keep_jobs_s real;

-- What gateways have read of active files; the newest row of a model counts.
create table active_seen (
  model text not null,
  seq integer not null,
  body text not null,
  primary key (model, seq)
) without rowid;

-- Events on their way to webhooks, and what was given up; `hook` keeps what a job's receiver was last told.
create table outbox (
  id integer primary key autoincrement,
  job integer not null,
  message text not null,
  kind text not null,
  at real not null,
  facts text not null,
  host text not null,
  due real not null,
  tries integer not null,
  holder text,
  taken_until real,
  error text
);
create index outbox_due on outbox (due);
create index outbox_job on outbox (job, id);
create table hook (
  job integer primary key,
  started integer not null,
  progressed real
);
create table outbox_given_up (
  id integer primary key autoincrement,
  message text not null,
  job text not null,
  kind text not null,
  url text not null,
  at real not null,
  tries integer not null,
  error text,
  given_up real not null
);

-- What operators want of workers, and which session has carried it out.
create table worker_order (
  id integer primary key autoincrement,
  worker text not null,
  slot text,
  verb text not null,
  argument text,
  reason text,
  given_by text,
  standing integer not null,
  at real not null,
  confirmed real,
  answer text,
  refused integer not null
);
create index worker_order_worker on worker_order (worker);
create table order_heard (
  worker_order integer not null,
  session text not null,
  primary key (worker_order, session)
) without rowid;

-- What happened to the fleet.
create table fleet_event (
  id integer primary key autoincrement,
  at real not null,
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
  created real not null,
  expires real,
  revoked real
) without rowid;
create index token_name on token (name);
-- What a tenant lists, and how many of its jobs wait.
create index job_tenant on job (tenant, id);

-- Whether a slot runs accelerator stages, and the version that it loads and will serve in moments.
drop table slot;
create table slot (
  session text not null,
  slot text not null,
  state text not null,
  model text,
  version text,
  incoming text,
  report text not null,
  cpu integer not null default 1,
  gpu integer not null default 1,
  loads text,
  also text not null default '',
  accelerator_bytes integer,
  host_bytes integer,
  primary key (session, slot)
) without rowid;

-- Rights to bring one more job into a cluster, and how many of each are out: the newest row of a key counts.
create table credit (
  job integer primary key,
  cluster text not null,
  model text not null,
  version text not null,
  at real not null
);
create index credit_key on credit (cluster, model, version);
create table credit_count (
  cluster text not null,
  model text not null,
  version text not null,
  seq integer not null,
  held integer not null,
  audited real not null,
  primary key (cluster, model, version, seq)
) without rowid;
-- What the stages of a job have handed over; `cluster` where it lies in that cluster's storage.
create table handover (
  job integer primary key,
  cluster text,
  files text not null
);
-- Leases whose jobs have not begun yet.
create table staged (
  fence integer primary key,
  model text not null
);
create index staged_model on staged (model);

-- Tenants whose share was set; others weigh 1 and may be ten jobs ahead. Without burst_jobs: any number.
create table tenant (
  name text primary key,
  weight real not null,
  burst_jobs real
) without rowid;
-- Virtual time of each flow (the jobs of a model and tier) and of its twin over it; the largest v counts.
create table flow_clock (
  model text not null,
  tier text not null,
  over integer not null,
  v real not null,
  primary key (model, tier, over, v)
) without rowid;
-- How far each tenant of a flow is; the newest row counts.
create table account (
  model text not null,
  tier text not null,
  tenant text not null,
  seq integer not null,
  f real not null,
  tag real not null,
  over_tag real,
  primary key (model, tier, tenant, seq)
) without rowid;
-- What jobs needed beyond their estimates, until the tenant's next submission.
create table correction (
  id integer primary key autoincrement,
  model text not null,
  tier text not null,
  tenant text not null,
  seconds real not null
);
create index correction_account on correction (model, tier, tenant);
-- Picks lost since their last turn by those who stand back; the newest row counts.
create table picks (
  shard text not null,
  seq integer not null,
  over integer not null,
  late integer not null,
  turn integer not null,
  primary key (shard, seq)
) without rowid;
create table setting (
  name text primary key,
  value text not null
) without rowid;
-- What is not given out; '' stands for all models or tiers.
create table pause (
  model text not null,
  tier text not null,
  at real not null,
  primary key (model, tier)
) without rowid;
-- Turns last for seconds: those that are held while the queue is migrated are taken anew.
drop table turn;
create table turn (
  model text not null,
  kind text not null,
  slot text not null,
  until real not null,
  primary key (model, kind, slot)
) without rowid;
-- Slots where a version did not come up, by the generation that asked for it; of a model, the newest generation.
create table refusal (
  model text not null,
  generation integer not null,
  digest text not null,
  worker text not null,
  slot text not null,
  reason text not null,
  at real not null,
  primary key (model, generation, digest, worker, slot)
) without rowid;
-- Swaps that slots which have not begun them leave alone.
create table halt (
  model text not null,
  generation integer not null,
  digest text not null,
  since real not null,
  primary key (model, generation, digest)
) without rowid;

-- What running stages have saved, the two newest states of a job; and the keys of those that nobody needs any more.
create table state (
  job integer not null,
  fence integer not null,
  number integer not null,
  stage text not null,
  digest text not null,
  store_key text not null,
  size_bytes integer not null,
  sha256 text not null,
  primary key (job, fence, number)
) without rowid;
create table state_dropped (
  store_key text primary key
) without rowid;
