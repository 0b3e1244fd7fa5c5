-- What has gone wrong in the last 24 hours, most frequent first?
-- Look at the first rows: one error type of one queue is usually one cause.
-- Needs: howdah_readonly.
SELECT
    f.tenant, f.queue, f.outcome, f.error_type,
    count(*) AS attempts,
    count(*) FILTER (WHERE f.is_final) AS given_up,
    count(DISTINCT f.worker) AS workers,
    max(f.finished_at) AS last_at,
    left((array_agg(f.error_message ORDER BY f.finished_at DESC))[1], 60) AS last_message
FROM howdah.recent_failures AS f
GROUP BY f.tenant, f.queue, f.outcome, f.error_type
ORDER BY attempts DESC
LIMIT 50;
