-- Make the daily partitions that are missing.
-- params: days_ahead.
-- returns: the name of each table that was made.
SELECT made.name
FROM howdah.make_partitions(%(days_ahead)b::integer) AS made (name)
