-- What is wrong with an HTTP target, as "<pointer> <what is allowed>"; NULL if nothing. The same rules as
-- core/addresses.py and core/callback_headers.py, by which the worker checks once more; which addresses
-- and ports may be dialled is not judged here: the API does on the URL, the worker on the resolved address.
CREATE OR REPLACE FUNCTION howdah.http_problem(http jsonb, has_payload boolean)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
    header record;
    header_names text[] := '{}';
    header_count integer := 0;
    header_length integer := 0;
    status jsonb;
BEGIN
    IF jsonb_typeof(http) <> 'object' THEN
        RETURN '/http must be an object';
    END IF;
    FOR field IN SELECT k.key FROM jsonb_object_keys(http) AS k (key) LOOP
        IF field <> ALL (ARRAY[
            'url', 'method', 'headers', 'body', 'content_type', 'success_statuses', 'mode', 'callback_timeout',
            'heartbeat_timeout'
        ]) THEN
            RETURN format('/http/%s is not a field of an HTTP target', field);
        END IF;
    END LOOP;
    IF coalesce(jsonb_typeof(http -> 'url'), '') <> 'string' OR NOT howdah.is_callback_url(http ->> 'url') THEN
        RETURN '/http/url must be an http or https URL of at most 2048 ASCII characters, with a plain host name or '
            || 'address, port 80, 443 or above 1023, without user or fragment';
    END IF;
    IF http ? 'method' AND coalesce(http ->> 'method', '') NOT IN ('DELETE', 'GET', 'HEAD', 'PATCH', 'POST', 'PUT') THEN
        RETURN '/http/method must be DELETE, GET, HEAD, PATCH, POST or PUT';
    END IF;
    IF http ? 'headers' THEN
        IF jsonb_typeof(http -> 'headers') <> 'object' THEN
            RETURN '/http/headers must be an object';
        END IF;
        FOR header IN SELECT h.key, h.value FROM jsonb_each(http -> 'headers') AS h (key, value) LOOP
            header_count := header_count + 1;
            header_length := header_length + length(header.key) + length(header.value #>> '{}') + 4;
            IF header.key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,128}$' THEN
                RETURN '/http/headers has a name that is not an HTTP token of at most 128 characters';
            ELSIF lower(header.key) IN ('connection', 'content-length', 'expect', 'host', 'keep-alive', 'te', 'trailer',
                'transfer-encoding', 'upgrade', 'accept-encoding', 'content-type', 'traceparent', 'tracestate', 'user-agent')
                OR lower(header.key) ~ '^(webhook|howdah|proxy)-'
            THEN
                RETURN format('/http/headers/%s is set by Howdah', header.key);
            ELSIF jsonb_typeof(header.value) <> 'string' OR header.value #>> '{}' !~ '^([!-~]([\t -~]*[!-~])?)?$' THEN
                RETURN format('/http/headers/%s must be printable ASCII without white space at either end', header.key);
            ELSIF lower(header.key) = ANY (header_names) THEN
                RETURN format('/http/headers/%s is given twice, in different letter case', header.key);
            ELSIF header_count > 64 OR header_length > 6144 THEN
                RETURN '/http/headers must have at most 64 headers and 6144 characters in all';
            END IF;
            header_names := header_names || lower(header.key);
        END LOOP;
    END IF;
    IF http ? 'body' AND (jsonb_typeof(http -> 'body') <> 'string' OR has_payload) THEN
        RETURN '/http/body must be a string, and excludes payload';
    ELSIF (http ? 'content_type') AND (NOT http ? 'body' OR coalesce(http ->> 'content_type', '') !~ '^[ -~]{1,255}$') THEN
        RETURN '/http/content_type must be the media type of http.body';
    END IF;
    IF http ? 'success_statuses' THEN
        IF jsonb_typeof(http -> 'success_statuses') <> 'array' OR jsonb_array_length(http -> 'success_statuses') NOT BETWEEN 1 AND 100 THEN
            RETURN '/http/success_statuses must be an array of 1 to 100 statuses';
        END IF;
        FOR status IN SELECT s.value FROM jsonb_array_elements(http -> 'success_statuses') AS s (value) LOOP
            -- The worker reads integers: 200.0 would end as a task that nobody can read.
            IF jsonb_typeof(status) <> 'number' OR status #>> '{}' !~ '^[1-5][0-9][0-9]$' THEN
                RETURN '/http/success_statuses must hold whole numbers from 100 to 599';
            END IF;
        END LOOP;
    END IF;
    IF http ? 'mode' AND coalesce(http ->> 'mode', '') NOT IN ('sync', 'async') THEN
        RETURN '/http/mode must be sync or async';
    END IF;
    FOREACH field IN ARRAY ARRAY['callback_timeout', 'heartbeat_timeout'] LOOP
        IF NOT http ? field THEN
            CONTINUE;
        ELSIF jsonb_typeof(http -> field) <> 'string'
            OR coalesce(howdah.duration_s(http ->> field), 0) NOT BETWEEN 1 AND 604800
        THEN
            RETURN format('/http/%s must be a duration from 1 second to 7 days', field);
        ELSIF coalesce(http ->> 'mode', 'sync') <> 'async' THEN
            RETURN format('/http/%s needs the mode async', field);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.http_problem(jsonb, boolean) IS 'What is wrong with an HTTP target; NULL if nothing.';
