-- The one implementation of enqueue: check and store a batch of tasks of one tenant, as a set.
--
-- items is a JSON array of tasks with the fields of POST /v1/tasks, payload left out; payloads holds
-- the payloads in the same order, so that each stays as it came, byte for byte; JSON null is none. One
-- row per item comes back: refused items carry an error "<code> <pointer> <what is allowed>" and store no
-- task; an item whose id exists already, perhaps from earlier in the batch, stores nothing and says
-- created = false. Ids may be given by the caller (UUIDv7 of the last hour), so that a repeat after a lost
-- answer stores nothing twice. Of a created task, run_at is what its lane is ready from and due_at what
-- its client asked for; timeout_s and max_attempts are those in force, from the task or its queue;
-- expires_at is NULL without one.
--
-- A queue that is drained or has reached a cap refuses its items as they are stored: what was true when the
-- statement began counts.
-- An item whose dedup key another task holds stores nothing either, and its id is that task's: with created = false,
-- or with an error that begins with dedup_conflict. howdah.take_keys decides about keys. Of one that is held back
-- by this transaction, priority and run_at are that task's: its lane is to be announced, like those of created ones.
--
-- Unknown queues and targets with allowed names are made on first use, by an item that is not refused, and by
-- an earlier statement, so that the main one also sees those that somebody else made at the same moment.
--
-- parents is NULL, or names for each item the task whose end enqueues it (see howdah.follow). Such tasks were promised:
-- no drain and no cap of their queue refuses them, nor a limit of payloads that was lowered meanwhile, and ids that were
-- given may be as old as a run can be. They go on with their parents' traces.
--
-- An item with a batch joins it, or is refused if it is closed: see howdah.join_batches.
--
-- moves: new -> waiting (enqueue)
-- Its columns have changed, which CREATE OR REPLACE refuses.
DROP FUNCTION IF EXISTS howdah.enqueue_rows(integer, json, json[]);
CREATE OR REPLACE FUNCTION howdah.enqueue_rows(tenant_id integer, items json, payloads json[], parents uuid[] DEFAULT NULL)
RETURNS TABLE (
    ordinal integer, id uuid, created boolean, error text, queue_id integer, priority smallint, run_at timestamptz,
    due_at timestamptz, created_at timestamptz, timeout_s real, max_attempts integer, expires_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Sessions of the hot path forbid hash joins; here the last one keeps 1,000 items from being compared
-- with each other (seen: 93 us an item instead of 36).
SET enable_hashjoin = on
-- A plan made for the parameters is no better, and takes 2 ms: each of a session's first five calls would make one.
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    bytes_max integer;
    queues text[];
    handlers text[];
    flow_queue_ids integer[];
    flows jsonb[];
    name_pattern constant text := '^[a-z0-9][a-z0-9_.-]{0,127}$';
    now constant timestamptz := howdah.now();
    -- Ids of other times could fall outside of the partitions; a minute ahead allows for skew.
    id_low constant uuid := howdah.id_floor(now - CASE WHEN parents IS NULL THEN interval '1 hour' ELSE interval '25 hours' END);
    id_high constant uuid := howdah.id_floor(now + interval '1 minute');
    -- What howdah.take_keys says of each item, if any has a dedup key; else NULL.
    key_ids uuid[];
    key_holders uuid[];
    key_problems text[];
    dedups jsonb[];
    held_priorities smallint[];
    held_run_ats timestamptz[];
    -- What howdah.join_batches says of each item, if any names a batch; else NULL.
    batch_ids uuid[];
    batch_problems text[];
    storable json := items;
BEGIN
    SELECT CASE WHEN parents IS NULL THEN t.payload_bytes_max ELSE 2147483647 END INTO bytes_max
    FROM howdah.tenants AS t
    WHERE t.id = tenant;

    SELECT
        array_agg(DISTINCT i.queue ORDER BY i.queue) FILTER (WHERE i.queue IS NOT NULL AND q.id IS NULL),
        array_agg(DISTINCT i.handler ORDER BY i.handler) FILTER (WHERE i.handler IS NOT NULL AND t.id IS NULL)
    INTO queues, handlers
    FROM (
        SELECT DISTINCT
            CASE WHEN json_typeof(x.queue) = 'string' THEN x.queue #>> '{}' END AS queue,
            CASE WHEN json_typeof(x.handler) = 'string' THEN x.handler #>> '{}' END AS handler
        FROM json_to_recordset(items) AS x (queue json, handler json)
    ) AS i
    LEFT JOIN howdah.queues AS q ON q.tenant_id = tenant AND q.name = i.queue AND q.deleted_at IS NULL
    LEFT JOIN howdah.targets AS t ON t.tenant_id = tenant AND t.handler = i.handler;
    IF queues IS NOT NULL OR handlers IS NOT NULL THEN
        -- Refused items make no names.
        PERFORM howdah.make_names(
            tenant,
            array_agg(DISTINCT i.queue ORDER BY i.queue) FILTER (WHERE i.queue = ANY (queues)),
            array_agg(DISTINCT i.handler ORDER BY i.handler) FILTER (WHERE i.handler = ANY (handlers))
        )
        FROM howdah.read_items(items, payloads, now, id_low, id_high, bytes_max) AS i
        WHERE i.problem IS NULL
            AND i.queue ~ name_pattern
            AND coalesce(i.handler ~ name_pattern, true)
            AND (parents IS NOT NULL OR NOT EXISTS (
                SELECT
                FROM howdah.queues AS q
                WHERE q.tenant_id = tenant
                    AND q.name = i.queue
                    AND howdah.queue_refusal(q.draining_at, q.pressure, q.pressure_until, now) IS NOT NULL
            ));
    END IF;

    -- With an escape the words could be written in another way.
    IF position('flow' IN items::text) > 0 OR position('\u' IN items::text) > 0 THEN
        SELECT array_agg(q.id ORDER BY i.ordinal), array_agg(i.flow ORDER BY i.ordinal)
        INTO flow_queue_ids, flows
        FROM howdah.read_items(items, payloads, now, id_low, id_high, bytes_max) AS i
        JOIN howdah.queues AS q ON q.tenant_id = tenant AND q.name = i.queue
        WHERE i.flow IS NOT NULL AND i.problem IS NULL;
        IF flows IS NOT NULL THEN
            PERFORM howdah.make_flow_keys(tenant, flow_queue_ids, flows);
        END IF;
    END IF;

    IF position('batch' IN items::text) > 0 OR position('\u' IN items::text) > 0 THEN
        SELECT b.batch_ids, b.problems INTO batch_ids, batch_problems FROM howdah.join_batches(tenant, items, parents) AS b;
        IF array_remove(batch_problems, NULL) <> '{}' THEN
            -- An item that its batch refuses must not take a key away from others.
            SELECT json_agg(CASE WHEN batch_problems[i.ordinality] IS NULL THEN i.value ELSE '{}' END ORDER BY i.ordinality)
            INTO storable
            FROM json_array_elements(items) WITH ORDINALITY AS i (value, ordinality);
        END IF;
    END IF;

    IF position('dedup' IN items::text) > 0 OR position('\u' IN items::text) > 0 THEN
        SELECT k.ids, k.holders, k.problems, k.dedups, k.held_priorities, k.held_run_ats
        INTO key_ids, key_holders, key_problems, dedups, held_priorities, held_run_ats
        FROM howdah.take_keys(tenant, storable, payloads, id_low, id_high, bytes_max) AS k;
    END IF;

    RETURN QUERY
    WITH checked AS MATERIALIZED (
        SELECT
            i.ordinal,
            coalesce(i.id, key_ids[i.ordinal], howdah.new_id(i.ordinal)) AS id,
            key_holders[i.ordinal] AS holder_id,
            dedups[i.ordinal] AS dedup,
            i.priority, i.run_at, i.expires_at, i.timeout_s,
            coalesce(
                i.traceparent,
                CASE WHEN parents IS NOT NULL THEN
                    (SELECT p.traceparent FROM howdah.tasks AS p WHERE p.tenant_id = tenant AND p.id = parents[i.ordinal])
                END
            ) AS traceparent,
            i.retry, i.flow, i.tags, i.http, i.follow_ups, i.payload,
            q.id AS queue_id,
            q.retry AS queue_retry,
            CASE WHEN i.http IS NULL THEN t.id ELSE 0 END AS target_id,
            coalesce(i.timeout_s, q.timeout_s)::real AS timeout_in_force_s,
            CASE
                WHEN i.problem IS NOT NULL THEN i.problem
                WHEN parents IS NULL
                    AND howdah.queue_refusal(q.draining_at, q.pressure, q.pressure_until, now) IS NOT NULL
                    -- One that is stored already is no new task: its answer was lost.
                    AND NOT EXISTS (SELECT FROM howdah.tasks AS known WHERE known.tenant_id = tenant AND known.id = i.id)
                    THEN howdah.queue_refusal(q.draining_at, q.pressure, q.pressure_until, now)
                WHEN batch_problems[i.ordinal] IS NOT NULL
                    AND NOT EXISTS (SELECT FROM howdah.tasks AS known WHERE known.tenant_id = tenant AND known.id = i.id)
                    THEN batch_problems[i.ordinal]
                -- Of an item whose handler is not allowed the queue was not made.
                WHEN q.id IS NULL AND (i.queue !~ name_pattern OR i.http IS NOT NULL OR t.id IS NOT NULL)
                    THEN 'validation /queue must match ' || name_pattern
                WHEN i.http IS NULL AND t.id IS NULL THEN 'validation /handler must match ' || name_pattern
                ELSE key_problems[i.ordinal]
            END AS problem
        FROM howdah.read_items(items, payloads, now, id_low, id_high, bytes_max) AS i
        LEFT JOIN howdah.queues AS q ON q.tenant_id = tenant AND q.name = i.queue AND q.deleted_at IS NULL
        LEFT JOIN howdah.targets AS t ON t.tenant_id = tenant AND t.handler = i.handler
    ),
    stored AS (
        INSERT INTO howdah.tasks (
            tenant_id, id, queue_id, target_id, priority, timeout_s, created_at, run_at, expires_at, traceparent, retry, flow,
            tags, dedup, parent_id, batch_id, follow_ups, http, payload
        )
        SELECT
            tenant, c.id, c.queue_id, c.target_id, c.priority, c.timeout_s, now, c.run_at, c.expires_at, c.traceparent, c.retry,
            c.flow, c.tags, c.dedup, parents[c.ordinal], batch_ids[c.ordinal], c.follow_ups, c.http, c.payload
        FROM checked AS c
        WHERE c.problem IS NULL AND c.holder_id IS NULL
        ORDER BY c.ordinal
        ON CONFLICT DO NOTHING
        RETURNING
            id, queue_id, target_id, priority, run_at, expires_at, flow, batch_id,
            CASE WHEN follow_ups IS NOT NULL THEN true END AS has_follow_ups
    ),
    joined AS (
        INSERT INTO howdah.batch_tasks (tenant_id, batch_id, task_id)
        SELECT tenant, s.batch_id, s.id FROM stored AS s WHERE s.batch_id IS NOT NULL
    ),
    armed AS (
        INSERT INTO howdah.runs (
            tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at, expires_at, batch_id, has_follow_ups,
            flow_key_id, flow_state
        )
        SELECT
            tenant, s.id, s.queue_id, s.target_id, s.priority, greatest(s.run_at, now), now, s.run_at, s.expires_at, s.batch_id,
            s.has_follow_ups, f.id,
            CASE WHEN f.id IS NOT NULL THEN 0 END
        FROM stored AS s
        -- Asked for each task that has one; a join would read all keys of the tenant.
        CROSS JOIN LATERAL (
            SELECT CASE WHEN s.flow IS NOT NULL THEN
                (SELECT k.id FROM howdah.flow_keys AS k WHERE k.tenant_id = tenant AND k.key = s.flow ->> 'key')
            END AS id
        ) AS f
        RETURNING task_id, run_at
    )
    SELECT
        c.ordinal,
        coalesce(c.holder_id, c.id),
        c.problem IS NULL AND c.holder_id IS NULL AND a.task_id IS NOT NULL
            AND row_number() OVER (PARTITION BY c.id, c.problem, c.holder_id ORDER BY c.ordinal) = 1,
        c.problem, c.queue_id, coalesce(held_priorities[c.ordinal], c.priority), coalesce(a.run_at, held_run_ats[c.ordinal]),
        c.run_at, now, c.timeout_in_force_s,
        CASE
            WHEN a.task_id IS NOT NULL
                THEN (howdah.retry_policy(c.queue_retry, c.retry) ->> 'max_attempts')::numeric::integer
        END,
        c.expires_at
    FROM checked AS c
    LEFT JOIN armed AS a ON a.task_id = c.id
    ORDER BY c.ordinal;
END
$$;
COMMENT ON FUNCTION howdah.enqueue_rows(integer, json, json[], uuid[]) IS 'Internal: what enqueue and the API share. Use howdah.enqueue or howdah.enqueue_many.';
