-- The word that names a lane and its oldest run_at in a wake-up: q<queue>.<priority>.<microseconds>.
CREATE OR REPLACE FUNCTION howdah.lane_word(queue_id integer, priority smallint, run_at timestamptz)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT 'q' || queue_id || '.' || priority || '.' || (extract(epoch FROM run_at) * 1000000)::bigint
$$;
COMMENT ON FUNCTION howdah.lane_word(integer, smallint, timestamptz) IS 'Part of a wake-up message.';
