-- What is wrong with the edits of a replay, as "<code> <pointer> <what is allowed>"; NULL if nothing. They are checked
-- as the fields of a new task are, by the same code; what only shows together with the old task's fields is found when
-- the new one is stored.
CREATE OR REPLACE FUNCTION howdah.edits_problem(tenant_id integer, edits json)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant ALIAS FOR tenant_id;
    name_pattern constant text := '^[a-z0-9][a-z0-9_.-]{0,127}$';
    flaw constant text := howdah.item_flaw(edits);
    fields text[];
    other text;
BEGIN
    IF flaw IS NOT NULL THEN
        RETURN flaw;
    END IF;
    SELECT array_agg(k.key) INTO fields FROM json_object_keys(edits) AS k (key);
    SELECT f.name INTO other FROM unnest(fields) AS f (name) WHERE f.name NOT IN ('payload', 'handler', 'http') LIMIT 1;
    IF other IS NOT NULL THEN
        RETURN 'validation /' || other || ' cannot be edited; payload, handler and http can';
    ELSIF fields IS NULL THEN
        RETURN 'validation / must have payload, handler or http';
    ELSIF fields @> ARRAY['handler', 'http'] THEN
        RETURN 'validation /http excludes handler';
    ELSIF json_typeof(edits -> 'handler') <> 'string' OR edits ->> 'handler' !~ name_pattern THEN
        RETURN 'validation /handler must match ' || name_pattern;
    END IF;
    RETURN (
        SELECT i.problem
        FROM howdah.tenants AS t
        CROSS JOIN LATERAL howdah.read_items(
            json_build_array(jsonb_strip_nulls(jsonb_build_object(
                'queue', 'q',
                'handler', CASE WHEN edits -> 'http' IS NULL THEN coalesce(edits ->> 'handler', 'h') END,
                'http', edits -> 'http'
            ))),
            ARRAY[edits -> 'payload'], howdah.now(), NULL, NULL, t.payload_bytes_max
        ) AS i
        WHERE t.id = tenant
    );
END
$$;
COMMENT ON FUNCTION howdah.edits_problem(integer, json) IS 'Internal: what is wrong with the edits of a replay; NULL if nothing.';
