-- Take a dead letter back to its queue; see howdah.replay.
-- params: id; tenant (name).
-- returns: one row: state.
SELECT howdah.replay(%(id)b::uuid, %(tenant)b::text) AS state
