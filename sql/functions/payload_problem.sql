-- What is wrong with a payload, as "<code> <pointer> <what is allowed>"; NULL if nothing. jsonb refuses
-- \u0000 and lone surrogates, which PostgreSQL's json accepts: only texts with such escapes pay for the
-- cast. Depth is walked only where there are enough brackets to be too deep.
CREATE OR REPLACE FUNCTION howdah.payload_problem(payload text, bytes_max integer)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bracket text;
    depth integer := 0;
BEGIN
    IF octet_length(payload) > bytes_max THEN
        RETURN format('payload_too_large /payload must be at most %s bytes', bytes_max);
    END IF;
    IF payload ~ '\\u(0000|[dD][89a-fA-F])' THEN
        BEGIN
            PERFORM payload::jsonb;
        EXCEPTION
            WHEN untranslatable_character THEN
                RETURN 'validation /payload must not contain \u0000';
            WHEN invalid_text_representation THEN
                RETURN 'validation /payload must not contain a lone surrogate';
            WHEN numeric_value_out_of_range THEN
                NULL;
        END;
    END IF;
    IF length(payload) - length(translate(payload, '[{', '')) > 64 THEN
        FOR bracket IN
            SELECT m.found[1]
            FROM regexp_matches(regexp_replace(payload, '"(?:[^"\\]|\\.)*"', '', 'g'), '([\[\]{}])', 'g') AS m (found)
        LOOP
            depth := depth + CASE WHEN bracket IN ('[', '{') THEN 1 ELSE -1 END;
            IF depth > 64 THEN
                RETURN 'validation /payload must not be nested deeper than 64 levels';
            END IF;
        END LOOP;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.payload_problem(text, integer) IS 'What is wrong with a payload; NULL if nothing.';
