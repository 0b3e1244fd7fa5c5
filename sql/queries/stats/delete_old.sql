-- Delete minute buckets past their retention, a page at a time.
-- params: retention_s.
-- returns: one row per deleted bucket; at most 10,000.
-- locks: the deleted rows, which nobody updates.
DELETE FROM howdah.queue_stats AS s
WHERE (s.queue_id, s.bucket_at, s.source) IN (
    SELECT o.queue_id, o.bucket_at, o.source
    FROM howdah.queue_stats AS o
    WHERE o.bucket_at < howdah.now() - make_interval(secs => %(retention_s)b::double precision)
    LIMIT 10000
)
RETURNING s.queue_id
