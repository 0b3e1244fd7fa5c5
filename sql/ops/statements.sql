-- Which of Howdah's statements run now? Each begins with its name: /* howdah:run.claim */ is
-- sql/queries/run/claim.sql.
-- Look for one that runs for more than a second, or waits (locks_waiting.sql).
-- Needs: pg_monitor.
SELECT
    a.pid,
    a.application_name,
    substring(a.query FROM '/\* howdah:([a-z_.]+) \*/') AS statement,
    date_trunc('milliseconds', statement_timestamp() - a.query_start) AS runs_for,
    a.wait_event_type,
    a.wait_event
FROM pg_stat_activity AS a
WHERE a.state = 'active' AND a.query LIKE '/* howdah:%'
ORDER BY a.query_start;
