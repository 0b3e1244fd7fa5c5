-- The short way into the tables, for tasks that need nothing made, changed or refused: their queues and
-- handlers exist, they run at once, and their payloads are sound. Stores all of them, or nothing.
--
-- Tasks that differ in no more than id and payload are of one kind: queues, handlers, priorities and
-- traceparents (well-formed, or NULL) describe the kinds, kinds says of each task which one it is of,
-- counted from 1; ids must be new, and of now. One row per kind comes back once all are stored. None,
-- and nothing is stored, if a name is unknown, a queue takes no tasks or a payload has a flaw: what is to be made,
-- and what is refused and why, is for howdah.enqueue_rows to say.
--
-- The statement of howdah.enqueue_rows, which can do everything, costs 20 us more for each of a thousand
-- tasks, and half a millisecond in all, which a small batch pays too.
--
-- moves: new -> waiting (enqueue)
CREATE OR REPLACE FUNCTION howdah.store_plain(
    tenant_id integer, queues text[], handlers text[], priorities smallint[], traceparents text[],
    kinds integer[], ids uuid[], payloads json[]
)
RETURNS TABLE (kind integer, queue_id integer, created_at timestamptz, timeout_s real, max_attempts integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- The plan with parameters is the right one; without this a session's first five calls make one each.
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    now constant timestamptz := howdah.now();
    queue_ids integer[];
    target_ids integer[];
    bytes_max integer;
BEGIN
    SELECT
        array_agg(q.id ORDER BY k.kind), array_agg(t.id ORDER BY k.kind), min(n.payload_bytes_max)
    INTO queue_ids, target_ids, bytes_max
    FROM howdah.tenants AS n
    CROSS JOIN unnest(queues, handlers) WITH ORDINALITY AS k (queue, handler, kind)
    JOIN howdah.queues AS q ON q.tenant_id = n.id AND q.name = k.queue
    JOIN howdah.targets AS t ON t.tenant_id = n.id AND t.handler = k.handler
    WHERE n.id = tenant
        AND q.deleted_at IS NULL
        AND howdah.queue_refusal(q.draining_at, q.pressure, q.pressure_until, now) IS NULL;
    IF cardinality(queue_ids) IS DISTINCT FROM cardinality(queues)
        OR EXISTS (SELECT FROM unnest(payloads) AS p (payload) WHERE howdah.payload_flaw(p.payload::text, bytes_max) IS NOT NULL)
    THEN
        RETURN;
    END IF;
    INSERT INTO howdah.tasks (
        tenant_id, id, queue_id, target_id, priority, created_at, run_at, traceparent, payload
    )
    SELECT
        tenant, i.id, queue_ids[i.kind], target_ids[i.kind], coalesce(priorities[i.kind], 1::smallint), now, now, traceparents[i.kind], i.payload
    FROM unnest(ids, kinds, payloads) AS i (id, kind, payload);
    INSERT INTO howdah.runs (tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at)
    SELECT tenant, i.id, queue_ids[i.kind], target_ids[i.kind], coalesce(priorities[i.kind], 1::smallint), now, now, now
    FROM unnest(ids, kinds) AS i (id, kind);
    RETURN QUERY
    SELECT
        k.kind::integer, q.id, now, q.timeout_s,
        (howdah.retry_policy(q.retry, NULL) ->> 'max_attempts')::numeric::integer
    FROM unnest(queue_ids) WITH ORDINALITY AS k (queue_id, kind)
    JOIN howdah.queues AS q ON q.id = k.queue_id
    ORDER BY k.kind;
END
$$;
COMMENT ON FUNCTION howdah.store_plain(integer, text[], text[], smallint[], text[], integer[], uuid[], json[]) IS 'Internal: what enqueue does for most batches.';
