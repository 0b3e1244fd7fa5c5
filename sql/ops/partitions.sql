-- Are the partitions of the coming days there, and how large is what retention will drop?
-- Look for days_ahead below 7, or missing_days above 0: the chore "partitions" fails (chores.sql says why).
-- Act: run the scheduler, or howdah migrate, which makes them too. Without today's partition nothing can be
-- enqueued. Needs: nothing beyond USAGE on the schema.
SELECT
    p.parent,
    count(*) AS partitions,
    min(p.day) AS first_day,
    max(p.day) AS last_day,
    max(p.day) - (statement_timestamp() AT TIME ZONE 'UTC')::date AS days_ahead,
    max(p.day) - min(p.day) + 1 - count(*) AS missing_days,
    pg_size_pretty(sum(p.bytes)) AS total_size,
    pg_size_pretty(max(p.bytes)) AS largest,
    pg_size_pretty(sum(p.bytes) FILTER (WHERE p.day = p.first_day)) AS oldest
FROM (
    SELECT
        parent.relname AS parent,
        to_date(right(c.relname, 8), 'YYYYMMDD') AS day,
        min(to_date(right(c.relname, 8), 'YYYYMMDD')) OVER (PARTITION BY i.inhparent) AS first_day,
        pg_total_relation_size(c.oid) AS bytes
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    JOIN pg_class AS parent ON parent.oid = i.inhparent
    WHERE c.relnamespace = 'howdah'::regnamespace AND c.relkind = 'r' AND c.relname ~ '_[0-9]{8}$'
) AS p
GROUP BY p.parent
ORDER BY p.parent;
