-- Are the partitions of the coming days there, and how large is what retention will drop?
-- Look for days_ahead below 7, or missing_days above 0 (from today on): the chore "partitions" fails, and
-- chores.sql says why. Days that expired stay as "kept" while some of their tasks live, or are dead letters.
-- Act: run the scheduler, or howdah migrate, which makes partitions too. Without today's nothing can be
-- enqueued. Needs: nothing beyond USAGE on the schema.
SELECT
    p.parent,
    count(*) AS partitions,
    count(*) FILTER (WHERE p.is_kept) AS kept,
    min(p.day) FILTER (WHERE NOT p.is_kept) AS first_day,
    max(p.day) AS last_day,
    max(p.day) - p.today AS days_ahead,
    max(p.day) - p.today + 1 - count(*) FILTER (WHERE p.day >= p.today) AS missing_days,
    pg_size_pretty(sum(p.bytes)) AS total_size,
    pg_size_pretty(max(p.bytes)) AS largest,
    pg_size_pretty((array_agg(p.bytes ORDER BY p.is_kept, p.day))[1]) AS first_size
FROM (
    SELECT
        parent.relname AS parent,
        to_date(substring(c.relname FROM '[0-9]{8}'), 'YYYYMMDD') AS day,
        c.relname LIKE '%_kept' AS is_kept,
        pg_total_relation_size(c.oid) AS bytes,
        (statement_timestamp() AT TIME ZONE 'UTC')::date AS today
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    JOIN pg_class AS parent ON parent.oid = i.inhparent
    WHERE c.relnamespace = 'howdah'::regnamespace
        AND c.relkind = 'r'
        AND c.relname ~ '^(tasks|finished_runs|task_logs)_[0-9]{8}(_kept)?$'
) AS p
GROUP BY p.parent, p.today
ORDER BY p.parent;
