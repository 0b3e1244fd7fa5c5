-- Whether any task of a range of ids has a live run or a dead letter.
-- params: id_from; id_until.
-- returns: one row: has_survivors.
SELECT EXISTS (
    SELECT 1
    FROM howdah.survivors(%(id_from)b::uuid, %(id_until)b::uuid) AS s
) AS has_survivors
