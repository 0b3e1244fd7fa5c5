-- Forget workers that have been gone for longer than the retention.
-- params: retention_s.
-- returns: id of each.
-- locks: the deleted rows.
DELETE FROM howdah.workers AS w
WHERE w.heartbeat_at < howdah.now() - make_interval(secs => %(retention_s)b::double precision)
RETURNING w.id
