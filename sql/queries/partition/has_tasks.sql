-- Whether there is any task in a range of ids.
-- params: id_from; id_until.
-- returns: one row: has_tasks.
SELECT EXISTS (
    SELECT 1
    FROM howdah.tasks AS t
    WHERE t.id >= %(id_from)b::uuid AND t.id < %(id_until)b::uuid
) AS has_tasks
