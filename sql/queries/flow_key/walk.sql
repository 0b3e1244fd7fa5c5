-- A page of the flow keys that live tasks have, by skipping through the index: two probes per key, however many tasks
-- it has.
-- params: after_id: the last key seen (0 from the start); key_count_max.
-- returns: id of each key, in order; is_waited_for: whether a run is parked until it has room.
-- index: runs_flow_idx
WITH RECURSIVE key AS (
    (
        SELECT r.flow_key_id AS id, 1 AS ordinal
        FROM howdah.runs AS r
        WHERE r.flow_key_id > %(after_id)b::bigint
        ORDER BY r.flow_key_id
        LIMIT 1
    )
    UNION ALL
    SELECT step.id, step.ordinal
    FROM key
    CROSS JOIN LATERAL (
        SELECT r.flow_key_id AS id, key.ordinal + 1 AS ordinal
        FROM howdah.runs AS r
        WHERE r.flow_key_id > key.id
        ORDER BY r.flow_key_id
        LIMIT 1
    ) AS step
    WHERE key.ordinal < %(key_count_max)b::integer
)
SELECT
    key.id,
    EXISTS (SELECT FROM howdah.runs AS w WHERE w.flow_key_id = key.id AND w.flow_state = 1) AS is_waited_for
FROM key
