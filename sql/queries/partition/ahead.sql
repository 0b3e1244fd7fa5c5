-- For how many days, from today on, tasks can be stored without another partition being made.
-- params: none.
-- returns: one row: day_count; 0 if today's is missing, 1 if tomorrow's is.
WITH daily AS (
    SELECT parent.relname AS parent, to_date(substring(child.relname FROM '[0-9]{8}'), 'YYYYMMDD') AS day
    FROM pg_inherits AS i
    JOIN pg_class AS parent ON parent.oid = i.inhparent
    JOIN pg_class AS child ON child.oid = i.inhrelid
    WHERE parent.relnamespace = 'howdah'::regnamespace
        AND parent.relname IN ('tasks', 'finished_runs', 'task_logs')
        AND NOT i.inhdetachpending
),
present AS (
    SELECT d.day
    FROM daily AS d
    GROUP BY d.day
    HAVING count(DISTINCT d.parent) = 3
),
ahead AS (
    SELECT p.day, p.day - (row_number() OVER (ORDER BY p.day))::integer AS island
    FROM present AS p
    WHERE p.day >= (howdah.now() AT TIME ZONE 'UTC')::date
)
SELECT count(*)::integer AS day_count
FROM ahead AS a
WHERE a.island = (howdah.now() AT TIME ZONE 'UTC')::date - 1
