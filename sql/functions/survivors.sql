-- The tasks within a range of ids that have not ended for good: they have a live run, or a dead letter
-- that may be replayed. What is missing here never comes back, so a range that has none can be dropped.
-- Both tables are read by their primary keys, tenant by tenant.
CREATE OR REPLACE FUNCTION howdah.survivors(id_from uuid, id_until uuid)
RETURNS TABLE (tenant_id integer, task_id uuid)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT r.tenant_id, r.task_id
    FROM howdah.tenants AS t
    CROSS JOIN LATERAL (
        SELECT live.tenant_id, live.task_id
        FROM howdah.runs AS live
        WHERE live.tenant_id = t.id AND live.task_id >= id_from AND live.task_id < id_until
    ) AS r
    UNION
    SELECT d.tenant_id, d.task_id
    FROM howdah.tenants AS t
    CROSS JOIN LATERAL (
        SELECT dead.tenant_id, dead.task_id
        FROM howdah.dead_letters AS dead
        WHERE dead.tenant_id = t.id AND dead.task_id >= id_from AND dead.task_id < id_until
    ) AS d;
END
$$;
COMMENT ON FUNCTION howdah.survivors(uuid, uuid) IS 'Internal: tasks of a range of ids that have a live run or a dead letter.';
