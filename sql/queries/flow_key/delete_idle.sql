-- Delete flow keys that no live task has.
-- params: ids: locked by flow_key/lock_idle in this transaction.
-- locks: flow_keys that are locked already.
-- index: flow_keys_pkey, runs_flow_idx
DELETE FROM howdah.flow_keys AS f
WHERE f.id = ANY (%(ids)b::bigint[]) AND NOT EXISTS (SELECT FROM howdah.runs AS r WHERE r.flow_key_id = f.id)
