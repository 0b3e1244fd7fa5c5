-- Raise that a task is no dead letter: JQ404 if there is no such task, else JQ409 with its state.
CREATE OR REPLACE FUNCTION howdah.refuse_replay(tenant_id integer, id uuid)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state constant text := howdah.ended_state(tenant_id, id);
BEGIN
    RAISE EXCEPTION 'the task is no dead letter: it is %', state || CASE
        WHEN state = 'failed' THEN ', and was purged, or replaced by one with edits' ELSE ''
    END
        USING ERRCODE = 'JQ409';
END
$$;
COMMENT ON FUNCTION howdah.refuse_replay(integer, uuid) IS 'Internal: raises that a task is no dead letter.';
