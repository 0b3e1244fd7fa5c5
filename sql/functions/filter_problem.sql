-- What is wrong with the filter of a bulk operation, as "<code> <pointer> <what is allowed>"; NULL if nothing.
CREATE OR REPLACE FUNCTION howdah.filter_problem(kind text, filter jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields constant text[] := CASE
        WHEN kind LIKE '%dead_letters' THEN ARRAY['tags', 'handler', 'batch', 'error_type', 'fingerprint', 'reason', 'dead_after', 'dead_before']
        WHEN kind = 'purge_queue' THEN ARRAY['tags', 'handler', 'batch', 'priority', 'older_than']
        ELSE ARRAY['tags', 'handler', 'batch', 'priority', 'older_than', 'state']
    END;
    field record;
    problem text;
BEGIN
    IF jsonb_typeof(filter) IS DISTINCT FROM 'object' THEN
        RETURN 'validation / must be an object';
    END IF;
    FOR field IN SELECT f.key, f.value, f.value #>> '{}' AS text FROM jsonb_each(filter) AS f (key, value) LOOP
        IF field.key <> ALL (fields) THEN
            -- Its name may be anything, also very long.
            RETURN format(
                'validation /%s is no field of this filter; there are: %s', left(field.key, 128), array_to_string(fields, ', ')
            );
        ELSIF field.key = 'tags' THEN
            problem := 'validation ' || howdah.tags_problem(field.value);
            IF problem IS NOT NULL THEN
                RETURN problem;
            END IF;
            CONTINUE;
        ELSIF jsonb_typeof(field.value) <> 'string' THEN
            RETURN format('validation /%s must be a string', field.key);
        END IF;
        problem := CASE field.key
            WHEN 'handler' THEN
                CASE WHEN field.text !~ '^[a-z0-9][a-z0-9_.-]{0,127}$' THEN 'must match ^[a-z0-9][a-z0-9_.-]{0,127}$' END
            WHEN 'batch' THEN
                CASE
                    WHEN field.text !~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                        THEN 'must be the id of a batch, a lower-case UUID'
                END
            WHEN 'error_type' THEN
                CASE WHEN length(field.text) NOT BETWEEN 1 AND 200 THEN 'must have 1 to 200 characters' END
            WHEN 'fingerprint' THEN
                CASE WHEN field.text !~ '^[0-9a-f]{16}$' THEN 'must be 16 hexadecimal digits' END
            WHEN 'reason' THEN
                CASE
                    WHEN field.text NOT IN ('attempts', 'age', 'crashes', 'not_retryable')
                        THEN 'must be attempts, age, crashes or not_retryable'
                END
            WHEN 'priority' THEN
                CASE
                    WHEN field.text NOT IN ('critical', 'high', 'normal', 'low') THEN 'must be critical, high, normal or low'
                END
            WHEN 'state' THEN
                CASE
                    WHEN field.text NOT IN ('scheduled', 'queued', 'retrying', 'blocked', 'running')
                        THEN 'must be scheduled, queued, retrying, blocked or running'
                END
            WHEN 'older_than' THEN
                CASE
                    WHEN coalesce(howdah.duration_s(field.text) > 31622400, true) THEN 'must be a duration of at most 366 days'
                END
            ELSE CASE WHEN howdah.instant(field.text) IS NULL THEN 'must be an RFC 3339 timestamp with an offset' END
        END;
        IF problem IS NOT NULL THEN
            RETURN format('validation /%s %s', field.key, problem);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.filter_problem(text, jsonb) IS 'Internal: what is wrong with the filter of a bulk operation; NULL if nothing.';
