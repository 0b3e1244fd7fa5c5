-- What each queue holds, and what it got done. Counts end at 10,000 rows of a kind, so that an answer takes
-- milliseconds at any backlog; where one ended, …_is_at_least says so. Filter by tenant and queue: then only that
-- queue is counted. queue_depth counts exactly, and reads all of runs.
--
-- Waiting runs are three ranges of each lane: due, ahead, and blocked (run_at = infinity). Each is counted by itself,
-- so that a long one hides none of the others. The age is that of the oldest among the heads of the lanes and the due
-- runs that were counted. Rates are of whole minutes, which processes write when a minute is over; five seconds later
-- it counts.
CREATE OR REPLACE VIEW howdah.queue_live AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    due.queued,
    due.is_cut AS queued_is_at_least,
    ahead.scheduled,
    ahead.is_cut AS scheduled_is_at_least,
    due.retrying + ahead.retrying AS retrying,
    due.is_cut OR ahead.is_cut AS retrying_is_at_least,
    blocked.count AS blocked,
    blocked.count = 10000 AS blocked_is_at_least,
    leased.running,
    leased.is_cut AS running_is_at_least,
    leased.awaiting AS awaiting_callback,
    leased.is_cut AS awaiting_callback_is_at_least,
    dead.count AS dead_letters,
    dead.count = 10000 AS dead_letters_is_at_least,
    oldest.ready_at AS oldest_ready_at,
    round(extract(epoch FROM howdah.now() - oldest.ready_at), 3) AS oldest_age_s,
    rate.enqueued_1m,
    rate.succeeded_1m,
    rate.retried_1m,
    rate.failed_1m,
    rate.duration_1m_s,
    rate.enqueued_5m,
    rate.succeeded_5m,
    rate.retried_5m,
    rate.failed_5m,
    rate.duration_5m_s,
    rate.enqueued_60m,
    rate.succeeded_60m,
    rate.retried_60m,
    rate.failed_60m,
    rate.duration_60m_s
FROM howdah.queues AS q
JOIN howdah.tenants AS t ON t.id = q.tenant_id
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE w.attempt = 0) AS queued,
        count(*) FILTER (WHERE w.attempt > 0) AS retrying,
        count(*) = 10000 AS is_cut,
        min(greatest(w.due_at, w.queued_at)) AS ready_at
    FROM (
        SELECT r.attempt, r.due_at, r.queued_at
        FROM (VALUES (4::smallint), (3::smallint), (2::smallint), (1::smallint), (0::smallint)) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT l.attempt, l.due_at, l.queued_at
            FROM howdah.runs AS l
            WHERE l.queue_id = q.id AND l.priority = p.priority AND l.lease_token IS NULL AND l.run_at <= howdah.now()
            ORDER BY l.run_at
            LIMIT 10000
        ) AS r
        LIMIT 10000
    ) AS w
) AS due
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE w.attempt = 0) AS scheduled,
        count(*) FILTER (WHERE w.attempt > 0) AS retrying,
        count(*) = 10000 AS is_cut
    FROM (
        SELECT r.attempt
        FROM (VALUES (4::smallint), (3::smallint), (2::smallint), (1::smallint), (0::smallint)) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT l.attempt
            FROM howdah.runs AS l
            WHERE l.queue_id = q.id
                AND l.priority = p.priority
                AND l.lease_token IS NULL
                AND l.run_at > howdah.now()
                AND l.run_at < 'infinity'
            ORDER BY l.run_at
            LIMIT 10000
        ) AS r
        LIMIT 10000
    ) AS w
) AS ahead
CROSS JOIN LATERAL (
    SELECT count(*) AS count
    FROM (
        SELECT 1
        FROM (VALUES (4::smallint), (3::smallint), (2::smallint), (1::smallint), (0::smallint)) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT 1
            FROM howdah.runs AS l
            WHERE l.queue_id = q.id AND l.priority = p.priority AND l.lease_token IS NULL AND l.run_at = 'infinity'
            LIMIT 10000
        ) AS r
        LIMIT 10000
    ) AS w
) AS blocked
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE w.awaiting_at IS NULL) AS running,
        count(w.awaiting_at) AS awaiting,
        count(*) = 10000 AS is_cut
    FROM (
        SELECT l.awaiting_at
        FROM howdah.runs AS l
        WHERE l.queue_id = q.id AND l.lease_expires_at BETWEEN '-infinity' AND 'infinity'
        LIMIT 10000
    ) AS w
) AS leased
CROSS JOIN LATERAL (
    SELECT count(*) AS count
    FROM (SELECT 1 FROM howdah.dead_letters AS d WHERE d.queue_id = q.id LIMIT 10000) AS w
) AS dead
CROSS JOIN LATERAL (
    SELECT least(due.ready_at, min(greatest(head.due_at, head.queued_at))) AS ready_at
    FROM (VALUES (4::smallint), (3::smallint), (2::smallint), (1::smallint), (0::smallint)) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT l.due_at, l.queued_at
        FROM howdah.runs AS l
        WHERE l.queue_id = q.id AND l.priority = p.priority AND l.lease_token IS NULL AND l.run_at <= howdah.now()
        ORDER BY l.run_at
        LIMIT 1
    ) AS head
) AS oldest
CROSS JOIN LATERAL (SELECT date_trunc('minute', howdah.now() - interval '5 seconds') AS at) AS latest
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(s.enqueued) FILTER (WHERE s.bucket_at >= latest.at - interval '1 minutes'), 0)::bigint AS enqueued_1m,
        coalesce(sum(s.succeeded) FILTER (WHERE s.bucket_at >= latest.at - interval '1 minutes'), 0)::bigint AS succeeded_1m,
        coalesce(sum(s.retried) FILTER (WHERE s.bucket_at >= latest.at - interval '1 minutes'), 0)::bigint AS retried_1m,
        coalesce(sum(s.failed) FILTER (WHERE s.bucket_at >= latest.at - interval '1 minutes'), 0)::bigint AS failed_1m,
        coalesce(sum(s.duration_s) FILTER (WHERE s.bucket_at >= latest.at - interval '1 minutes'), 0) AS duration_1m_s,
        coalesce(sum(s.enqueued) FILTER (WHERE s.bucket_at >= latest.at - interval '5 minutes'), 0)::bigint AS enqueued_5m,
        coalesce(sum(s.succeeded) FILTER (WHERE s.bucket_at >= latest.at - interval '5 minutes'), 0)::bigint AS succeeded_5m,
        coalesce(sum(s.retried) FILTER (WHERE s.bucket_at >= latest.at - interval '5 minutes'), 0)::bigint AS retried_5m,
        coalesce(sum(s.failed) FILTER (WHERE s.bucket_at >= latest.at - interval '5 minutes'), 0)::bigint AS failed_5m,
        coalesce(sum(s.duration_s) FILTER (WHERE s.bucket_at >= latest.at - interval '5 minutes'), 0) AS duration_5m_s,
        coalesce(sum(s.enqueued) FILTER (WHERE s.bucket_at >= latest.at - interval '60 minutes'), 0)::bigint AS enqueued_60m,
        coalesce(sum(s.succeeded) FILTER (WHERE s.bucket_at >= latest.at - interval '60 minutes'), 0)::bigint AS succeeded_60m,
        coalesce(sum(s.retried) FILTER (WHERE s.bucket_at >= latest.at - interval '60 minutes'), 0)::bigint AS retried_60m,
        coalesce(sum(s.failed) FILTER (WHERE s.bucket_at >= latest.at - interval '60 minutes'), 0)::bigint AS failed_60m,
        coalesce(sum(s.duration_s) FILTER (WHERE s.bucket_at >= latest.at - interval '60 minutes'), 0) AS duration_60m_s
    FROM howdah.queue_stats AS s
    WHERE s.queue_id = q.id AND s.bucket_at >= latest.at - interval '60 minutes' AND s.bucket_at < latest.at
) AS rate
WHERE q.deleted_at IS NULL;

COMMENT ON VIEW howdah.queue_live IS 'What each queue holds, counted to 10,000 of a kind, and what it got done in the last 1, 5 and 60 whole minutes. Filtered by tenant and queue: milliseconds at any backlog.';
COMMENT ON COLUMN howdah.queue_live.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.queue_live.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.queue_live.queued IS 'Runs that are due for their first attempt.';
COMMENT ON COLUMN howdah.queue_live.scheduled IS 'Runs whose first attempt lies ahead.';
COMMENT ON COLUMN howdah.queue_live.retrying IS 'Runs that wait for another attempt, due or not.';
COMMENT ON COLUMN howdah.queue_live.blocked IS 'Runs that wait for something besides time; see tasks_blocked.';
COMMENT ON COLUMN howdah.queue_live.running IS 'Runs that a worker holds.';
COMMENT ON COLUMN howdah.queue_live.dead_letters IS 'Tasks that were given up.';
COMMENT ON COLUMN howdah.queue_live.queued_is_at_least IS 'Counting ended before all were seen: there may be more.';
COMMENT ON COLUMN howdah.queue_live.scheduled_is_at_least IS 'Counting ended before all were seen: there may be more.';
COMMENT ON COLUMN howdah.queue_live.retrying_is_at_least IS 'Counting ended before all were seen: there may be more.';
COMMENT ON COLUMN howdah.queue_live.blocked_is_at_least IS 'Counting ended before all were seen: there may be more.';
COMMENT ON COLUMN howdah.queue_live.running_is_at_least IS 'Counting ended before all were seen: there may be more.';
COMMENT ON COLUMN howdah.queue_live.awaiting_callback IS 'Runs whose receiver answered 202 and owes the outcome.';
COMMENT ON COLUMN howdah.queue_live.awaiting_callback_is_at_least IS 'Counting ended before all were seen: there may be more.';
COMMENT ON COLUMN howdah.queue_live.dead_letters_is_at_least IS 'Counting ended before all were seen: there may be more.';
COMMENT ON COLUMN howdah.queue_live.oldest_ready_at IS 'Since when the oldest due run waits; NULL if none is due.';
COMMENT ON COLUMN howdah.queue_live.oldest_age_s IS 'Seconds since then.';
COMMENT ON COLUMN howdah.queue_live.enqueued_1m IS 'Tasks accepted over HTTP in the last whole minute.';
COMMENT ON COLUMN howdah.queue_live.succeeded_1m IS 'Runs that succeeded in the last whole minute.';
COMMENT ON COLUMN howdah.queue_live.retried_1m IS 'Runs that failed and wait for another attempt in the last whole minute.';
COMMENT ON COLUMN howdah.queue_live.failed_1m IS 'Tasks given up as dead letters in the last whole minute.';
COMMENT ON COLUMN howdah.queue_live.duration_1m_s IS 'Seconds that its finished runs took, added up, in the last whole minute.';
COMMENT ON COLUMN howdah.queue_live.enqueued_5m IS 'Tasks accepted over HTTP in the last 5 whole minutes.';
COMMENT ON COLUMN howdah.queue_live.succeeded_5m IS 'Runs that succeeded in the last 5 whole minutes.';
COMMENT ON COLUMN howdah.queue_live.retried_5m IS 'Runs that failed and wait for another attempt in the last 5 whole minutes.';
COMMENT ON COLUMN howdah.queue_live.failed_5m IS 'Tasks given up as dead letters in the last 5 whole minutes.';
COMMENT ON COLUMN howdah.queue_live.duration_5m_s IS 'Seconds that its finished runs took, added up, in the last 5 whole minutes.';
COMMENT ON COLUMN howdah.queue_live.enqueued_60m IS 'Tasks accepted over HTTP in the last 60 whole minutes.';
COMMENT ON COLUMN howdah.queue_live.succeeded_60m IS 'Runs that succeeded in the last 60 whole minutes.';
COMMENT ON COLUMN howdah.queue_live.retried_60m IS 'Runs that failed and wait for another attempt in the last 60 whole minutes.';
COMMENT ON COLUMN howdah.queue_live.failed_60m IS 'Tasks given up as dead letters in the last 60 whole minutes.';
COMMENT ON COLUMN howdah.queue_live.duration_60m_s IS 'Seconds that its finished runs took, added up, in the last 60 whole minutes.';
