-- Tasks out of an array of JSON objects, if all of them have a queue, a handler, perhaps a payload and
-- nothing else: what howdah.store_plain takes. No row if any has another field or is no object, or if any
-- text could be one that PostgreSQL cannot hold, which fails every function that looks at fields.
CREATE OR REPLACE FUNCTION howdah.read_plain(items json)
RETURNS TABLE (queues text[], handlers text[], kinds integer[], payloads json[])
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF position('\u' IN items::text) > 0 AND items::text ~ '\\u(0000|[dD][89a-fA-F])' THEN
        RETURN;
    END IF;
    -- One look at all keys; what is no object counts as one with a key that tasks do not have. More than one queue
    -- and one handler for each item are keys that come twice, of which the first may be the one to refuse.
    IF NOT (
        SELECT
            coalesce(bool_and(f.name IN ('queue', 'handler', 'payload')), false)
            AND count(*) FILTER (WHERE f.name <> 'payload') = 2 * json_array_length(items)
        FROM (
            SELECT json_object_keys(CASE json_typeof(i.value) WHEN 'object' THEN i.value ELSE '{"": 0}' END) AS name
            FROM json_array_elements(items) AS i (value)
        ) AS f
    ) THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH item AS MATERIALIZED (
        -- Names are compared and sorted as they are written, with their quotation marks. Other functions than
        -- -> would write a payload that is a text anew.
        SELECT
            x.ordinal, x.queue, x.handler, x.payload,
            dense_rank() OVER (ORDER BY x.queue::text COLLATE "C", x.handler::text COLLATE "C")::integer AS kind
        FROM (
            SELECT i.ordinal, i.value -> 'queue' AS queue, i.value -> 'handler' AS handler, i.value -> 'payload' AS payload
            FROM json_array_elements(items) WITH ORDINALITY AS i (value, ordinal)
        ) AS x
    ),
    name AS (
        SELECT DISTINCT ON (i.kind) i.kind, i.queue, i.handler FROM item AS i ORDER BY i.kind
    )
    SELECT
        (
            SELECT array_agg(CASE json_typeof(n.queue) WHEN 'string' THEN n.queue #>> '{}' END ORDER BY n.kind)
            FROM name AS n
        ),
        (
            SELECT array_agg(CASE json_typeof(n.handler) WHEN 'string' THEN n.handler #>> '{}' END ORDER BY n.kind)
            FROM name AS n
        ),
        array_agg(i.kind ORDER BY i.ordinal),
        array_agg(CASE WHEN json_typeof(i.payload) <> 'null' THEN i.payload END ORDER BY i.ordinal)
    FROM item AS i;
END
$$;
COMMENT ON FUNCTION howdah.read_plain(json) IS 'Internal: tasks out of JSON, if they have no field but queue, handler and payload.';
