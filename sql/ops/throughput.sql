-- What got done in the last hour, by queue?
-- Look for succeeded far below enqueued: the queue grows. (enqueued counts tasks posted over HTTP; those
-- that SQL callers enqueue are not in it.)
-- Needs: howdah_readonly.
SELECT
    m.tenant,
    m.queue,
    sum(m.enqueued) AS enqueued,
    sum(m.succeeded) AS succeeded,
    sum(m.retried) AS retried,
    sum(m.failed) AS failed,
    round((sum(m.duration_s) / nullif(sum(m.succeeded + m.retried + m.failed), 0))::numeric, 3) AS mean_duration_s,
    round(max(m.succeeded) / 60.0, 1) AS best_minute_per_s
FROM howdah.queue_minutes AS m
GROUP BY m.tenant, m.queue
ORDER BY succeeded DESC;
