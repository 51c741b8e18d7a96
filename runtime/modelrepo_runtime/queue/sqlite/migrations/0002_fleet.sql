-- Lanes know cluster and twin, waiting jobs their place in the lane.
alter table job add column tag real not null default 0;
alter table job add column size text;
alter table job add column webhook text;
update job set tag = enqueued;

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
insert into ready_new select lane, enqueued, job, enqueued, stage_index, attempt from ready;
drop table ready;
alter table ready_new rename to ready;
create index ready_oldest on ready (lane, enqueued, job);

alter table delayed add column tag real not null default 0;
update delayed set tag = enqueued;
