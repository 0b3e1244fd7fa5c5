-- The short way of howdah.enqueue, for most calls: a task without options of a known queue and handler.
-- Two plain INSERTs; the statement of howdah.enqueue_rows, which can do everything, is so large that
-- starting it takes three times as long as these. NULL, and nothing is stored, for any other task: whether
-- it is refused, and why, and what must be made first, is for howdah.enqueue_rows to say.
-- Runs with the rights and the search_path of howdah.enqueue.
--
-- moves: new -> waiting (enqueue)
CREATE OR REPLACE FUNCTION howdah.enqueue_plain(
    tenant_id integer, queue text, handler text, payload json, run_at timestamptz
)
RETURNS uuid
LANGUAGE plpgsql
-- The plan with parameters is the right one; without this a session's first five calls make one each.
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    tenant ALIAS FOR tenant_id;
    normal constant smallint := 1;
    now constant timestamptz := howdah.now();
    asked_at constant timestamptz := coalesce(run_at, now);
    ready_at constant timestamptz := greatest(asked_at, now);
    task_id constant uuid := howdah.new_id();
    wanted_queue_id integer;
    wanted_target_id integer;
    bytes_max integer;
BEGIN
    SELECT q.id, t.id, n.payload_bytes_max INTO wanted_queue_id, wanted_target_id, bytes_max
    FROM howdah.tenants AS n
    JOIN howdah.queues AS q ON q.tenant_id = n.id
    JOIN howdah.targets AS t ON t.tenant_id = n.id
    WHERE n.id = tenant
        AND q.name = queue
        AND t.handler = enqueue_plain.handler
        AND q.deleted_at IS NULL
        AND howdah.queue_refusal(q.draining_at, q.pressure, q.pressure_until, now) IS NULL;
    IF NOT FOUND
        OR asked_at NOT BETWEEN now - interval '1 day' AND now + interval '366 days'
        OR json_typeof(payload) = 'null'
        OR howdah.payload_flaw(payload::text, bytes_max) IS NOT NULL
        OR NOT howdah.has_partition(now)
    THEN
        RETURN NULL;
    END IF;
    INSERT INTO howdah.tasks (tenant_id, id, queue_id, target_id, priority, created_at, run_at, payload)
    VALUES (tenant, task_id, wanted_queue_id, wanted_target_id, normal, now, asked_at, payload);
    INSERT INTO howdah.runs (tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at)
    VALUES (tenant, task_id, wanted_queue_id, wanted_target_id, normal, ready_at, now, asked_at);
    IF coalesce(current_setting('howdah.notify', true), '') <> 'off' THEN
        PERFORM pg_notify('howdah_wake', howdah.lane_word(wanted_queue_id, normal, ready_at));
    END IF;
    RETURN task_id;
END
$$;
COMMENT ON FUNCTION howdah.enqueue_plain(integer, text, text, json, timestamptz) IS 'Internal: what howdah.enqueue does for most tasks.';
