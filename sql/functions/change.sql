-- Change a task that waits: its priority, its run_at and expires_at (RFC 3339, as in howdah.enqueue), its tags;
-- fields that are not given stay, and expires_at null is none any more. Returns the state after the call. Raises JQ404 if there is no such task, JQ409 if it
-- runs, or has ended, and JQ422, pointing at the field, for what may not be changed so.
--
-- A run that is parked because nobody serves its target, and changes its lane, is not parked any more: the chore
-- that releases parked runs goes from lane to lane, and would miss it. If still nobody does, it is parked anew.
--
-- moves: waiting -> waiting (change)
-- moves: blocked -> blocked (change)
-- moves: blocked -> waiting (change)
CREATE OR REPLACE FUNCTION howdah.change(id uuid, changes jsonb, tenant text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    task ALIAS FOR id;
    now constant timestamptz := howdah.now();
    run record;
    field text;
    priority_wanted smallint;
    asked_at timestamptz;
    wanted_expires_at timestamptz;
    wanted_due_at timestamptz;
    ready_at timestamptz;
    blocked_left integer;
    is_moved boolean;
    is_retimed boolean;
    is_revived boolean;
BEGIN
    IF jsonb_typeof(changes) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'changes must be a JSON object' USING ERRCODE = 'JQ422';
    END IF;
    FOR field IN SELECT k.key FROM jsonb_object_keys(changes) AS k (key) LOOP
        IF field NOT IN ('priority', 'run_at', 'expires_at', 'tags') THEN
            RAISE EXCEPTION '/% is not a field that can be changed', field USING ERRCODE = 'JQ422';
        END IF;
    END LOOP;
    IF changes ? 'priority' THEN
        priority_wanted := array_position(ARRAY['low', 'normal', 'high', 'critical'], changes ->> 'priority') - 1;
        IF priority_wanted IS NULL OR jsonb_typeof(changes -> 'priority') <> 'string' THEN
            RAISE EXCEPTION '/priority must be critical, high, normal or low' USING ERRCODE = 'JQ422';
        END IF;
    END IF;
    IF changes ? 'run_at' THEN
        asked_at := CASE WHEN jsonb_typeof(changes -> 'run_at') = 'string' THEN howdah.instant(changes ->> 'run_at') END;
        IF asked_at IS NULL THEN
            RAISE EXCEPTION '/run_at must be an RFC 3339 timestamp with an offset' USING ERRCODE = 'JQ422';
        ELSIF asked_at NOT BETWEEN now - interval '1 day' AND now + interval '366 days' THEN
            RAISE EXCEPTION '/run_at must be at most 1 day ago and at most 366 days ahead' USING ERRCODE = 'JQ422';
        END IF;
    END IF;
    IF jsonb_typeof(changes -> 'expires_at') <> 'null' THEN
        wanted_expires_at := CASE WHEN jsonb_typeof(changes -> 'expires_at') = 'string' THEN howdah.instant(changes ->> 'expires_at') END;
        IF wanted_expires_at IS NULL THEN
            RAISE EXCEPTION '/expires_at must be an RFC 3339 timestamp with an offset, or null' USING ERRCODE = 'JQ422';
        ELSIF wanted_expires_at <= now OR wanted_expires_at > now + interval '366 days' THEN
            RAISE EXCEPTION '/expires_at must be later than now and at most 366 days ahead' USING ERRCODE = 'JQ422';
        END IF;
    END IF;
    IF howdah.tags_problem(changes -> 'tags') IS NOT NULL THEN
        RAISE EXCEPTION '%', howdah.tags_problem(changes -> 'tags') USING ERRCODE = 'JQ422';
    END IF;
    SELECT w.* INTO run FROM howdah.lock_waiting(number, task) AS w;
    wanted_due_at := coalesce(asked_at, run.due_at);
    IF NOT changes ? 'expires_at' THEN
        wanted_expires_at := run.expires_at;
    END IF;
    -- That of the next attempt may be later without being asked for: then there is none.
    IF (changes ? 'run_at' OR run.attempt = 0) AND wanted_expires_at <= wanted_due_at THEN
        RAISE EXCEPTION '%', CASE
            WHEN changes ? 'expires_at' THEN '/expires_at must be later than run_at'
            ELSE format('/run_at must be earlier than expires_at, which is %s', to_json(wanted_expires_at) #>> '{}')
        END USING ERRCODE = 'JQ422';
    END IF;
    is_moved := coalesce(priority_wanted <> run.priority, false);
    -- What was due and still is keeps its place.
    is_retimed := wanted_due_at <> run.due_at AND greatest(wanted_due_at, run.due_at) > now;
    -- It had expired, and no scheduler has ended it yet.
    is_revived := coalesce(run.expires_at <= now, false) AND (wanted_expires_at > now) IS NOT FALSE;
    blocked_left := CASE WHEN is_moved THEN run.blocked_by & ~8 ELSE run.blocked_by END;
    -- Whatever becomes due stands above every horizon, in a lane that it may be new to.
    ready_at := greatest(wanted_due_at, now);
    IF wanted_expires_at IS DISTINCT FROM run.expires_at THEN
        UPDATE howdah.runs AS r SET expires_at = wanted_expires_at WHERE r.tenant_id = number AND r.task_id = task;
    END IF;
    IF is_moved OR is_retimed OR is_revived THEN
        UPDATE howdah.runs AS r
        SET priority = coalesce(priority_wanted, r.priority),
            blocked_by = blocked_left,
            due_at = wanted_due_at,
            run_at = CASE WHEN blocked_left = 0 THEN ready_at ELSE r.run_at END
        WHERE r.tenant_id = number AND r.task_id = task;
        IF blocked_left = 0 AND coalesce(current_setting('howdah.notify', true), '') <> 'off' THEN
            PERFORM pg_notify(
                'howdah_wake', howdah.lane_word(run.queue_id, coalesce(priority_wanted, run.priority), ready_at)
            );
        END IF;
    END IF;
    UPDATE howdah.tasks AS t
    SET priority = coalesce(priority_wanted, t.priority),
        -- Of a later attempt run_at says when that is due, not when the task was.
        run_at = CASE WHEN run.attempt = 0 THEN coalesce(asked_at, t.run_at) ELSE t.run_at END,
        expires_at = wanted_expires_at,
        tags = coalesce(changes -> 'tags', t.tags)
    WHERE t.tenant_id = number AND t.id = task;
    RETURN howdah.run_state(NULL, blocked_left, run.attempt, wanted_due_at, now);
END
$$;
COMMENT ON FUNCTION howdah.change(uuid, jsonb, text) IS 'Change priority, run_at, expires_at or tags of a task that waits.';
