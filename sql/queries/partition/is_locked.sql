-- Whether somebody has held a partition or its parent for longer than a lock on them would be waited for.
-- params: parent, name: of the tables; age_s: how old a transaction may be.
-- returns: one row: is_locked; true also for transactions whose age this role may not see.
-- Asking for the lock instead would keep everybody waiting behind the one who asks.
SELECT EXISTS (
    SELECT 1
    FROM pg_locks AS l
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'relation'
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
        AND l.relation IN (
            to_regclass('howdah.' || %(parent)b::text)::oid, to_regclass('howdah.' || %(name)b::text)::oid
        )
        AND l.pid IS DISTINCT FROM pg_backend_pid()
        AND coalesce(a.xact_start < statement_timestamp() - make_interval(secs => %(age_s)b::double precision), true)
) AS is_locked
