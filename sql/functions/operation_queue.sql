-- The queue of a bulk operation, after everything else about it was found sound: JQ422 (JQ413) says what is wrong, JQ404
-- that there is no such queue. NULL is every queue, which only a cancel by some filter may be about.
CREATE OR REPLACE FUNCTION howdah.operation_queue(
    tenant_id integer, kind text, queue text, filter jsonb, rate double precision, mode text, edits json
)
RETURNS integer
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant ALIAS FOR tenant_id;
    queue_id integer;
    problem text;
BEGIN
    IF kind IS NULL OR kind NOT IN ('replay_dead_letters', 'purge_dead_letters', 'purge_queue', 'cancel_tasks') THEN
        RAISE EXCEPTION '/kind must be replay_dead_letters, purge_dead_letters, purge_queue or cancel_tasks' USING ERRCODE = 'JQ422';
    ELSIF queue IS NULL AND kind <> 'cancel_tasks' THEN
        RAISE EXCEPTION '/queue is required' USING ERRCODE = 'JQ422';
    ELSIF (kind = 'cancel_tasks' AND (mode IS NULL OR mode NOT IN ('soft', 'hard'))) THEN
        RAISE EXCEPTION '/mode must be soft or hard' USING ERRCODE = 'JQ422';
    ELSIF mode IS NOT NULL AND kind <> 'cancel_tasks' THEN
        RAISE EXCEPTION '/mode is for cancel_tasks only' USING ERRCODE = 'JQ422';
    ELSIF edits IS NOT NULL AND kind <> 'replay_dead_letters' THEN
        RAISE EXCEPTION '/edits is for replay_dead_letters only' USING ERRCODE = 'JQ422';
    -- NaN is larger than any number.
    ELSIF rate NOT BETWEEN 0.01 AND 10000 THEN
        RAISE EXCEPTION '/rate must be from 0.01 to 10000 tasks a second' USING ERRCODE = 'JQ422';
    END IF;
    problem := howdah.filter_problem(kind, filter);
    IF problem IS NOT NULL THEN
        PERFORM howdah.refuse(problem, '/filter');
    ELSIF queue IS NULL AND filter = '{}' THEN
        RAISE EXCEPTION '/filter must not be empty without a queue' USING ERRCODE = 'JQ422';
    END IF;
    IF edits IS NOT NULL THEN
        problem := howdah.edits_problem(tenant, edits);
        IF problem IS NOT NULL THEN
            PERFORM howdah.refuse(problem, '/edits');
        END IF;
    END IF;
    IF queue IS NOT NULL THEN
        SELECT q.id INTO queue_id FROM howdah.queues AS q WHERE q.tenant_id = tenant AND q.name = queue;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no queue "%"', left(queue, 128) USING ERRCODE = 'JQ404';
        END IF;
    END IF;
    RETURN queue_id;
END
$$;
COMMENT ON FUNCTION howdah.operation_queue(integer, text, text, jsonb, double precision, text, json) IS 'Internal: checks a bulk operation and returns its queue.';
