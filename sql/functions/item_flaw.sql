-- What is wrong with the form of an item of enqueue_many: not an object, text that PostgreSQL cannot
-- hold, a field that tasks do not have, null in a field other than payload, or a number that jsonb cannot
-- hold in a field that is kept as such. NULL if nothing; the values are checked by howdah.read_items.
--
-- Every json function that looks at fields fails on \u0000 and lone surrogates, wherever they are. So they
-- are looked for first, and named as the payload's if no other field has any escape.
CREATE OR REPLACE FUNCTION howdah.item_flaw(item json)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields constant text[] := ARRAY[
        'id', 'queue', 'handler', 'http', 'payload', 'priority', 'run_at', 'delay', 'expires_at', 'expires_in',
        'timeout', 'retry', 'flow', 'tags', 'dedup', 'traceparent', 'batch', 'on_success', 'on_failure'
    ];
    field text;
    harmless json;
    member record;
    -- jsonb keeps numbers as numeric, which has at most 131,072 digits before the point and 16,383 behind it.
    long_exponent constant text := '[eE][+-]?[0-9]{5}';
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
    FOR member IN
        SELECT f.key, f.value
        FROM json_each(item) AS f (key, value)
        WHERE f.key <> ALL (fields)
            OR (f.key NOT IN ('payload', 'queue') AND json_typeof(f.value) = 'null')
            OR (
                f.key IN ('http', 'retry', 'flow', 'tags', 'dedup')
                AND (length(f.value::text) > 100000 OR f.value::text ~ long_exponent)
            )
    LOOP
        IF member.key <> ALL (fields) THEN
            RETURN 'validation /' || member.key || ' is not a field of a task';
        END IF;
        IF json_typeof(member.value) = 'null' THEN
            RETURN 'validation /' || member.key || ' must not be null; leave it out';
        END IF;
        BEGIN
            PERFORM member.value::jsonb;
        EXCEPTION
            WHEN numeric_value_out_of_range THEN
                SELECT '/' || n.key INTO field
                FROM json_each(CASE WHEN json_typeof(member.value) = 'object' THEN member.value END) AS n (key, value)
                WHERE json_typeof(n.value) = 'number' AND (length(n.value::text) > 100000 OR n.value::text ~ long_exponent)
                LIMIT 1;
                RETURN 'validation /' || member.key || coalesce(field, '') || ' has a number that is too large';
        END;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.item_flaw(json) IS 'Internal: what is wrong with the form of an item; NULL if nothing.';
