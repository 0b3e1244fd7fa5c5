-- What the tasks of a batch have come to, by their states as howdah.task_state tells them, in the snapshot of the
-- caller's statement. Whatever is neither live nor ended in another way has succeeded.
--
-- A dead letter that was purged is known by the final row that its last attempt left; one that was taken back has a
-- live run, is dead again, or has a later final row. Tasks are made after their batch, apart from ids that their clients
-- chose: that spares the partitions of all days before it. Those whose history has outlived the retention, in a batch
-- that has not ended by then, have succeeded too, as far as can be told.
--
-- Reads the tables with the rights of its owner: it is part of a view. Costs a look at each of its tasks in an index, and at each row of those that live or did not succeed.
CREATE OR REPLACE FUNCTION howdah.batch_counts(
    tenant_id integer, batch_id uuid, created_at timestamptz,
    OUT task_count bigint, OUT pending bigint, OUT succeeded bigint, OUT failed bigint, OUT cancelled bigint, OUT expired bigint
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- As in howdah.cancel_runs.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    batch ALIAS FOR batch_id;
    -- What howdah.enqueue_rows allows ids to be old, and an hour.
    id_low constant uuid := howdah.id_floor(created_at - interval '26 hours');
BEGIN
    SELECT
        made.count, live.count, made.count - live.count - dead.count - ended.failed - ended.cancelled - ended.expired,
        dead.count + ended.failed, ended.cancelled, ended.expired
    INTO task_count, pending, succeeded, failed, cancelled, expired
    FROM (
        SELECT count(*) AS count FROM howdah.batch_tasks AS t WHERE t.tenant_id = tenant AND t.batch_id = batch
    ) AS made
    CROSS JOIN (
        SELECT count(*) AS count FROM howdah.runs AS r WHERE r.tenant_id = tenant AND r.batch_id = batch
    ) AS live
    CROSS JOIN (
        SELECT count(*) AS count FROM howdah.dead_letters AS d WHERE d.tenant_id = tenant AND d.batch_id = batch
    ) AS dead
    CROSS JOIN (
        SELECT
            count(*) FILTER (WHERE f.outcome IN ('failed', 'timed_out', 'lost')) AS failed,
            count(*) FILTER (WHERE f.outcome = 'cancelled') AS cancelled,
            count(*) FILTER (WHERE f.outcome = 'expired') AS expired
        FROM howdah.finished_runs AS f
        WHERE f.tenant_id = tenant
            AND f.batch_id = batch
            AND f.task_id >= id_low
            AND NOT EXISTS (SELECT FROM howdah.runs AS r WHERE r.tenant_id = tenant AND r.task_id = f.task_id)
            AND NOT EXISTS (SELECT FROM howdah.dead_letters AS d WHERE d.tenant_id = tenant AND d.task_id = f.task_id)
            AND NOT EXISTS (
                SELECT
                FROM howdah.finished_runs AS later
                WHERE later.tenant_id = tenant
                    AND later.task_id = f.task_id
                    AND later.is_final
                    AND later.finished_at > f.finished_at
            )
    ) AS ended;
END
$$;
COMMENT ON FUNCTION howdah.batch_counts(integer, uuid, timestamptz) IS 'Internal: what the tasks of a batch have come to.';
