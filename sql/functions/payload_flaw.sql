-- What howdah.payload_problem says, for less: most payloads cannot have a problem, which one look at them
-- tells. A payload of 128 bytes can be neither too large nor too deep, nor hold too many digits. It is one
-- expression, so that the planner merges it into its callers'.
CREATE OR REPLACE FUNCTION howdah.payload_flaw(payload text, bytes_max integer)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN octet_length(payload) > least(bytes_max, 128) OR payload ~ '\\u|[eE][+]?[0-9]{3}'
            THEN howdah.payload_problem(payload, bytes_max)
    END
$$;
COMMENT ON FUNCTION howdah.payload_flaw(text, integer) IS 'What is wrong with a payload; NULL if nothing.';
