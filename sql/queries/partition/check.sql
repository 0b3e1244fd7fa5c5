-- Whether tasks of today and tomorrow can be stored.
-- params: none.
-- returns: one row: is_ready, true if all three tables have their partitions of both days.
SELECT count(*) = 6 AS is_ready
FROM unnest(ARRAY['tasks', 'finished_runs', 'task_logs']) AS parent (name)
CROSS JOIN generate_series(0, 1) AS ahead (days)
JOIN pg_inherits AS i
    ON i.inhrelid = to_regclass(
        'howdah.' || parent.name || '_' || to_char((howdah.now() AT TIME ZONE 'UTC')::date + ahead.days, 'YYYYMMDD')
    )
    AND i.inhparent = to_regclass('howdah.' || parent.name)
WHERE NOT i.inhdetachpending
