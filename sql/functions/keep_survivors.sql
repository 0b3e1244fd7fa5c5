-- Replace a day's partition by one that holds only what must be kept of it, and drop it; returns how many
-- rows were kept. Of tasks these are the survivors, of finished_runs and task_logs those of the tasks that are
-- there, so tasks come first. All of it or nothing, in the caller's transaction: a live task is never without its
-- row, nor without a partition for its history (DETACH … CONCURRENTLY would leave a gap of as long as the
-- oldest open transaction).
--
-- The copy is made while nobody may write into the old partition, which only ends of survivors, and changes of those that wait, do. The
-- parent, which every query uses, is locked only for the exchange itself: milliseconds, as long as nobody
-- holds it. So the caller sets a short lock_timeout and comes back later.
CREATE OR REPLACE FUNCTION howdah.keep_survivors(parent text, day date)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key constant text := CASE parent WHEN 'tasks' THEN 'id' WHEN 'finished_runs' THEN 'task_id' WHEN 'task_logs' THEN 'task_id' END;
    old constant text := parent || '_' || to_char(day, 'YYYYMMDD');
    kept constant text := old || '_kept';
    id_from constant uuid := howdah.id_floor(day::timestamp AT TIME ZONE 'UTC');
    id_until constant uuid := howdah.id_floor((day + 1)::timestamp AT TIME ZONE 'UTC');
    wanted constant text := CASE parent
        WHEN 'tasks' THEN 'SELECT s.tenant_id, s.task_id FROM howdah.survivors(%4$L, %5$L) AS s'
        ELSE 'SELECT t.tenant_id, t.id FROM howdah.tasks AS t WHERE t.id >= %4$L AND t.id < %5$L'
    END;
    row_count bigint;
BEGIN
    EXECUTE format('LOCK TABLE howdah.%I IN SHARE MODE', old);
    EXECUTE format(
        'CREATE TABLE howdah.%1$I (LIKE howdah.%2$I INCLUDING ALL, CONSTRAINT %1$s_range CHECK (%3$I >= %4$L AND %3$I < %5$L))',
        kept, parent, key, id_from, id_until
    );
    EXECUTE format(
        'INSERT INTO howdah.%1$I SELECT p.* FROM (' || wanted || ') AS w (tenant_id, task_id) '
        'JOIN howdah.%2$I AS p ON p.tenant_id = w.tenant_id AND p.%3$I = w.task_id',
        kept, old, key, id_from, id_until
    );
    GET DIAGNOSTICS row_count = ROW_COUNT;
    EXECUTE format('LOCK TABLE howdah.%I IN ACCESS EXCLUSIVE MODE', parent);
    EXECUTE format('ALTER TABLE howdah.%I DETACH PARTITION howdah.%I', parent, old);
    EXECUTE format('ALTER TABLE howdah.%I ATTACH PARTITION howdah.%I FOR VALUES FROM (%L) TO (%L)', parent, kept, id_from, id_until);
    EXECUTE format('ALTER TABLE howdah.%I DROP CONSTRAINT %I', kept, kept || '_range');
    EXECUTE format('DROP TABLE howdah.%I', old);
    RETURN row_count;
END
$$;
COMMENT ON FUNCTION howdah.keep_survivors(text, date) IS 'Internal: replaces a day''s partition by one that holds only tasks with a live run or a dead letter, or their history.';
