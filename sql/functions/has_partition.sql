-- Whether tasks that are made at this time can be stored: there is no default partition.
CREATE OR REPLACE FUNCTION howdah.has_partition(made_at timestamptz)
RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT to_regclass('howdah.tasks_' || to_char(made_at AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NOT NULL
$$;
COMMENT ON FUNCTION howdah.has_partition(timestamptz) IS 'Internal: whether tasks of a time can be stored.';
