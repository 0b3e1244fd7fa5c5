-- Replace a day's partition by one that holds only the survivors; see howdah.keep_survivors.
-- params: parent: tasks, finished_runs or task_logs; day.
-- returns: one row: row_count: how many rows were kept.
-- locks: the partition SHARE while it is copied; then the parent ACCESS EXCLUSIVE, for milliseconds.
SELECT howdah.keep_survivors(%(parent)b::text, %(day)b::date) AS row_count
