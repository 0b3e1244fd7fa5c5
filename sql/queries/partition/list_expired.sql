-- The partitions whose day has expired, and tables that were one until the retention chore detached them.
-- params: retention_s: how long tasks are kept after the day on which they were created.
-- returns: parent, name, day, id_from, id_until; is_kept: it holds only survivors; status: attached,
--   pending (its detachment was interrupted) or detached; oldest day first, tasks before their history and logs.
-- A table that somebody else detached, to keep it, does not bear our comment and is left alone.
SELECT
    p.parent, p.name, p.day,
    howdah.id_floor(p.day::timestamp AT TIME ZONE 'UTC') AS id_from,
    howdah.id_floor((p.day + 1)::timestamp AT TIME ZONE 'UTC') AS id_until,
    p.name ~ '_kept$' AS is_kept,
    CASE WHEN p.is_pending IS NULL THEN 'detached' WHEN p.is_pending THEN 'pending' ELSE 'attached' END AS status
FROM (
    SELECT
        substring(c.relname FROM '^(tasks|finished_runs|task_logs)_') AS parent,
        c.relname::text AS name,
        to_date(substring(c.relname FROM '[0-9]{8}'), 'YYYYMMDD') AS day,
        i.inhdetachpending AS is_pending,
        coalesce(obj_description(c.oid, 'pg_class') = 'Expired: detached and dropped by the retention chore.', false) AS is_ours
    FROM pg_class AS c
    LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
    WHERE c.relnamespace = 'howdah'::regnamespace
        AND c.relkind = 'r'
        AND c.relname ~ '^(tasks|finished_runs|task_logs)_[0-9]{8}(_kept)?$'
) AS p
WHERE (p.day + 1)::timestamp AT TIME ZONE 'UTC' + make_interval(secs => %(retention_s)b::double precision) <= howdah.now()
    AND (p.is_ours OR p.is_pending IS FALSE)
ORDER BY p.day, p.parent <> 'tasks', p.parent
