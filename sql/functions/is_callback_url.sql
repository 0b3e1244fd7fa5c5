-- Whether a text is a URL that a callback may have, as far as its spelling tells: strict, so that no other
-- parser can read it another way (no user, no fragment, no shortened or octal addresses). Its reference
-- is check_url in core/addresses.py.
CREATE OR REPLACE FUNCTION howdah.is_callback_url(url text)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part text[];
    host text;
    port integer;
BEGIN
    IF length(url) > 2048 OR url ~ '[^]A-Za-z0-9._~:/?[@!$&''()*+,;=%|-]' THEN
        RETURN false;
    END IF;
    part := regexp_match(
        url, '^https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?(?:/[^?#]*)?(?:\?[^#]*)?$', 'i'
    );
    IF part IS NULL THEN
        RETURN false;
    END IF;
    port := part[2]::integer;
    IF port NOT IN (80, 443) AND (port < 1024 OR port > 65535) THEN
        RETURN false;
    END IF;
    IF part[1] LIKE '[%' THEN
        host := btrim(part[1], '[]');
        PERFORM host::inet;
        RETURN position(':' IN host) > 0;
    END IF;
    host := regexp_replace(part[1], '\.$', '');
    IF host ~* '(^|\.)([0-9]+|0x[0-9a-f]*)$' THEN
        RETURN part[1] ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(?=[0-9])|$)){4}$';
    END IF;
    RETURN length(host) BETWEEN 1 AND 253 AND host !~ '^\.|\.\.|\.$|[^.]{64}';
EXCEPTION
    WHEN invalid_text_representation THEN
        RETURN false;
END
$$;
COMMENT ON FUNCTION howdah.is_callback_url(text) IS 'Internal: whether a text is spelt like the URL of a callback.';
