-- What is wrong with the form of an item of enqueue_many: not an object, or a field that tasks do not
-- have. NULL if nothing; the values are checked by howdah.enqueue_rows.
CREATE OR REPLACE FUNCTION howdah.item_flaw(item json)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
BEGIN
    IF json_typeof(item) <> 'object' THEN
        RETURN 'validation / must be an object';
    END IF;
    SELECT k.key INTO field
    FROM json_object_keys(item) AS k (key)
    WHERE k.key <> ALL (ARRAY[
        'id', 'queue', 'handler', 'http', 'payload', 'priority', 'run_at', 'delay', 'timeout', 'retry', 'tags', 'traceparent'
    ])
    LIMIT 1;
    RETURN 'validation /' || field || ' is not a field of a task';
END
$$;
COMMENT ON FUNCTION howdah.item_flaw(json) IS 'Internal: what is wrong with the form of an item; NULL if nothing.';
