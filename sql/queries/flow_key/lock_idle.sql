-- Lock flow keys that no live task has, a page at a time, to be deleted in the same transaction if that is still so.
-- params: none.
-- returns: id of each; at most 10,000. Keys of the last hour stay, and those whose rate still remembers starts.
-- locks: flow_keys, SKIP LOCKED: a transaction that enqueues a task with a key has it locked.
-- index: runs_flow_idx
SELECT f.id
FROM howdah.flow_keys AS f
WHERE f.created_at < howdah.now() - interval '1 hour'
    AND (f.gate_at IS NULL OR f.gate_at < howdah.now())
    AND NOT EXISTS (SELECT FROM howdah.runs AS r WHERE r.flow_key_id = f.id)
LIMIT 10000
FOR UPDATE OF f SKIP LOCKED
