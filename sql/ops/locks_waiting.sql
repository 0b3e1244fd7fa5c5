-- Who waits for whom?
-- Howdah's own statements wait for nobody for longer than a commit, with two exceptions: a new queue or
-- handler name that another open transaction is making, and an Idempotency-Key that another request holds.
-- Look for a blocker that is "idle in transaction": it has forgotten to commit.
-- Act: SELECT pg_terminate_backend(blocker). Needs: pg_monitor.
SELECT
    w.pid AS waiter,
    coalesce(nullif(w.application_name, ''), w.usename) AS waiter_name,
    date_trunc('milliseconds', statement_timestamp() - w.query_start) AS waits,
    left(w.query, 60) AS waiting_statement,
    b.pid AS blocker,
    coalesce(nullif(b.application_name, ''), b.usename) AS blocker_name,
    b.state AS blocker_state,
    date_trunc('milliseconds', statement_timestamp() - b.xact_start) AS blocker_transaction,
    left(b.query, 60) AS blocker_statement
FROM pg_stat_activity AS w
CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS blocking (pid)
JOIN pg_stat_activity AS b ON b.pid = blocking.pid
WHERE w.datname = current_database()
ORDER BY w.query_start;
