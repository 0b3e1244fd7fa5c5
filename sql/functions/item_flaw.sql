-- What is wrong with the form of an item of enqueue_many: not an object, text that PostgreSQL cannot
-- hold, a field that tasks do not have, or null in a field other than payload. NULL if nothing; the
-- values are checked by howdah.enqueue_rows.
--
-- Every json function that looks at fields fails on \u0000 and lone surrogates, wherever they are. So they
-- are looked for first, and named as the payload's if no other field has any escape.
CREATE OR REPLACE FUNCTION howdah.item_flaw(item json)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
    harmless json;
BEGIN
    IF json_typeof(item) <> 'object' THEN
        RETURN 'validation / must be an object';
    END IF;
    IF position('\u' IN item::text) > 0 AND item::text ~ '\\u(0000|[dD][89a-fA-F])' THEN
        BEGIN
            PERFORM json_strip_nulls(item);
        EXCEPTION
            WHEN untranslatable_character OR invalid_text_representation THEN
                harmless := regexp_replace(item::text, '\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})', '\\u0001', 'g')::json;
                PERFORM 1
                FROM json_each(harmless) AS f (key, value)
                WHERE f.key <> 'payload' AND position('\u' IN to_json(f.key)::text || f.value::text) > 0;
                RETURN 'validation ' || CASE WHEN FOUND THEN '/' ELSE '/payload' END
                    || ' must not contain \u0000 or a lone surrogate';
        END;
    END IF;
    SELECT k.key INTO field
    FROM json_object_keys(item) AS k (key)
    WHERE k.key <> ALL (ARRAY[
        'id', 'queue', 'handler', 'http', 'payload', 'priority', 'run_at', 'delay', 'timeout', 'retry', 'tags', 'traceparent'
    ])
    LIMIT 1;
    IF field IS NOT NULL THEN
        RETURN 'validation /' || field || ' is not a field of a task';
    END IF;
    SELECT f.key INTO field
    FROM json_each(item) AS f (key, value)
    WHERE f.key NOT IN ('payload', 'queue') AND json_typeof(f.value) = 'null'
    LIMIT 1;
    RETURN 'validation /' || field || ' must not be null; leave it out';
END
$$;
COMMENT ON FUNCTION howdah.item_flaw(json) IS 'Internal: what is wrong with the form of an item; NULL if nothing.';
