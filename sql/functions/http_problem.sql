-- What is wrong with an HTTP target, as "<pointer> <what is allowed>"; NULL if nothing. Which addresses
-- may be dialled is decided by the worker, on the resolved address.
CREATE OR REPLACE FUNCTION howdah.http_problem(http jsonb, has_payload boolean)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
    header record;
    status jsonb;
BEGIN
    IF jsonb_typeof(http) <> 'object' THEN
        RETURN '/http must be an object';
    END IF;
    FOR field IN SELECT k.key FROM jsonb_object_keys(http) AS k (key) LOOP
        IF field <> ALL (ARRAY['url', 'method', 'headers', 'body', 'content_type', 'success_statuses']) THEN
            RETURN format('/http/%s is not a field of an HTTP target', field);
        END IF;
    END LOOP;
    IF coalesce(jsonb_typeof(http -> 'url'), '') <> 'string' OR length(http ->> 'url') > 2048
        OR http ->> 'url' !~* '^https?://[^/?#@\s\\]+([/?][!-~]*)?$' OR http ->> 'url' ~ '[#\\<>"{}|^`]|[^!-~]'
    THEN
        RETURN '/http/url must be an http or https URL of at most 2048 printable ASCII characters, without user or fragment';
    END IF;
    IF http ? 'method' AND coalesce(http ->> 'method', '') NOT IN ('GET', 'POST', 'PUT', 'PATCH', 'DELETE') THEN
        RETURN '/http/method must be GET, POST, PUT, PATCH or DELETE';
    END IF;
    IF http ? 'headers' THEN
        IF jsonb_typeof(http -> 'headers') <> 'object' OR length(http ->> 'headers') > 16384 THEN
            RETURN '/http/headers must be an object of at most 16 KiB';
        END IF;
        FOR header IN SELECT h.key, h.value FROM jsonb_each(http -> 'headers') AS h (key, value) LOOP
            IF header.key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,128}$' THEN
                RETURN '/http/headers has a name that is not an HTTP token';
            ELSIF lower(header.key) IN ('host', 'content-length', 'content-type', 'transfer-encoding', 'connection',
                'keep-alive', 'proxy-connection', 'te', 'trailer', 'upgrade', 'expect', 'accept-encoding', 'traceparent')
                OR lower(header.key) LIKE 'webhook-%' OR lower(header.key) LIKE 'howdah-%' OR lower(header.key) LIKE 'proxy-%'
            THEN
                RETURN format('/http/headers/%s is reserved', header.key);
            ELSIF jsonb_typeof(header.value) <> 'string' OR header.value #>> '{}' !~ '^[ -~\t]*$' THEN
                RETURN format('/http/headers/%s must be a string of printable ASCII', header.key);
            END IF;
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
            IF jsonb_typeof(status) <> 'number' OR status #>> '{}' !~ '^[1-5][0-9][0-9]$' THEN
                RETURN '/http/success_statuses must hold numbers from 100 to 599';
            END IF;
        END LOOP;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.http_problem(jsonb, boolean) IS 'What is wrong with an HTTP target; NULL if nothing.';
