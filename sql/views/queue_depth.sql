-- How many runs each lane holds, by state. An exact count has to read all of runs: measured, 0.5 s at
-- 1,000,000 waiting runs. GET /v1/queues/{q}/stats counts up to a limit and stays fast at any depth.
CREATE OR REPLACE VIEW howdah.queue_depth AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[lane.priority + 1] AS priority,
    lane.queued,
    lane.scheduled,
    lane.retrying,
    lane.blocked,
    lane.running,
    lane.oldest_ready_at,
    round(extract(epoch FROM howdah.now() - lane.oldest_ready_at), 3) AS oldest_age_s,
    lane.awaiting_callback
FROM (
    SELECT
        r.queue_id,
        r.priority,
        count(*) FILTER (
            WHERE r.lease_token IS NULL AND r.blocked_by = 0 AND r.attempt = 0 AND r.run_at <= howdah.now()
        ) AS queued,
        count(*) FILTER (
            WHERE r.lease_token IS NULL AND r.blocked_by = 0 AND r.attempt = 0 AND r.run_at > howdah.now()
        ) AS scheduled,
        count(*) FILTER (WHERE r.lease_token IS NULL AND r.blocked_by = 0 AND r.attempt > 0) AS retrying,
        count(*) FILTER (WHERE r.lease_token IS NULL AND r.blocked_by <> 0) AS blocked,
        count(*) FILTER (WHERE r.lease_token IS NOT NULL AND r.awaiting_at IS NULL) AS running,
        count(*) FILTER (WHERE r.awaiting_at IS NOT NULL) AS awaiting_callback,
        min(greatest(r.due_at, r.queued_at)) FILTER (
            WHERE r.lease_token IS NULL AND r.run_at <= howdah.now()
        ) AS oldest_ready_at
    FROM howdah.runs AS r
    GROUP BY r.queue_id, r.priority
) AS lane
JOIN howdah.queues AS q ON q.id = lane.queue_id
JOIN howdah.tenants AS t ON t.id = q.tenant_id;

COMMENT ON VIEW howdah.queue_depth IS 'Live runs per lane (queue and priority) by state; lanes without any are absent. Reads all of runs: about half a second per million.';
COMMENT ON COLUMN howdah.queue_depth.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.queue_depth.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.queue_depth.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.queue_depth.queued IS 'Runs that are due for their first attempt.';
COMMENT ON COLUMN howdah.queue_depth.scheduled IS 'Runs whose first attempt lies ahead.';
COMMENT ON COLUMN howdah.queue_depth.retrying IS 'Runs that wait for another attempt, due or not.';
COMMENT ON COLUMN howdah.queue_depth.blocked IS 'Runs that wait for something besides time; see tasks_blocked.';
COMMENT ON COLUMN howdah.queue_depth.running IS 'Runs that a worker holds.';
COMMENT ON COLUMN howdah.queue_depth.oldest_ready_at IS 'Since when the run that has been claimable for the longest has been so; NULL if none is.';
COMMENT ON COLUMN howdah.queue_depth.oldest_age_s IS 'Seconds since then.';
COMMENT ON COLUMN howdah.queue_depth.awaiting_callback IS 'Runs whose receiver answered 202 and owes the outcome; see tasks_awaiting_callback.';
