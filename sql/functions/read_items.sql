-- Tasks out of an array of JSON objects, as howdah.enqueue_rows takes them, with what is wrong with each so
-- far as that can be told without looking at a table. Ids are to lie in [id_low, id_high); one that was not
-- given is NULL. It is one query without settings of its own so that the planner merges it into its callers':
-- as a function it would be planned anew at each call.
-- Its columns have changed, which CREATE OR REPLACE refuses.
DROP FUNCTION IF EXISTS howdah.read_items(json, json[], timestamptz, uuid, uuid, integer);
CREATE OR REPLACE FUNCTION howdah.read_items(
    items json, payloads json[], now timestamptz, id_low uuid, id_high uuid, bytes_max integer
)
RETURNS TABLE (
    ordinal integer, id uuid, queue text, handler text, priority smallint, run_at timestamptz, expires_at timestamptz,
    timeout_s double precision, traceparent text, retry jsonb, flow jsonb, tags jsonb, http jsonb, follow_ups json,
    payload json, problem text
)
LANGUAGE sql STABLE
AS $$
    WITH item AS MATERIALIZED (
        SELECT
            x.ordinal::integer AS ordinal,
            x.id IS NOT NULL AS has_id,
            CASE
                WHEN x.id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
                    AND x.id::uuid >= id_low
                    AND x.id::uuid < id_high
                    THEN x.id::uuid
            END AS id,
            x.queue, x.handler, x.priority, x.http, x.retry, x.flow, x.tags, x.dedup, x.traceparent, x.batch, x.on_success, x.on_failure,
            x.run_at AS run_at_given,
            x.delay AS delay_given,
            x.expires_at AS expires_at_given,
            x.expires_in AS expires_in_given,
            x.timeout AS timeout_given,
            CASE WHEN json_typeof(x.run_at) = 'string' THEN howdah.instant(x.run_at #>> '{}') END AS run_at,
            CASE WHEN json_typeof(x.delay) = 'string' THEN howdah.duration_s(x.delay #>> '{}') END AS delay_s,
            CASE WHEN json_typeof(x.expires_at) = 'string' THEN howdah.instant(x.expires_at #>> '{}') END AS expires_at,
            CASE WHEN json_typeof(x.expires_in) = 'string' THEN howdah.duration_s(x.expires_in #>> '{}') END AS expires_in_s,
            CASE WHEN json_typeof(x.timeout) = 'string' THEN howdah.duration_s(x.timeout #>> '{}') END AS timeout_s,
            -- Here, where each is asked once: asked twice, those of follow-ups of follow-ups were asked 2^n times.
            coalesce(
                CASE WHEN x.on_success IS NOT NULL THEN howdah.follow_up_problem(x.on_success, '/on_success', bytes_max) END,
                CASE WHEN x.on_failure IS NOT NULL THEN howdah.follow_up_problem(x.on_failure, '/on_failure', bytes_max) END
            ) AS follow_up_problem,
            CASE WHEN json_typeof(payloads[x.ordinal]) <> 'null' THEN payloads[x.ordinal] END AS payload
        FROM ROWS FROM (
            json_to_recordset(items) AS (
                id text, queue json, handler json, priority json, http jsonb, retry jsonb, flow jsonb, tags jsonb,
                dedup jsonb, traceparent json, run_at json, delay json, expires_at json, expires_in json, timeout json,
                batch json, on_success json, on_failure json
            )
        ) WITH ORDINALITY AS x (
            id, queue, handler, priority, http, retry, flow, tags, dedup, traceparent, run_at, delay,
            expires_at, expires_in, timeout, batch, on_success, on_failure, ordinal
        )
    )
    SELECT
        i.ordinal, i.id,
        i.queue #>> '{}' AS queue,
        i.handler #>> '{}' AS handler,
        CASE coalesce(i.priority #>> '{}', 'normal')
            WHEN 'critical' THEN 3 WHEN 'high' THEN 2 WHEN 'normal' THEN 1 ELSE 0
        END::smallint AS priority,
        due.at AS run_at,
        coalesce(
            i.expires_at,
            -- least() takes NULL for nothing at all.
            greatest(due.at, now) + make_interval(secs => CASE WHEN i.expires_in_s <= 31622400 THEN i.expires_in_s END)
        ) AS expires_at,
        i.timeout_s,
        i.traceparent #>> '{}' AS traceparent,
        i.retry, i.flow, i.tags, i.http,
        CASE
            WHEN i.on_failure IS NULL AND i.on_success IS NULL THEN NULL
            WHEN i.on_failure IS NULL THEN json_build_object('on_success', i.on_success)
            WHEN i.on_success IS NULL THEN json_build_object('on_failure', i.on_failure)
            ELSE json_build_object('on_success', i.on_success, 'on_failure', i.on_failure)
        END AS follow_ups,
        i.payload,
        CASE
            WHEN i.has_id AND i.id IS NULL THEN 'validation /id must be a UUIDv7 of the last hour'
            WHEN i.queue IS NULL OR json_typeof(i.queue) <> 'string'
                THEN 'validation /queue must match ^[a-z0-9][a-z0-9_.-]{0,127}$'
            WHEN (i.handler IS NULL) = (i.http IS NULL)
                THEN 'validation /handler exactly one of handler and http must be given'
            WHEN json_typeof(i.handler) <> 'string'
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
            WHEN i.expires_at_given IS NOT NULL AND i.expires_in_given IS NOT NULL
                THEN 'validation /expires_in excludes expires_at'
            WHEN i.expires_at_given IS NOT NULL AND i.expires_at IS NULL
                THEN 'validation /expires_at must be an RFC 3339 timestamp with an offset'
            WHEN i.expires_at <= greatest(due.at, now)
                THEN 'validation /expires_at must be later than now and than run_at'
            WHEN i.expires_at > now + interval '366 days'
                THEN 'validation /expires_at must be at most 366 days ahead'
            WHEN i.expires_in_given IS NOT NULL AND (i.expires_in_s IS NULL OR i.expires_in_s NOT BETWEEN 0.001 AND 31622400)
                THEN 'validation /expires_in must be a duration from 1 millisecond to 366 days'
            WHEN i.timeout_given IS NOT NULL AND (i.timeout_s IS NULL OR i.timeout_s NOT BETWEEN 0.1 AND 86400)
                THEN 'validation /timeout must be a duration from 0.1 seconds to 24 hours'
            WHEN i.http IS NOT NULL AND howdah.http_problem(i.http, i.payload IS NOT NULL) IS NOT NULL
                THEN 'validation ' || howdah.http_problem(i.http, i.payload IS NOT NULL)
            WHEN i.retry IS NOT NULL AND howdah.retry_problem(i.retry) IS NOT NULL
                THEN 'validation ' || howdah.retry_problem(i.retry)
            WHEN i.flow IS NOT NULL AND howdah.flow_problem(i.flow) IS NOT NULL
                THEN 'validation ' || howdah.flow_problem(i.flow)
            WHEN i.tags IS NOT NULL AND howdah.tags_problem(i.tags) IS NOT NULL
                THEN 'validation ' || howdah.tags_problem(i.tags)
            WHEN i.dedup IS NOT NULL AND howdah.dedup_problem(i.dedup) IS NOT NULL
                THEN 'validation ' || howdah.dedup_problem(i.dedup)
            WHEN i.traceparent #>> '{}' !~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
                THEN 'validation /traceparent must be a W3C traceparent'
            WHEN json_typeof(i.batch) <> 'string'
                OR i.batch #>> '{}' !~ '^(parent|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$'
                THEN 'validation /batch must be the id of a batch, a lower-case UUID, or of what a task enqueues parent'
            WHEN i.follow_up_problem IS NOT NULL
                THEN i.follow_up_problem
            ELSE howdah.payload_flaw(i.payload::text, bytes_max)
        END AS problem
    FROM item AS i
    CROSS JOIN LATERAL (
        SELECT coalesce(i.run_at, now + make_interval(secs => least(coalesce(i.delay_s, 0), 31622400))) AS at
    ) AS due
$$;
COMMENT ON FUNCTION howdah.read_items(json, json[], timestamptz, uuid, uuid, integer) IS 'Internal: tasks out of JSON, with what is wrong with each.';
