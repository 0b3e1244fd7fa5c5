-- The state of a task that has no live run; raises JQ404 if there is no such task.
CREATE OR REPLACE FUNCTION howdah.ended_state(tenant_id integer, id uuid)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state constant text := howdah.task_state(tenant_id, id);
BEGIN
    IF state IS NULL THEN
        RAISE EXCEPTION 'there is no task %', id USING ERRCODE = 'JQ404';
    END IF;
    RETURN state;
END
$$;
COMMENT ON FUNCTION howdah.ended_state(integer, uuid) IS 'Internal: state of a task that has ended.';
