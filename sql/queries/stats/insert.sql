-- Append what one process counted in one minute.
-- params: bucket_at; source; queue_ids, enqueued, succeeded, failed, retried, durations_s: one element per queue.
INSERT INTO howdah.queue_stats (bucket_at, queue_id, source, enqueued, succeeded, failed, retried, duration_s)
SELECT
    %(bucket_at)b::timestamptz, s.queue_id, %(source)b::uuid, s.enqueued, s.succeeded, s.failed, s.retried, s.duration_s
FROM unnest(
    %(queue_ids)b::integer[], %(enqueued)b::integer[], %(succeeded)b::integer[], %(failed)b::integer[], %(retried)b::integer[],
    %(durations_s)b::double precision[]
) AS s (queue_id, enqueued, succeeded, failed, retried, duration_s)
ON CONFLICT DO NOTHING
