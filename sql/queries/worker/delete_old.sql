-- Forget workers that have been gone for longer than the retention, a page at a time.
-- params: retention_s.
-- returns: id of each; at most 10,000.
-- locks: the deleted rows.
DELETE FROM howdah.workers AS w
WHERE w.id IN (
    SELECT o.id
    FROM howdah.workers AS o
    WHERE o.heartbeat_at < howdah.now() - make_interval(secs => %(retention_s)b::double precision)
    LIMIT 10000
)
RETURNING w.id
