-- What is wrong with a payload, as "<code> <pointer> <what is allowed>"; NULL if nothing. PostgreSQL's
-- json accepts \u0000 and lone surrogates until somebody reads the string: json_strip_nulls reads all of
-- them and, unlike a cast to jsonb, is not stopped by a number that is too large. Only texts with such
-- escapes pay for it, and only texts with long numbers for the check that a double can hold them: most
-- readers of JSON fail on 1e999, or read infinity. Depth is measured only where there are enough brackets to be too deep: each pass
-- takes the innermost pairs away, so wide payloads need few passes (a loop over the brackets of a payload
-- with 80,000 objects took 160 ms, this takes 50).
CREATE OR REPLACE FUNCTION howdah.payload_problem(payload text, bytes_max integer)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number text;
    brackets text;
    level integer := 0;
BEGIN
    IF octet_length(payload) > bytes_max THEN
        RETURN format('payload_too_large /payload must be at most %s bytes', bytes_max);
    END IF;
    IF payload ~ '\\u(0000|[dD][89a-fA-F])' THEN
        BEGIN
            PERFORM json_strip_nulls(payload::json);
        EXCEPTION
            WHEN untranslatable_character THEN
                RETURN 'validation /payload must not contain \u0000';
            WHEN invalid_text_representation THEN
                RETURN 'validation /payload must not contain a lone surrogate';
        END;
    END IF;
    IF payload ~ '[eE][+]?[0-9]{3}|[0-9]{20}' THEN
        FOR number IN
            SELECT m.found[1]
            FROM regexp_matches(
                regexp_replace(payload, '"(?:[^"\\]|\\.)*"', '', 'g'),
                '([0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]{3,}|[0-9]{20,}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)', 'g'
            ) AS m (found)
        LOOP
            BEGIN
                PERFORM number::double precision;
            EXCEPTION
                WHEN numeric_value_out_of_range THEN
                    RETURN 'validation /payload must not contain a number that is too large for a double';
            END;
        END LOOP;
    END IF;
    IF length(payload) - length(translate(payload, '[{', '')) > 64 THEN
        brackets := regexp_replace(payload, '"(?:[^"\\]|\\.)*"|[^][{}"]+', '', 'g');
        brackets := translate(brackets, '{}', '[]');
        WHILE brackets <> '' LOOP
            level := level + 1;
            IF level > 64 THEN
                RETURN 'validation /payload must not be nested deeper than 64 levels';
            END IF;
            brackets := replace(brackets, '[]', '');
        END LOOP;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.payload_problem(text, integer) IS 'What is wrong with a payload; NULL if nothing.';
