-- Record that a worker stopped cleanly.
-- params: worker_id.
-- returns: the id, or no row if the worker was forgotten.
-- locks: the worker's row.
UPDATE howdah.workers AS w
SET heartbeat_at = howdah.now(), stopping_at = coalesce(w.stopping_at, howdah.now()), stopped_at = howdah.now()
WHERE w.id = %(worker_id)b::integer
RETURNING w.id
