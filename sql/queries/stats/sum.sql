-- What happened in a queue since an instant, from the minute buckets.
-- params: queue_id; window_s: seconds to look back.
-- returns: one row of sums.
-- index: queue_stats_pkey
SELECT
    coalesce(sum(s.enqueued), 0)::bigint AS enqueued,
    coalesce(sum(s.succeeded), 0)::bigint AS succeeded,
    coalesce(sum(s.failed), 0)::bigint AS failed,
    coalesce(sum(s.retried), 0)::bigint AS retried,
    coalesce(sum(s.duration_s), 0) AS duration_s
FROM howdah.queue_stats AS s
WHERE s.queue_id = %(queue_id)b::integer
    AND s.bucket_at >= date_trunc('minute', howdah.now()) - make_interval(secs => %(window_s)b::double precision)
