-- Give what runs that ended have left free to those that wait for it; see howdah.settle.
-- params: queue_ids; flow_key_ids.
-- returns: queue_id, priority of lanes that have due runs now; run_at of the oldest.
-- moves: blocked -> waiting (grant)
SELECT s.queue_id, s.priority, s.run_at
FROM howdah.settle(%(queue_ids)b::integer[], %(flow_key_ids)b::bigint[]) AS s
