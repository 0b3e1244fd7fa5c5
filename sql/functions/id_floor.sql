-- The smallest UUIDv7 of an instant: what partitions are bounded by and lists are cut at.
-- Every step is immutable, so that PostgreSQL inlines it (see howdah.lane_word).
CREATE OR REPLACE FUNCTION howdah.id_floor(instant timestamptz)
RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM instant AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
COMMENT ON FUNCTION howdah.id_floor(timestamptz) IS 'Smallest task id of an instant: id >= howdah.id_floor(now() - interval ''1 hour'') finds the last hour''s tasks.';
