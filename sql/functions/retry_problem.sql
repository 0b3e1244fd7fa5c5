-- What is wrong with a retry policy, as "<pointer> <what is allowed>"; NULL if nothing. jsonb keeps 4.0
-- apart from 4, and who reads max_attempts as an integer fails on it.
CREATE OR REPLACE FUNCTION howdah.retry_problem(policy jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
    seconds double precision;
    delay jsonb;
    item jsonb;
    position integer := 0;
BEGIN
    IF jsonb_typeof(policy) <> 'object' THEN
        RETURN '/retry must be an object';
    END IF;
    FOR field IN SELECT k.key FROM jsonb_object_keys(policy) AS k (key) LOOP
        IF field <> ALL (ARRAY[
            'max_attempts', 'max_age', 'backoff', 'initial', 'max', 'factor', 'jitter', 'list', 'statuses', 'errors'
        ]) THEN
            RETURN format('/retry/%s is not a field of a retry policy', field);
        END IF;
    END LOOP;
    FOREACH field IN ARRAY ARRAY['max_age', 'initial', 'max'] LOOP
        CONTINUE WHEN NOT policy ? field;
        seconds := CASE WHEN jsonb_typeof(policy -> field) = 'string' THEN howdah.duration_s(policy ->> field) END;
        IF seconds IS NULL THEN
            RETURN format('/retry/%s must be a duration such as "30s" or "PT5M"', field);
        ELSIF field = 'max_age' AND (seconds < 1 OR seconds > 31622400) THEN
            RETURN '/retry/max_age must be from 1 second to 366 days';
        ELSIF field <> 'max_age' AND seconds > 86400 THEN
            RETURN format('/retry/%s must be at most 24 hours', field);
        END IF;
    END LOOP;
    IF policy ? 'max_attempts' AND (
        jsonb_typeof(policy -> 'max_attempts') <> 'number'
        OR policy ->> 'max_attempts' !~ '^[0-9]{1,4}$'
        OR (policy ->> 'max_attempts')::integer NOT BETWEEN 1 AND 1000
    ) THEN
        RETURN '/retry/max_attempts must be a whole number from 1 to 1000';
    END IF;
    IF policy ? 'backoff' AND coalesce(policy ->> 'backoff', '') NOT IN ('exponential', 'linear', 'fixed', 'list') THEN
        RETURN '/retry/backoff must be exponential, linear, fixed or list';
    END IF;
    IF policy ? 'factor' AND (
        jsonb_typeof(policy -> 'factor') <> 'number' OR (policy ->> 'factor')::numeric NOT BETWEEN 1 AND 100
    ) THEN
        RETURN '/retry/factor must be a number from 1 to 100';
    END IF;
    IF policy ? 'jitter' AND (
        jsonb_typeof(policy -> 'jitter') <> 'number' OR (policy ->> 'jitter')::numeric NOT BETWEEN 0 AND 1
    ) THEN
        RETURN '/retry/jitter must be a number from 0 to 1';
    END IF;
    IF (policy ->> 'backoff' IS NOT DISTINCT FROM 'list') <> (policy ? 'list') THEN
        RETURN '/retry/list must be given exactly when backoff is list';
    END IF;
    IF policy ? 'list' THEN
        IF jsonb_typeof(policy -> 'list') <> 'array' OR jsonb_array_length(policy -> 'list') NOT BETWEEN 1 AND 100 THEN
            RETURN '/retry/list must be an array of 1 to 100 durations';
        END IF;
        FOR delay IN SELECT d.value FROM jsonb_array_elements(policy -> 'list') AS d (value) LOOP
            seconds := CASE WHEN jsonb_typeof(delay) = 'string' THEN howdah.duration_s(delay #>> '{}') END;
            IF seconds IS NULL OR seconds > 86400 THEN
                RETURN format('/retry/list/%s must be a duration of at most 24 hours', position);
            END IF;
            position := position + 1;
        END LOOP;
    END IF;
    FOREACH field IN ARRAY ARRAY['statuses', 'errors'] LOOP
        CONTINUE WHEN NOT policy ? field;
        IF jsonb_typeof(policy -> field) <> 'array' OR jsonb_array_length(policy -> field) NOT BETWEEN 1 AND 100 THEN
            RETURN format('/retry/%s must be an array of 1 to 100 items', field);
        END IF;
        position := 0;
        FOR item IN SELECT i.value FROM jsonb_array_elements(policy -> field) AS i (value) LOOP
            IF field = 'statuses' AND (jsonb_typeof(item) <> 'number' OR item #>> '{}' !~ '^[1-5][0-9]{2}$') THEN
                RETURN format('/retry/statuses/%s must be a whole number from 100 to 599', position);
            ELSIF field = 'errors' AND (
                jsonb_typeof(item) <> 'string' OR length(item #>> '{}') NOT BETWEEN 1 AND 200
            ) THEN
                RETURN format('/retry/errors/%s must be a text of 1 to 200 characters', position);
            END IF;
            position := position + 1;
        END LOOP;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.retry_problem(jsonb) IS 'What is wrong with a retry policy; NULL if nothing.';
