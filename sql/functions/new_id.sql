-- A UUIDv7 of the database's clock. ordinal orders ids that one statement makes, so that tasks of one
-- batch keep their order: it fills the twelve bits behind the millisecond and goes on in the next one.
-- The version's 7 and those bits are one number, 0x7000 and more; the rest is that of a random UUID.
CREATE OR REPLACE FUNCTION howdah.new_id(ordinal integer DEFAULT 0)
RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$
    SELECT (
        lpad(to_hex(floor(extract(epoch FROM howdah.now()) * 1000)::bigint + (ordinal >> 12)), 12, '0')
        || to_hex(28672 + (ordinal & 4095))
        || substr(gen_random_uuid()::text, 20)
    )::uuid
$$;
COMMENT ON FUNCTION howdah.new_id(integer) IS 'A new task id.';
