-- What each queue got done in the last hour, minute by minute, as its processes counted it.
CREATE OR REPLACE VIEW howdah.queue_minutes AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    s.bucket_at AS minute_at,
    sum(s.enqueued) AS enqueued,
    sum(s.succeeded) AS succeeded,
    sum(s.retried) AS retried,
    sum(s.failed) AS failed,
    sum(s.duration_s) AS duration_s
FROM howdah.queues AS q
JOIN howdah.tenants AS t ON t.id = q.tenant_id
JOIN howdah.queue_stats AS s ON s.queue_id = q.id AND s.bucket_at > howdah.now() - interval '1 hour'
GROUP BY t.name, q.name, s.bucket_at;

COMMENT ON VIEW howdah.queue_minutes IS 'What each queue got done in the last hour, minute by minute. A minute appears when it is over. Reads an hour of queue_stats.';
COMMENT ON COLUMN howdah.queue_minutes.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.queue_minutes.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.queue_minutes.minute_at IS 'Start of the minute.';
COMMENT ON COLUMN howdah.queue_minutes.enqueued IS 'Tasks accepted over HTTP.';
COMMENT ON COLUMN howdah.queue_minutes.succeeded IS 'Runs that succeeded.';
COMMENT ON COLUMN howdah.queue_minutes.retried IS 'Runs that failed and wait for another attempt.';
COMMENT ON COLUMN howdah.queue_minutes.failed IS 'Tasks given up as dead letters.';
COMMENT ON COLUMN howdah.queue_minutes.duration_s IS 'Seconds that its finished runs took, added up.';
