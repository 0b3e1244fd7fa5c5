-- How the server and this role's sessions are set up, as far as our promises depend on it. Works before
-- the schema exists, and through a transaction pooler.
-- params: none.
-- returns: one row. connections_free: slots left for ordinary roles; has_partitions: whether today and
--   tomorrow have one, NULL without a schema; server_at: the server's clock.
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::integer AS version_number,
    current_setting('fsync')::boolean AS has_fsync,
    current_setting('full_page_writes')::boolean AS has_full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    pg_is_in_recovery() AS is_in_recovery,
    current_setting('transaction_read_only')::boolean AS is_read_only,
    current_setting('server_encoding') AS encoding,
    current_setting('TimeZone') AS time_zone,
    current_setting('default_transaction_isolation') AS isolation,
    current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean AS has_autovacuum,
    (
        SELECT s.setting::double precision / 1000 FROM pg_settings AS s WHERE s.name = 'statement_timeout'
    ) AS statement_timeout_s,
    (
        SELECT s.setting::double precision / 1000 FROM pg_settings AS s WHERE s.name = 'idle_session_timeout'
    ) AS idle_session_timeout_s,
    current_setting('is_superuser')::boolean AND inet_client_addr() IS NOT NULL AS is_remote_superuser,
    (
        current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true)::integer, 0)
        - (SELECT sum(d.numbackends) FROM pg_stat_database AS d)
    )::integer AS connections_free,
    (
        SELECT bool_and(to_regclass('howdah.' || parent.name || '_' || to_char(day.day, 'YYYYMMDD')) IS NOT NULL)
        FROM unnest(ARRAY['tasks', 'finished_runs', 'task_logs']) AS parent (name)
        CROSS JOIN generate_series(
            (clock_timestamp() AT TIME ZONE 'UTC')::date, (clock_timestamp() AT TIME ZONE 'UTC')::date + 1, interval '1 day'
        ) AS day (day)
        WHERE to_regclass('howdah.' || parent.name) IS NOT NULL
    ) AS has_partitions,
    clock_timestamp() AS server_at
