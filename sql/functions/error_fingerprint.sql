-- What errors of one kind have in common: 16 hexadecimal digits of the hash of type and message, in which numbers,
-- UUIDs, hexadecimal words and quoted strings count as equal. The first 300 characters of the message decide.
-- The first line of a message may be all that tells a cause, and what differs in it (an id, an address, a key) is
-- what the pattern takes out. Letters are compared without case, by the collation "C", so that every database agrees.
--
-- Computed when it is asked for: 16 us for a usual message, which pages and groups can afford and which
-- burying a task need not pay.
CREATE OR REPLACE FUNCTION howdah.error_fingerprint(error jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    varying_part constant text :=
        '"[^"]*"|''[^'']*''|`[^`]*`'
        '|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
        '|\m0x[0-9a-f]+\M|\m[0-9a-f]*[0-9][0-9a-f]*\M|\m[0-9a-f]{8,}\M'
        '|[0-9]+';
    message constant text := lower(left(coalesce(error ->> 'message', ''), 300) COLLATE "C");
BEGIN
    RETURN left(encode(sha256(convert_to(
        coalesce(error ->> 'type', '') || E'\n' || regexp_replace(message, varying_part, '?', 'g'), 'UTF8'
    )), 'hex'), 16);
END
$$;
COMMENT ON FUNCTION howdah.error_fingerprint(jsonb) IS 'Hash of an error''s type and message without what varies in it: equal for errors of one kind.';
