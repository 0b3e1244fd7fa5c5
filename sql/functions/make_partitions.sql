-- Make the partitions of tasks, finished_runs and task_logs for yesterday, today and the days ahead that are
-- missing; returns the names of those it made. A new table is attached under a matching CHECK:
-- CREATE … PARTITION OF would wait behind every open reader, and with it all that come after. It acts as
-- its owner, because only the owner of a table may attach to it, and processes need not be that.
CREATE OR REPLACE FUNCTION howdah.make_partitions(days_ahead integer)
RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parent text;
    day date;
    name text;
    key text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['tasks', 'finished_runs', 'task_logs'] LOOP
        key := CASE parent WHEN 'tasks' THEN 'id' ELSE 'task_id' END;
        FOR day IN
            SELECT d.day::date
            FROM generate_series(
                (howdah.now() AT TIME ZONE 'UTC')::date - 1, (howdah.now() AT TIME ZONE 'UTC')::date + days_ahead, interval '1 day'
            ) AS d (day)
        LOOP
            name := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(format('howdah.%I', name)) IS NOT NULL;
            EXECUTE format(
                'CREATE TABLE howdah.%1$I (LIKE howdah.%2$I INCLUDING ALL, CONSTRAINT %1$s_range CHECK (%3$I >= %4$L AND %3$I < %5$L))',
                name, parent, key,
                howdah.id_floor(day::timestamp AT TIME ZONE 'UTC'), howdah.id_floor((day + 1)::timestamp AT TIME ZONE 'UTC')
            );
            EXECUTE format(
                'ALTER TABLE howdah.%I ATTACH PARTITION howdah.%I FOR VALUES FROM (%L) TO (%L)', parent, name,
                howdah.id_floor(day::timestamp AT TIME ZONE 'UTC'), howdah.id_floor((day + 1)::timestamp AT TIME ZONE 'UTC')
            );
            EXECUTE format('ALTER TABLE howdah.%I DROP CONSTRAINT %I', name, name || '_range');
            RETURN NEXT name;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION howdah.make_partitions(integer) IS 'Makes missing daily partitions from yesterday to this many days ahead.';
