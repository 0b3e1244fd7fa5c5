-- Delete minute buckets past their retention, a page at a time.
-- params: retention_s.
-- returns: one row per deleted bucket; at most 10,000.
-- locks: the deleted rows, which nobody updates.
-- index: queue_stats_pkey
-- By queue, because no index begins with the time: a month of minutes of many queues is millions of rows.
DELETE FROM howdah.queue_stats AS s
WHERE (s.queue_id, s.bucket_at, s.source) IN (
    SELECT old.queue_id, old.bucket_at, old.source
    FROM howdah.queues AS q
    CROSS JOIN LATERAL (
        SELECT o.queue_id, o.bucket_at, o.source
        FROM howdah.queue_stats AS o
        WHERE o.queue_id = q.id AND o.bucket_at < howdah.now() - make_interval(secs => %(retention_s)b::double precision)
        ORDER BY o.bucket_at
        LIMIT 10000
    ) AS old
    LIMIT 10000
)
RETURNING s.queue_id
