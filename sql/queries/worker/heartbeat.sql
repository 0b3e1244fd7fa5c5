-- Record a worker's sign of life.
-- params: worker_id; is_stopping.
-- returns: one row, or none if its row is gone.
-- locks: the worker's row.
UPDATE howdah.workers AS w
SET heartbeat_at = howdah.now(),
    stopping_at = CASE WHEN %(is_stopping)b::boolean THEN coalesce(w.stopping_at, howdah.now()) END
WHERE w.id = %(worker_id)b::integer
RETURNING w.id
