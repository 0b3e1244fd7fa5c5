-- Enqueue one task inside the caller's own transaction: SELECT howdah.enqueue('emails', 'welcome',
-- '{"to": "…"}'). Whatever else POST /v1/tasks takes goes into options under the same names. Raises
-- JQ422 for what the API would refuse with 422, JQ413 for a payload that is too large, JQ429 if the queue has reached
-- a cap, JQ404 if its batch does not exist, and JQ409 if that is closed, if the queue is being drained, or if another task holds the dedup key and is not to be returned instead:
-- its id is the detail then, dedup_keys_pkey the constraint.
CREATE OR REPLACE FUNCTION howdah.enqueue(
    queue text,
    handler text DEFAULT NULL,
    payload json DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    options jsonb DEFAULT '{}',
    tenant text DEFAULT NULL
)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    task_id uuid;
    problem text;
    rest text;
BEGIN
    IF options = '{}' THEN
        -- What howdah.tenant_number does, without a call; if there is no such tenant, that will say so below.
        SELECT howdah.enqueue_plain(t.id, queue, handler, payload, run_at) INTO task_id
        FROM howdah.tenants AS t
        WHERE t.name = coalesce(tenant, nullif(current_setting('howdah.tenant', true), ''), 'default');
        IF task_id IS NOT NULL THEN
            RETURN task_id;
        END IF;
    END IF;
    IF jsonb_typeof(options) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'options must be a JSON object' USING ERRCODE = 'JQ422';
    END IF;
    IF options ?| ARRAY['queue', 'handler', 'payload', 'run_at'] THEN
        RAISE EXCEPTION 'queue, handler, payload and run_at are parameters, not options' USING ERRCODE = 'JQ422';
    END IF;
    rest := nullif(substr(options::text, 2), '}');
    SELECT m.id, m.error INTO task_id, problem
    FROM howdah.enqueue_many(
        tenant,
        (
            '[{"queue": ' || coalesce(to_json(queue)::text, 'null')
            || coalesce(', "handler": ' || to_json(handler)::text, '')
            || coalesce(', "run_at": ' || to_json(run_at)::text, '')
            || coalesce(', "payload": ' || payload::text, '')
            || coalesce(', ' || rest, '}') || ']'
        )::json
    ) AS m;
    IF problem IS NOT NULL THEN
        IF problem LIKE 'dedup_conflict %' THEN
            RAISE EXCEPTION '%', substr(problem, position(' ' IN problem) + 1)
                USING ERRCODE = 'JQ409', CONSTRAINT = 'dedup_keys_pkey', DETAIL = task_id::text;
        END IF;
        RAISE EXCEPTION '%', substr(problem, position(' ' IN problem) + 1)
            USING ERRCODE = CASE split_part(problem, ' ', 1)
                WHEN 'payload_too_large' THEN 'JQ413'
                WHEN 'queue_draining' THEN 'JQ409'
                WHEN 'state_conflict' THEN 'JQ409'
                WHEN 'not_found' THEN 'JQ404'
                WHEN 'backpressure' THEN 'JQ429'
                ELSE 'JQ422'
            END;
    END IF;
    RETURN task_id;
END
$$;
COMMENT ON FUNCTION howdah.enqueue(text, text, json, timestamptz, jsonb, text) IS 'Enqueue one task inside the caller''s transaction; returns its id.';
