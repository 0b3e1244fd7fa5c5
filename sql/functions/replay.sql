-- Take a dead letter back to its queue: the same task, with all its attempts. Its history stays, and the
-- claim number goes on, so that receivers can tell old attempts from new ones. Returns queued. Raises
-- JQ404 if there is no such task, and JQ409 if it is no dead letter (any more), its expires_at has passed, or another
-- task holds its dedup key, which it takes again otherwise (then the constraint is dedup_keys_pkey, and the detail that
-- task's id).
--
-- moves: failed -> waiting (replay)
CREATE OR REPLACE FUNCTION howdah.replay(id uuid, tenant text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    task ALIAS FOR id;
    now constant timestamptz := howdah.now();
    dead howdah.dead_letters;
    -- As the client gave it: a dead letter has that of the lane in which it died.
    priority smallint;
    flow jsonb;
    key_id bigint;
    dedup jsonb;
    expiry timestamptz;
BEGIN
    -- Of two replays at once the second waits here, and then finds nothing.
    DELETE FROM howdah.dead_letters AS d WHERE d.tenant_id = number AND d.task_id = task RETURNING d.* INTO dead;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the task is no dead letter: it is %', howdah.ended_state(number, task) USING ERRCODE = 'JQ409';
    END IF;
    -- The age of its attempts counts from now.
    UPDATE howdah.tasks AS t SET run_at = now WHERE t.tenant_id = number AND t.id = task
    RETURNING t.priority, t.flow, t.dedup, t.expires_at INTO priority, flow, dedup, expiry;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the task is gone: there is nothing to be run' USING ERRCODE = 'JQ409';
    END IF;
    -- Whoever gave it said that it is not worth starting any more, or would do harm.
    IF expiry <= now THEN
        RAISE EXCEPTION 'the task expired at %: it is not started any more', to_json(expiry) #>> '{}' USING ERRCODE = 'JQ409';
    END IF;
    IF dedup IS NOT NULL THEN
        PERFORM howdah.retake_key(number, dead.queue_id, task, dedup, dead.claim_no);
    END IF;
    IF flow IS NOT NULL THEN
        PERFORM howdah.make_flow_keys(number, ARRAY[dead.queue_id], ARRAY[flow]);
        SELECT f.id INTO key_id FROM howdah.flow_keys AS f WHERE f.tenant_id = number AND f.key = flow ->> 'key';
    END IF;
    INSERT INTO howdah.runs (
        tenant_id, task_id, queue_id, target_id, priority, claim_no, run_at, queued_at, due_at, expires_at,
        flow_key_id, flow_state
    )
    VALUES (
        number, task, dead.queue_id, dead.target_id, priority, dead.claim_no, now, dead.queued_at, now,
        expiry, key_id, CASE WHEN key_id IS NOT NULL THEN 0 END
    );
    IF coalesce(current_setting('howdah.notify', true), '') <> 'off' THEN
        PERFORM pg_notify('howdah_wake', howdah.lane_word(dead.queue_id, priority, now));
    END IF;
    RETURN 'queued';
END
$$;
COMMENT ON FUNCTION howdah.replay(uuid, text) IS 'Take a dead letter back to its queue, with all its attempts.';
