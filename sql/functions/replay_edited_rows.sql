-- Make new tasks of dead letters of one tenant, as a set, with other payloads or targets, and end the dead letters. A
-- new task has everything else of the old one, which its replayed_from names; it is checked and stored by
-- howdah.enqueue_rows. An http with a body of its own takes the place of the old payload too. One row for each dead letter
-- that was found: the new task with what its lane is ready from, which the caller announces, or an error, as
-- "<code> <pointer> <what is allowed>"; then the dead letter stays. died_until is as in howdah.replay_rows.
--
-- The old task is failed then, by its history.
CREATE OR REPLACE FUNCTION howdah.replay_edited_rows(tenant_id integer, ids uuid[], edits json, died_until timestamptz)
RETURNS TABLE (
    task_id uuid, queue_id integer, priority smallint, run_at timestamptz, error text, new_id uuid
)
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
    old_ids uuid[];
    items json;
    payloads json[];
    made record;
BEGIN
    WITH held AS MATERIALIZED (
        SELECT letter.*
        FROM (SELECT u.id FROM unnest(ids) AS u (id) ORDER BY u.id) AS i
        CROSS JOIN LATERAL (
            SELECT d.task_id, d.queue_id, d.priority
            FROM howdah.dead_letters AS d
            WHERE d.tenant_id = tenant AND d.task_id = i.id AND (died_until IS NULL OR d.dead_at <= died_until)
            FOR UPDATE OF d
        ) AS letter
    )
    SELECT
        array_agg(h.task_id ORDER BY h.task_id),
        json_agg(
            jsonb_strip_nulls(jsonb_build_object(
                'queue', q.name,
                'handler', CASE WHEN edits -> 'http' IS NULL THEN coalesce(edits ->> 'handler', g.handler) END,
                'http', CASE WHEN edits -> 'handler' IS NULL THEN coalesce((edits -> 'http')::jsonb, t.http) END,
                'priority', (ARRAY['low', 'normal', 'high', 'critical'])[t.priority + 1],
                'timeout', t.timeout_s || 's',
                'retry', t.retry,
                'flow', t.flow,
                'dedup', t.dedup,
                'expires_at', to_jsonb(t.expires_at),
                'tags', t.tags,
                'traceparent', t.traceparent
            ))
            ORDER BY h.task_id
        ),
        array_agg(
            CASE
                WHEN edits -> 'payload' IS NOT NULL THEN edits -> 'payload'
                WHEN edits #> '{http,body}' IS NULL THEN t.payload
            END
            ORDER BY h.task_id
        )
    INTO old_ids, items, payloads
    FROM held AS h
    JOIN howdah.queues AS q ON q.id = h.queue_id
    JOIN howdah.tasks AS t ON t.tenant_id = tenant AND t.id = h.task_id
    JOIN howdah.targets AS g ON g.id = t.target_id;
    IF old_ids IS NULL THEN
        RETURN;
    END IF;
    FOR made IN
        SELECT
            r.ordinal, r.id,
            CASE WHEN r.created THEN r.error
                ELSE coalesce(r.error, 'dedup_conflict /dedup/key is held by task ' || r.id)
            END AS error,
            r.queue_id, r.priority, r.run_at
        FROM howdah.enqueue_rows(tenant, items, payloads) AS r
        ORDER BY r.ordinal
    LOOP
        task_id := old_ids[made.ordinal];
        queue_id := made.queue_id;
        priority := made.priority;
        run_at := made.run_at;
        error := made.error;
        new_id := CASE WHEN made.error IS NULL THEN made.id END;
        IF made.error IS NULL THEN
            -- As they are stored: in the items, numbers of their payloads would be written anew.
            UPDATE howdah.tasks AS t
            SET replayed_from = o.id, parent_id = o.parent_id, batch_id = o.batch_id,
                completes_batch_id = o.completes_batch_id, follow_ups = o.follow_ups
            FROM howdah.tasks AS o
            WHERE t.tenant_id = tenant AND t.id = made.id AND o.tenant_id = tenant AND o.id = old_ids[made.ordinal];
            UPDATE howdah.runs AS r
            SET batch_id = o.batch_id, has_follow_ups = CASE WHEN o.follow_ups IS NOT NULL THEN true END
            FROM howdah.tasks AS o
            WHERE r.tenant_id = tenant
                AND r.task_id = made.id
                AND o.tenant_id = tenant
                AND o.id = old_ids[made.ordinal]
                AND (o.batch_id IS NOT NULL OR o.follow_ups IS NOT NULL);
            INSERT INTO howdah.batch_tasks (tenant_id, batch_id, task_id)
            SELECT tenant, o.batch_id, made.id
            FROM howdah.tasks AS o
            WHERE o.tenant_id = tenant AND o.id = old_ids[made.ordinal] AND o.batch_id IS NOT NULL;
            DELETE FROM howdah.dead_letters AS d WHERE d.tenant_id = tenant AND d.task_id = old_ids[made.ordinal];
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION howdah.replay_edited_rows(integer, uuid[], json, timestamptz) IS 'Internal: makes new tasks of dead letters, with edits, and ends those.';
