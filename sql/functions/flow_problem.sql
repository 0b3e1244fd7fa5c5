-- What is wrong with the flow of a task, {"key": "customer-42", "concurrency": 1, "rate": {…}}, as "<pointer> <what is
-- allowed>"; NULL if nothing.
CREATE OR REPLACE FUNCTION howdah.flow_problem(flow jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
BEGIN
    IF jsonb_typeof(flow) <> 'object' THEN
        RETURN '/flow must be an object';
    END IF;
    FOR field IN SELECT k.key FROM jsonb_object_keys(flow) AS k (key) LOOP
        IF field <> ALL (ARRAY['key', 'concurrency', 'rate']) THEN
            RETURN format('/flow/%s is not a field of a flow', field);
        END IF;
    END LOOP;
    IF NOT flow ? 'key'
        OR jsonb_typeof(flow -> 'key') <> 'string'
        OR length(flow ->> 'key') NOT BETWEEN 1 AND 255
        OR flow ->> 'key' ~ '[\u0001-\u001f\u007f]'
    THEN
        RETURN '/flow/key must be a text of 1 to 255 characters, none of them a control character';
    END IF;
    IF flow ? 'concurrency' AND (
        jsonb_typeof(flow -> 'concurrency') <> 'number'
        OR flow ->> 'concurrency' !~ '^[0-9]{1,7}$'
        OR (flow ->> 'concurrency')::integer NOT BETWEEN 1 AND 1000000
    ) THEN
        RETURN '/flow/concurrency must be a whole number from 1 to 1000000';
    END IF;
    IF flow ? 'rate' THEN
        RETURN howdah.rate_problem(flow -> 'rate', '/flow/rate');
    ELSIF NOT flow ? 'concurrency' THEN
        RETURN '/flow must have concurrency, rate or both';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.flow_problem(jsonb) IS 'What is wrong with the flow of a task; NULL if nothing.';
