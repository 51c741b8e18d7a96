-- name: job_faces
select job.name, done.status, lease.fence, progress.fraction, progress.message, cancel.at
from job
  left join done on done.job = job.id
  left join lease on lease.job = job.id
  left join progress on progress.job = job.id
  left join cancel on cancel.job = job.id
