-- A UUIDv7 of the database's clock. ordinal orders ids that one statement makes, so that tasks of one
-- batch keep their order: it fills the twelve bits behind the millisecond and goes on in the next one.
CREATE OR REPLACE FUNCTION howdah.new_id(ordinal integer DEFAULT 0)
RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$
    SELECT (
        lpad(to_hex(floor(extract(epoch FROM howdah.now()) * 1000)::bigint + (ordinal >> 12)), 12, '0')
        || '7' || lpad(to_hex(ordinal & 4095), 3, '0')
        || substr(replace(gen_random_uuid()::text, '-', ''), 17)
    )::uuid
$$;
COMMENT ON FUNCTION howdah.new_id(integer) IS 'A new task id.';
