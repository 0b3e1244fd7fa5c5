-- Who keeps vacuum from removing dead rows, oldest first?
-- Howdah stays fast all the same (claims start at a horizon of their own), but runs and its indexes grow
-- until the oldest snapshot ends. Look at the first row: a session that is "idle in transaction" has been
-- forgotten; a dump or a report will end by itself; a slot without active_pid belongs to a standby or a
-- subscriber that is gone.
-- Act: SELECT pg_terminate_backend(pid); ROLLBACK PREPARED 'name'; SELECT pg_drop_replication_slot('name').
-- Needs: pg_monitor, to see the sessions of others.
SELECT holder.kind, holder.name, holder.pid, holder.state, holder.since, holder.xmin_age, holder.doing
FROM (
    SELECT
        'session' AS kind,
        coalesce(nullif(a.application_name, ''), a.usename) AS name,
        a.pid,
        a.state,
        date_trunc('second', statement_timestamp() - a.xact_start) AS since,
        greatest(age(a.backend_xmin), age(a.backend_xid)) AS xmin_age,
        left(a.query, 60) AS doing
    FROM pg_stat_activity AS a
    WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
        AND a.pid <> pg_backend_pid()
        AND a.backend_type IN ('client backend', 'walsender', 'background worker', 'parallel worker')
    UNION ALL
    SELECT
        'prepared transaction', p.gid, NULL, p.owner, date_trunc('second', statement_timestamp() - p.prepared),
        age(p.transaction), NULL
    FROM pg_prepared_xacts AS p
    UNION ALL
    SELECT
        'replication slot', s.slot_name, s.active_pid, CASE WHEN s.active THEN 'active' ELSE 'inactive' END, NULL,
        greatest(age(s.xmin), age(s.catalog_xmin)), s.slot_type
    FROM pg_replication_slots AS s
    WHERE s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL
) AS holder
ORDER BY holder.xmin_age DESC NULLS LAST;
