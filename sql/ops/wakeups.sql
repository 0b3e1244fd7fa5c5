-- Do wake-ups get through?
-- Look for queue_usage above 0.01: a session that listens has not left its transaction and keeps all
-- notifications of the server. It is one of the sessions that are "idle in transaction"; the oldest is shown.
-- Act: SELECT pg_terminate_backend(pid). Nothing is lost: workers look by themselves every second.
-- Needs: pg_monitor.
SELECT
    round(pg_notification_queue_usage()::numeric, 4) AS queue_usage,
    oldest.pid,
    oldest.application_name,
    date_trunc('second', statement_timestamp() - oldest.xact_start) AS in_transaction
FROM (SELECT 1) AS one
LEFT JOIN (
    SELECT a.pid, a.application_name, a.xact_start
    FROM pg_stat_activity AS a
    WHERE a.state LIKE 'idle in transaction%'
    ORDER BY a.xact_start
    LIMIT 1
) AS oldest ON true;
