-- Drop dead letters of one tenant for good, as a set, and return their ids. Their tasks and history stay until their
-- time has passed: they are failed, by their history. died_until leaves those out that died later.
-- Locked rows cannot move, so they are found again by ctid, as in howdah.cancel_runs.
CREATE OR REPLACE FUNCTION howdah.purge_dead_letters(tenant_id integer, ids uuid[], died_until timestamptz)
RETURNS TABLE (task_id uuid)
LANGUAGE plpgsql
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
BEGIN
    RETURN QUERY
    WITH held AS MATERIALIZED (
        SELECT letter.ctid
        FROM (SELECT u.id FROM unnest(ids) AS u (id) ORDER BY u.id) AS i
        CROSS JOIN LATERAL (
            SELECT d.ctid
            FROM howdah.dead_letters AS d
            WHERE d.tenant_id = tenant AND d.task_id = i.id AND d.dead_at <= died_until
            FOR UPDATE OF d
        ) AS letter
    )
    DELETE FROM howdah.dead_letters AS d
    USING held AS h
    WHERE d.ctid = h.ctid
    RETURNING d.task_id;
END
$$;
COMMENT ON FUNCTION howdah.purge_dead_letters(integer, uuid[], timestamptz) IS 'Internal: drops dead letters.';
