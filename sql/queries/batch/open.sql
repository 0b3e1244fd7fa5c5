-- Open a batch; see howdah.open_batch.
-- params: tenant_id; id; follow_ups (JSON text); created_by.
-- returns: one row: is_new: false if there is a batch with this id.
SELECT howdah.store_batch(%(tenant_id)b::integer, %(id)b::uuid, %(follow_ups)b::text::json, %(created_by)b::text) AS is_new
