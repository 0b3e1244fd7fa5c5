-- The time that a UUIDv7 carries, to the millisecond.
CREATE OR REPLACE FUNCTION howdah.id_time(id uuid)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT to_timestamp(('x0000' || substr(replace(id::text, '-', ''), 1, 12))::bit(64)::bigint / 1000.0)
$$;
COMMENT ON FUNCTION howdah.id_time(uuid) IS 'When the task with this id was made.';
