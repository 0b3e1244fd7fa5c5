-- Which connections do Howdah's processes hold, and what are they at?
-- A worker has four (claim, finish, keeper, listener) and up to HOWDAH_HANDLER_POOL for handlers; an API
-- process up to HOWDAH_API_POOL, its writers, notifier and listener. Look for "idle in transaction" that
-- lasts, and for a sum near max_connections.
-- Needs: pg_monitor.
SELECT
    coalesce(nullif(a.application_name, ''), '(no name)') AS application,
    a.state,
    count(*) AS connections,
    max(date_trunc('second', statement_timestamp() - a.state_change)) AS longest_in_state,
    sum(count(*)) OVER () AS all_connections,
    current_setting('max_connections')::integer AS max_connections
FROM pg_stat_activity AS a
WHERE a.backend_type = 'client backend'
GROUP BY a.application_name, a.state
ORDER BY connections DESC;
