-- The one implementation of enqueue: check and store a batch of tasks of one tenant, as a set.
--
-- items is a JSON array of tasks with the fields of POST /v1/tasks, payload left out; payloads holds
-- the payloads in the same order, so that each stays as it came, byte for byte; JSON null is none. One
-- row per item comes back: refused items carry an error "<code> <pointer> <what is allowed>" and store no
-- task; an item whose id exists already, perhaps from earlier in the batch, stores nothing and says
-- created = false. Ids may be given by the caller (UUIDv7 of the last hour), so that a repeat after a lost
-- answer stores nothing twice. Of a created task, run_at is what its lane is ready from and due_at what
-- its client asked for; timeout_s and max_attempts are those in force, from the task or its queue.
--
-- Unknown queues and targets with allowed names are made on first use by an earlier statement, so that
-- the main one also sees those that somebody else made at the same moment.
--
-- moves: new -> waiting (enqueue)
CREATE OR REPLACE FUNCTION howdah.enqueue_rows(tenant_id integer, items json, payloads json[])
RETURNS TABLE (
    ordinal integer, id uuid, created boolean, error text, queue_id integer, priority smallint, run_at timestamptz,
    due_at timestamptz, created_at timestamptz, timeout_s real, max_attempts integer
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Sessions of the hot path forbid hash joins; here the last one keeps 1,000 items from being compared
-- with each other (seen: 93 us an item instead of 36).
SET enable_hashjoin = on
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    bytes_max integer;
    queues text[];
    handlers text[];
    now constant timestamptz := howdah.now();
    -- Ids of other times could fall outside of the partitions; a minute ahead allows for skew.
    id_low constant uuid := howdah.id_floor(now - interval '1 hour');
    id_high constant uuid := howdah.id_floor(now + interval '1 minute');
BEGIN
    SELECT t.payload_bytes_max INTO bytes_max FROM howdah.tenants AS t WHERE t.id = tenant;

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
    LEFT JOIN howdah.queues AS q ON q.tenant_id = tenant AND q.name = i.queue
    LEFT JOIN howdah.targets AS t ON t.tenant_id = tenant AND t.handler = i.handler;
    IF queues IS NOT NULL OR handlers IS NOT NULL THEN
        PERFORM howdah.make_names(tenant, queues, handlers);
    END IF;

    RETURN QUERY
    WITH item AS MATERIALIZED (
        SELECT
            x.ordinal::integer AS ordinal,
            CASE
                WHEN x.id IS NULL THEN howdah.new_id(x.ordinal::integer)
                WHEN x.id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
                    AND x.id::uuid >= id_low
                    AND x.id::uuid < id_high
                    THEN x.id::uuid
            END AS id,
            x.queue, x.handler, x.priority, x.http, x.retry, x.tags, x.traceparent,
            x.run_at AS run_at_given,
            x.delay AS delay_given,
            x.timeout AS timeout_given,
            CASE WHEN json_typeof(x.run_at) = 'string' THEN howdah.instant(x.run_at #>> '{}') END AS run_at,
            CASE WHEN json_typeof(x.delay) = 'string' THEN howdah.duration_s(x.delay #>> '{}') END AS delay_s,
            CASE WHEN json_typeof(x.timeout) = 'string' THEN howdah.duration_s(x.timeout #>> '{}') END AS timeout_s,
            CASE WHEN json_typeof(payloads[x.ordinal]) <> 'null' THEN payloads[x.ordinal] END AS payload
        FROM ROWS FROM (
            json_to_recordset(items) AS (
                id text, queue json, handler json, priority json, http jsonb, retry jsonb, tags jsonb,
                traceparent json, run_at json, delay json, timeout json
            )
        ) WITH ORDINALITY AS x (
            id, queue, handler, priority, http, retry, tags, traceparent, run_at, delay, timeout, ordinal
        )
    ),
    checked AS MATERIALIZED (
        SELECT
            i.ordinal, i.id, i.http, i.retry, i.tags, i.payload, i.timeout_s,
            i.traceparent #>> '{}' AS traceparent,
            q.id AS queue_id,
            q.retry AS queue_retry,
            CASE WHEN i.http IS NULL THEN t.id ELSE 0 END AS target_id,
            CASE coalesce(i.priority #>> '{}', 'normal')
                WHEN 'critical' THEN 3 WHEN 'high' THEN 2 WHEN 'normal' THEN 1 ELSE 0
            END::smallint AS priority,
            coalesce(i.run_at, now + make_interval(secs => least(coalesce(i.delay_s, 0), 31622400))) AS run_at,
            coalesce(i.timeout_s, q.timeout_s)::real AS timeout_in_force_s,
            CASE
                WHEN i.id IS NULL THEN 'validation /id must be a UUIDv7 of the last hour'
                WHEN q.id IS NULL OR json_typeof(i.queue) <> 'string'
                    THEN 'validation /queue must match ^[a-z0-9][a-z0-9_.-]{0,127}$'
                WHEN (i.handler IS NULL) = (i.http IS NULL)
                    THEN 'validation /handler exactly one of handler and http must be given'
                WHEN i.http IS NULL AND (t.id IS NULL OR json_typeof(i.handler) <> 'string')
                    THEN 'validation /handler must match ^[a-z0-9][a-z0-9_.-]{0,127}$'
                WHEN json_typeof(i.priority) <> 'string' OR i.priority #>> '{}' NOT IN ('critical', 'high', 'normal', 'low')
                    THEN 'validation /priority must be critical, high, normal or low'
                WHEN i.run_at_given IS NOT NULL AND i.delay_given IS NOT NULL
                    THEN 'validation /delay excludes run_at'
                WHEN i.run_at_given IS NOT NULL AND i.run_at IS NULL
                    THEN 'validation /run_at must be an RFC 3339 timestamp with an offset'
                WHEN i.run_at NOT BETWEEN now - interval '1 day' AND now + interval '366 days'
                    THEN 'validation /run_at must be at most 1 day ago and at most 366 days ahead'
                WHEN i.delay_given IS NOT NULL AND (i.delay_s IS NULL OR i.delay_s > 31622400)
                    THEN 'validation /delay must be a duration of at most 366 days'
                WHEN i.timeout_given IS NOT NULL AND (i.timeout_s IS NULL OR i.timeout_s NOT BETWEEN 0.1 AND 86400)
                    THEN 'validation /timeout must be a duration from 0.1 seconds to 24 hours'
                WHEN i.http IS NOT NULL AND howdah.http_problem(i.http, i.payload IS NOT NULL) IS NOT NULL
                    THEN 'validation ' || howdah.http_problem(i.http, i.payload IS NOT NULL)
                WHEN i.retry IS NOT NULL AND howdah.retry_problem(i.retry) IS NOT NULL
                    THEN 'validation ' || howdah.retry_problem(i.retry)
                WHEN i.tags IS NOT NULL AND howdah.tags_problem(i.tags) IS NOT NULL
                    THEN 'validation ' || howdah.tags_problem(i.tags)
                WHEN i.traceparent #>> '{}' !~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
                    THEN 'validation /traceparent must be a W3C traceparent'
                WHEN octet_length(i.payload::text) > 128 OR i.payload::text ~ '\\u|[eE][+]?[0-9]{3}'
                    THEN howdah.payload_problem(i.payload::text, bytes_max)
            END AS problem
        FROM item AS i
        LEFT JOIN howdah.queues AS q ON q.tenant_id = tenant AND q.name = i.queue #>> '{}'
        LEFT JOIN howdah.targets AS t ON t.tenant_id = tenant AND t.handler = i.handler #>> '{}'
    ),
    stored AS (
        INSERT INTO howdah.tasks (
            tenant_id, id, queue_id, target_id, priority, timeout_s, created_at, run_at, traceparent, retry, tags, http, payload
        )
        SELECT
            tenant, c.id, c.queue_id, c.target_id, c.priority, c.timeout_s, now, c.run_at, c.traceparent, c.retry, c.tags,
            c.http, c.payload
        FROM checked AS c
        WHERE c.problem IS NULL
        ORDER BY c.ordinal
        ON CONFLICT DO NOTHING
        RETURNING id, queue_id, target_id, priority, run_at
    ),
    armed AS (
        INSERT INTO howdah.runs (tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at)
        SELECT tenant, s.id, s.queue_id, s.target_id, s.priority, greatest(s.run_at, now), now, s.run_at
        FROM stored AS s
        RETURNING task_id, run_at
    )
    SELECT
        c.ordinal,
        c.id,
        a.task_id IS NOT NULL AND row_number() OVER (PARTITION BY c.id, c.problem ORDER BY c.ordinal) = 1,
        c.problem, c.queue_id, c.priority, a.run_at,
        c.run_at, now, c.timeout_in_force_s,
        CASE
            WHEN a.task_id IS NOT NULL
                THEN (howdah.retry_policy(c.queue_retry, c.retry) ->> 'max_attempts')::numeric::integer
        END
    FROM checked AS c
    LEFT JOIN armed AS a ON a.task_id = c.id
    ORDER BY c.ordinal;
END
$$;
COMMENT ON FUNCTION howdah.enqueue_rows(integer, json, json[]) IS 'Internal: what enqueue and the API share. Use howdah.enqueue or howdah.enqueue_many.';
