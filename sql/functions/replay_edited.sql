-- Make a new task of a dead letter, with another payload or target, and end the dead letter: edits has payload, and
-- handler or http, as in howdah.enqueue_many. The new task has everything else of the old one, and names it in
-- replayed_from. Returns the new task's id. Raises JQ404 if there is no such task, JQ409 if it is no dead letter (any
-- more), and JQ422 (JQ413 for a payload that is too large) for a task that could not be enqueued either.
CREATE OR REPLACE FUNCTION howdah.replay_edited(id uuid, edits json, tenant text DEFAULT NULL)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    problem text := 'validation / must be an object';
    made record;
BEGIN
    IF edits IS NOT NULL THEN
        problem := howdah.edits_problem(number, edits);
    END IF;
    IF problem IS NOT NULL THEN
        PERFORM howdah.refuse(problem, '');
    END IF;
    SELECT r.* INTO made FROM howdah.replay_edited_rows(number, ARRAY[id], edits, NULL) AS r;
    IF NOT FOUND THEN
        PERFORM howdah.refuse_replay(number, id);
    ELSIF made.error IS NOT NULL THEN
        PERFORM howdah.refuse(made.error, '');
    END IF;
    IF coalesce(current_setting('howdah.notify', true), '') <> 'off' THEN
        PERFORM pg_notify('howdah_wake', howdah.lane_word(made.queue_id, made.priority, made.run_at));
    END IF;
    RETURN made.new_id;
END
$$;
COMMENT ON FUNCTION howdah.replay_edited(uuid, json, text) IS 'Make a new task of a dead letter, with another payload or target, and end the dead letter; returns the new task''s id.';
