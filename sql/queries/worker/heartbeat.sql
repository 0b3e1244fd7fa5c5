-- Record a worker's sign of life.
-- params: worker_id; name; is_stopping.
-- returns: one row, or none if its row is gone.
-- locks: the worker's row.
-- The name is compared because ids are given out again after a restore, or by a standby that was behind.
UPDATE howdah.workers AS w
SET heartbeat_at = howdah.now(),
    stopping_at = CASE WHEN %(is_stopping)b::boolean THEN coalesce(w.stopping_at, howdah.now()) END
WHERE w.id = %(worker_id)b::integer AND w.name = %(name)b::text
RETURNING w.id
